"""What `fastcam evaluate` keeps of an earlier run, which class and part of a picture it explains, what it notes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("matplotlib")

from PIL import Image
from pyarrow import parquet

import fastcam
from fastcam.cli.arguments import spelled
from fastcam.datasets import Sample, stamps
from fastcam.datasets.source import File
from fastcam.metrics import PROTOCOLS
from tests.cli_calls import TINY, fails, place, run, tiny  # noqa: F401
from tests.evaluate_calls import COUNT, QUICK, evaluate, make_data

pytestmark = pytest.mark.usefixtures("one_thread")


def paint(path, seed):
    """Noise of the size that the data set's pictures have."""
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 48, 3), np.uint8)).save(path)


def written(out):
    return {path.stem: path.stat().st_mtime_ns for path in Path(out, "shards").glob("*.pt")}


def renewed(before, out):
    return {stem for stem, when in written(out).items() if when != before[stem]}


def test_a_mended_picture_is_evaluated():
    picture = Path(make_data(), "images/7.png")
    good = picture.read_bytes()
    picture.write_text("not a picture")
    broken, _ = evaluate("data", "--out", "o", code=1)
    assert broken["counts"]["evaluated"] == COUNT - 1
    before = written("o")
    again, stderr = evaluate("data", "--out", "o", code=1)
    assert again["counts"] == broken["counts"]
    assert "6 pictures of 10 kept from an earlier run" in stderr
    assert "4 pictures computed again, since some could not be evaluated" in stderr
    assert "7.png" in stderr
    assert renewed(before, "o") == {"000001"}
    picture.write_bytes(good)
    mended, stderr = evaluate("data", "--out", "o")
    assert mended["counts"]["evaluated"] == COUNT
    assert "4 pictures computed again, since files were changed" in stderr
    assert mended["table"] == evaluate("data", "--out", "fresh")[0]["table"]
    _, stderr = evaluate("data", "--out", "o")
    assert stderr == "note: 10 pictures of 10 kept from an earlier run\n"


def test_a_replaced_picture_is_evaluated_anew():
    make_data()
    first, stderr = evaluate("data", "--out", "o")
    assert stderr == ""
    before = written("o")
    paint("data/images/2.png", seed=7)
    second, _ = evaluate("data", "--out", "o")
    assert renewed(before, "o") == {"000000"}
    assert second["table"] != first["table"]
    assert second["table"] == evaluate("data", "--out", "fresh")[0]["table"]


def test_stamps_follow_files(tmp_path):
    paths = [tmp_path / name for name in ("a.png", "b.png", "mask.png")]
    for path in paths:
        path.write_bytes(b"1234")
        os.utime(path, ns=(0, 10**18))
    samples = [Sample("a", File(str(paths[0])), mask_paths=(str(paths[2]),)), Sample("b", File(str(paths[1])))]
    groups = [[one] for one in samples]
    first = stamps(groups)
    assert first == stamps(groups)
    os.utime(paths[1], ns=(0, 10**18 + 1))
    assert [one == other for one, other in zip(first, stamps(groups), strict=True)] == [True, False]
    os.utime(paths[1], ns=(0, 10**18))
    paths[2].write_bytes(b"12345")
    os.utime(paths[2], ns=(0, 10**18))
    assert [one == other for one, other in zip(first, stamps(groups), strict=True)] == [False, True]
    paths[0].unlink()
    assert len({*stamps(groups), *first}) == 3


def test_stamps_of_many_files_are_cheap(tmp_path):
    for number in range(2000):
        (tmp_path / f"{number}.png").touch()
    samples = [Sample(f"{n}", File(str(tmp_path / f"{n % 2000}.png"))) for n in range(50_000)]
    began = time.perf_counter()
    stamps(samples[start : start + 16] for start in range(0, len(samples), 16))
    assert time.perf_counter() - began < 10


@pytest.mark.parametrize(
    ("arguments", "who"),
    [
        (("--target", "label"), "--target label"),
        (("--protocol", "recipro", "-O", "patch=8"), "--protocol recipro"),
        (("-O", "classes=target"), "-O classes=target"),
    ],
)
def test_labels_that_are_not_there(arguments, who):
    make_data(Path("none"), **{f"n{number}": {"class_ids": []} for number in range(COUNT)})
    call = ("evaluate", "none", *TINY, *QUICK, "--metrics", "average_drop", *arguments)
    line = fails(*call)
    for part in ("no picture of", "none has a label", f"which {who} explains", "give --target predicted"):
        assert part in line
    if "-O" not in who:
        run(*call, "--target", "predicted")
    make_data(Path("few"), n3={"class_ids": []})
    results, _ = evaluate("few", *arguments, "--out", "o", metrics="average_drop", code=1)
    (problem,) = results["problems"]
    assert problem["file"].endswith("3.png")
    assert f"it has no label, which {who} explains" in problem["reason"]
    assert results["counts"]["evaluated"] == COUNT - 1


