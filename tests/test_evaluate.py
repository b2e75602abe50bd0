"""`fastcam evaluate` as a user meets it: what it prints, what it leaves, what it does with bad input."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

pytest.importorskip("pyarrow")
pytest.importorskip("matplotlib")

from pyarrow import parquet

from fastcam import CAM, image
from fastcam.datasets import fit_boxes
from fastcam.metrics import METRICS, Evaluation
from tests.cli_calls import fails, place, run, tiny  # noqa: F401
from tests.evaluate_calls import COUNT, OPTIONS, QUICK, TINY, close, evaluate, make_data

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ["adcc", "average_drop", "win_rate", "pointing_game", "max_sensitivity", "deletion", "insertion", "max_box_acc"]


def library():
    """The same evaluation by calls in Python: in batches that do not cross shards of four."""
    model = tiny()
    cams = {name: CAM(model, name, batch_size=3) for name in ("gradcam", "reciprocam")}
    black = {"mean": image.IMAGENET_MEAN, "std": image.IMAGENET_STD}
    evaluation = Evaluation(cams, NAMES, options=OPTIONS, seed=5, num_classes=4, **black)
    settings = image.Preprocess(37, 32)
    pictures = [image.preprocess(image.read(f"data/images/{n}.png"), settings)[0] for n in range(COUNT)]
    boxes = fit_boxes([(6, 4, 30, 36)], (40, 48), settings)
    rows = {name: {} for name in (*cams, "center")}
    for start, stop in ((0, 3), (3, 4), (4, 7), (7, 8), (8, 10)):
        ids = list(range(start, stop))
        target = torch.tensor([number % 4 for number in ids])
        found = evaluation.update(torch.stack(pictures[start:stop]), target, [boxes] * len(ids), ids=ids)
        for method, values in found.items():
            for name, value in values.items():
                rows[method].setdefault(name, []).extend(value.tolist())
    return evaluation.compute(), rows, model(torch.stack(pictures)).softmax(1).detach()


def test_it_is_the_library():
    make_data()
    results, _ = evaluate("data", "--seed", "5", "--out", "o", metrics=",".join(NAMES))
    table, expected, probabilities = library()
    assert set(results["table"]) == {"gradcam", "reciprocam", "center"}
    for method, row in table.items():
        for name, value in row.items():
            close(results["table"][method][name], value, rel=1e-9)
    rows = parquet.read_table("o/rows.parquet")
    assert rows.num_rows == 3 * COUNT
    for record in rows.to_pylist():
        number = record["index"]
        assert record["key"].endswith(f"{number}.png")
        assert (record["label"], record["seed"], record["protocol"]) == (number % 4, 5, "paper")
        assert record["predicted"] == probabilities[number].argmax()
        assert record["probability"] == pytest.approx(float(probabilities[number].max()), rel=1e-5)
        for name in (*NAMES, "insertion_curve", "deletion_curve"):
            if name in expected[record["method"]]:
                close(record[name], expected[record["method"]][name][number], rel=1e-6)
            else:
                assert record["method"] == "center"
    about = json.loads(rows.schema.metadata[b"fastcam"])
    assert about["settings"] == results["settings"]
    assert about["settings"]["evaluation"]["protocol"]["steps"] == 4
    assert about["versions"]["torch"] == torch.__version__


def test_what_it_leaves():
    make_data()
    results, _ = evaluate("data", "--out", "o", metrics=",".join(NAMES))
    names = {"rows.parquet", "results.json", "results.md", "curves.png", "boxes.png", "cost.png", "shards"}
    assert {path.name for path in Path("o").iterdir()} == names
    assert json.loads(Path("o/results.json").read_text()) == results
    assert results["counts"] == {"samples": COUNT, "evaluated": COUNT, "rows": 3 * COUNT, "problems": 0}
    assert results["metrics"]["average_drop"]["direction"] == "down"
    assert results["costs"]["method gradcam"]["forwards"] == 1
    text = Path("o/results.md").read_text()
    header, _, *lines = [line for line in text.splitlines() if line.startswith("|")]
    columns = [cell.strip() for cell in header.strip("|").split("|")]
    assert columns[0] == "method"
    table = {cells[0]: cells[1:] for cells in ([c.strip() for c in line.strip("|").split("|")] for line in lines[:3])}
    for position, column in enumerate(columns[1:]):
        name, arrow = column.split()
        up = METRICS[name].direction == "up"
        assert arrow == ("↑" if up else "↓")
        shown = {method: cells[position] for method, cells in table.items()}
        numbers = {m: float(text.strip("*")) for m, text in shown.items() if text != "–"}
        for method, value in numbers.items():
            assert value == pytest.approx(results["table"][method][name], abs=5e-5)
        assert ("center" in numbers) == (name in ("pointing_game", "max_box_acc"))
        numbers.pop("center", None)
        best = {m for m, value in numbers.items() if value == (max if up else min)(numbers.values())}
        assert {m for m, text in shown.items() if text.startswith("**")} == (best if len(best) == 1 else set())
    for name in ("curves.png", "boxes.png", "cost.png"):
        assert image.read(f"o/{name}").float().std() > 10


def test_text_output():
    make_data()
    found = run("evaluate", "data", *TINY, *QUICK, "--metrics", "average_drop,box_iou", "--out", "o")
    for word in ("average_drop ↓", "box_iou ↑", "center", "method gradcam", "10 of 10 pictures", "are in o"):
        assert word in found.stdout
    assert not Path("o/curves.png").exists()
    assert found.stderr == ""


def test_the_same_command_goes_on(monkeypatch):
    make_data()
    first, _ = evaluate("data", "--out", "o")
    kept = {path.name: path.stat().st_mtime_ns for path in Path("o/shards").glob("*.pt")}
    assert len(kept) == 3
    Path("o/shards/000001.pt").unlink()
    Path("o/results.json").unlink()
    Path("o/curves.png").write_text("of an older run")
    second, _ = evaluate("data", "--out", "o")
    assert second["table"] == first["table"]
    now = {path.name: path.stat().st_mtime_ns for path in Path("o/shards").glob("*.pt")}
    assert {name for name in now if now[name] == kept[name]} == {"000000.pt", "000002.pt"}
    again = ("evaluate", "data", *TINY, *QUICK, "--metrics", "adcc", "--out", "o", "--limit", "9")
    line = fails(*again)
    for word in ("o holds results of other settings", "limit None -> 9", "--overwrite"):
        assert word in line
    run(*again, "--overwrite")
    assert json.loads(Path("o/results.json").read_text())["counts"]["evaluated"] == 9
    assert not Path("o/curves.png").exists()


def test_shards_and_loaders_change_nothing():
    make_data()
    table = evaluate("data", "--out", "a")[0]["table"]
    assert evaluate("data", "--out", "b", "--workers", "1")[0]["table"] == table
    for method, row in evaluate("data", "--out", "c", "--shard-size", "3")[0]["table"].items():
        for name, value in row.items():
            # Another batch size rounds a forward in another way; max_sensitivity divides a small difference.
            close(value, table[method][name], rel=1e-4)


BAD = {
    "n1": {"file": "images/none.png"},
    "n2": {"class_ids": [4]},
    "n3": {"boxes": [[30, 4, 6, 36], [6, 4, 30, 36]]},
    "n5": {"class_ids": []},
}


def test_bad_input_is_counted_and_listed():
    Path(make_data(**BAD), "images/7.png").write_text("not a picture")
    results, stderr = evaluate("data", "--out", "o", metrics="average_drop,localization_accuracy", code=1)
    reasons = {
        "none.png": "no such picture",
        "2.png": "outside the model's 4 classes",
        "3.png": "ends before it begins",
        "5.png": "no label",
        "7.png": "not a picture",
    }
    assert results["counts"]["problems"] == len(reasons)
    assert results["counts"]["evaluated"] == COUNT - 4
    for name, reason in reasons.items():
        (found,) = [one for one in results["problems"] if reason in one["reason"]]
        assert name in found["file"] + found["reason"]
        assert found["lost"] == ("box" if name == "3.png" else "sample")
        assert reason in Path("o/results.md").read_text()
    assert re.search(r"error: .*7\.png.*not a picture", stderr)
    assert "5 problems" in Path("o/results.md").read_text()
    rows = parquet.read_table("o/rows.parquet").to_pylist()
    assert {Path(row["key"]).stem for row in rows} == {"0", "3", "4", "6", "8", "9"}


@pytest.mark.parametrize("number", ["n1", "n2", "n3", "n5"])
def test_strict_stops_at_the_first(number):
    make_data(**{number: BAD[number]})
    line = fails("evaluate", "data", *TINY, *QUICK, "--metrics", "localization_accuracy", "--strict")
    assert {"n1": "no such picture", "n2": "outside", "n3": "ends before", "n5": "no label"}[number] in line


def test_strict_stops_at_a_damaged_picture():
    Path(make_data(), "images/7.png").write_text("not a picture")
    arguments = ("evaluate", "data", *TINY, *QUICK, "--metrics", "average_drop")
    assert "not a picture" in fails(*arguments, "--strict")
    assert run(*arguments, code=1).stderr.count("error: ") == 1
    again = run(*arguments, "--strict", code=2)  # also where it was found by an earlier run
    assert "error: " in again.stderr
    assert "not a picture" in again.stderr


def test_only_a_box_was_bad():
    make_data(n3=BAD["n3"])
    results, _ = evaluate("data", metrics="average_drop,box_iou")
    assert (results["counts"]["evaluated"], results["counts"]["problems"]) == (COUNT, 1)