@pytest.mark.parametrize(
    ("arguments", "metrics", "explained"),
    [
        ((), "average_drop", "predicted"),
        (("--target", "label"), "average_drop", "label"),
        (("--target", "3"), "average_drop", 3),
        ((), "box_iou", "label"),
    ],
)
def test_rows_say_which_class_was_explained(arguments, metrics, explained):
    make_data()
    evaluate("data", *arguments, "--out", "o", metrics=metrics)
    rows = parquet.read_table("o/rows.parquet").to_pylist()
    for row in rows:
        assert row["explained"] == (explained if isinstance(explained, int) else row[explained])
    assert {row["label"] for row in rows} == {0, 1, 2, 3}
    assert any(row["label"] != row["predicted"] for row in rows)


@pytest.mark.parametrize(
    ("arguments", "resize", "size"),
    [
        ((), "crop", 37),
        (("--protocol", "wsol"), "warp", [32, 32]),
        (("--protocol", "recipro", "-O", "patch=8"), "warp-crop", [37, 37]),
        (("--protocol", "wsol", "--resize", "crop"), "crop", 37),
        (("--protocol", "wsol", "-O", "resize=warp-crop"), "warp-crop", [37, 37]),
        (("--resize", "warp-crop"), "warp-crop", [37, 37]),
    ],
)
def test_pictures_are_brought_to_size_as_the_protocol_wants(arguments, resize, size):
    make_data()
    results, _ = evaluate("data", *arguments, "--limit", "2", "--out", "o", metrics="complexity")
    assert results["settings"]["evaluation"]["protocol"]["resize"] == resize
    assert results["settings"]["preprocess"]["size"] == size
    assert results["settings"]["preprocess"]["crop"] == [32, 32]
    assert f"brought to 32 x 32 by {resize}," in Path("o/results.md").read_text()


def test_the_protocols_bring_pictures_to_size_as_their_codes_do():
    assert {name: one.resize for name, one in PROTOCOLS.items() if one.resize != "crop"} == {
        "recipro": "warp-crop",
        "wsol": "warp",
    }


def test_notes_reach_the_terminal():
    for number, name in enumerate(("n01440764", "n01443537")):
        Path("folders", name).mkdir(parents=True)
        paint(f"folders/{name}/{number}.png", number)
    found = run("evaluate", "folders", *TINY, *QUICK, "--metrics", "average_drop", "--out", "o")
    (line,) = found.stderr.splitlines()
    assert line.startswith("note: 2 WordNet ids are numbered 0 to 1")
    assert "give --class-index imagenet" in line
    assert "class_index" not in found.stderr + Path("o/results.md").read_text()
    assert json.loads(Path("o/results.json").read_text())["notes"] == [line.removeprefix("note: ")]


def test_metrics_without_a_value_are_named():
    make_data(n0={"boxes": []})
    line = fails("evaluate", "data", *TINY, "--methods", "gradcam", "--metrics", "adcc,win_rate")
    assert "win_rate compares methods, and there is only gradcam; give two" in line
    results, stderr = evaluate("data", "--methods", "gradcam", "--limit", "1", metrics="win*,average_drop,box_iou")
    assert stderr == "note: no picture has a value of box_iou\n"
    assert results["notes"] == ["no picture has a value of box_iou"]


def test_messages_are_spelled_as_the_command_line_is():
    for message, expected in {
        "give class_index='imagenet'": "give --class-index imagenet",
        "outside the model's 4 classes; give class_index, or": "outside the model's 4 classes; give --class-index, or",
        "not coco; give kind='wsol' or none": "not coco; give --kind wsol or none",
        "no class_index file '/a/class_index.json'": "no --class-index file '/a/class_index.json'",
    }.items():
        assert spelled(message) == expected


@pytest.mark.parametrize(
    ("arguments", "line"),
    [(("--out", "names.txt"), "--out names.txt is a file"), (("--strict",), "7.png: cannot read")],
)
def test_an_error_under_torchrun_is_said_once(arguments, line):
    """The other process ends without a word; the one traceback is torchrun's own, about its child."""
    Path(make_data(), "images/7.png").write_text("not a picture")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "fastcam"]
    words = ["evaluate", "data", *TINY, *QUICK, "--metrics", "average_drop", *arguments]
    path = os.pathsep.join([str(Path(fastcam.__file__).parent.parent), str(Path.cwd())])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    found = subprocess.run([*command, *words], capture_output=True, text=True, check=False, env=environment)
    assert found.returncode != 0
    assert found.stderr.count("error: ") == 1
    assert re.search(f"error: .*{re.escape(line)}", found.stderr)
    assert found.stderr.count("Traceback") == 1
    assert "ChildFailedError" in found.stderr
