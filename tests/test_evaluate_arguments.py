"""What `fastcam evaluate` takes, and what it says of what it cannot take; `fastcam metrics`; the figures."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("matplotlib")

from rich.progress import Task

import fastcam
from fastcam.cli import evaluate as command
from fastcam.cli import figures, results
from fastcam.cli.arguments import parse_bytes, split_options
from fastcam.cli.console import Rate
from fastcam.distributed import Gathered
from tests.cli_calls import TINY, fails, place, run  # noqa: F401
from tests.evaluate_calls import COUNT, QUICK, close, evaluate, make_data

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("arguments", "reasons"),
    [
        (("--methods", "gradcamp"), ["unknown method 'gradcamp'", "gradcam,"]),
        (("--metrics", "average_dorp"), ["no metric named 'average_dorp'", "average_drop"]),
        (("--metrics", "pxap"), ["pxap needs masks", "has none"]),
        (("--protocol", "papr"), ["'papr'", "paper, adcc"]),
        (("-O", "stepps=3"), ["'stepps=3'", "steps"]),
        (("-O", "steps"), ["'steps'", "name=value"]),
        (("-O", "steps=-1"), ["steps=-1", "positive"]),
        (("-O", "plus_one=perhaps"), ["'plus_one=perhaps'", "neither true nor false"]),
        (("-O", "patch=0"), ["patch=0", "a positive int, or None"]),
        (("-O", "tolerance=abc"), ["tolerance='abc'", "a number of 0 or above"]),
        (("-O", "ious=0.5"), ["ious=0.5", "a tuple of shares"]),
        (("-O", "score=logit"), ["'score=logit'", "reciprocam.score=", "protocol.score="]),
        (("-O", "eigencam.centered=True"), ["eigencam.centered", "name=value"]),
        (("--target", "tabby"), ["'tabby'", "predicted, label or a class number"]),
        (("--target", "4"), ["--target 4", "classes 0 to 3"]),
        (("--resize", "squash"), ["'squash'", "crop, warp or warp-crop"]),
        (("--layer", "7x"), ["no layer named '7x'"]),
        (("--precision", "int8"), ["int8", "float32"]),
        (("--device", "tpu"), ["'tpu'", "--device cpu"]),
        (("--kind", "coko"), ["coko", "coco"]),
        (("--class-index", "none.json"), ["none.json"]),
        (("--max-memory", "much"), ["'much'", "512MB"]),
        (("--out", "names.txt"), ["--out names.txt is a file"]),
        (("--out", "names.txt/o"), ["--out names.txt/o cannot be written"]),
        (("--model", "timm:resnet5O"), ["timm has no model 'resnet5O'"]),
    ],
)
def test_wrong_arguments_are_one_line(arguments, reasons):
    make_data()
    line = fails("evaluate", "data", *TINY, "--methods", "reciprocam", *arguments)
    for reason in reasons:
        assert reason in line
    assert not Path("fastcam-evaluation/shards").exists()


def test_no_such_data():
    assert "no data set at 'nowhere'" in fails("evaluate", "nowhere", *TINY)


@pytest.mark.parametrize(
    ("package", "arguments", "mend"),
    [
        ("pyarrow", (), "fastcam[evaluate]"),
        ("matplotlib", (), "fastcam[evaluate]"),
        ("ray", ("--ray",), "fastcam[ray]"),
    ],
)
def test_a_missing_package_is_named_before_the_work(package, arguments, mend, monkeypatch):
    make_data()
    monkeypatch.setitem(sys.modules, package, None)
    for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    line = fails("evaluate", "data", *TINY, *arguments)
    assert f"needs {package}" in line
    assert f"pip install '{mend}'" in line


def test_a_full_disk_is_found_before_the_work(monkeypatch):
    make_data()
    monkeypatch.setattr(command, "ROW", 1 << 60)
    assert "make room" in fails("evaluate", "data", *TINY, *QUICK)


@pytest.mark.parametrize(
    ("arguments", "address", "workers"),
    [
        ((), None, None),
        (("--ray",), "local", None),
        (("--ray", "--workers", "3"), "local", 3),
        (("--ray", "auto", "--limit", "2"), "auto", None),
        (("--ray", "ray://head:10001"), "ray://head:10001", None),
        (("--ray", "10.0.0.1:6379"), "10.0.0.1:6379", None),
    ],
)
def test_ray_with_and_without_an_address(arguments, address, workers, monkeypatch):
    calls = []
    monkeypatch.setattr(command, "run", lambda call: calls.append(call) or 0)
    for words in (("data", *arguments), (*arguments, "data")):
        run("evaluate", *words)
    for call in calls:
        assert (call.address, call.workers, Path(call.recipe.data).name) == (address, workers, "data")
        assert call.recipe.loaders == 2


def test_options_find_their_takers():
    fields = {"steps": None, "score": "probability", "threshold": 0.2}
    of_methods, of_protocol = split_options(
        ["steps=20", "reciprocam.score=logit", "protocol.score=logit", "kernel=gaussian"],
        ["gradcam", "reciprocam"],
        fields,
    )
    assert of_methods == {"gradcam": {}, "reciprocam": {"score": "logit", "kernel": "gaussian"}}
    assert of_protocol == {"steps": 20, "score": "logit"}


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("False", False), ("yes", True), ("no", False), ("ON", True), ("off", False), ("0", False)],
)
def test_switches_are_words(text, value):
    settings = [f"plus_one={text}", f"eigencam.centered={text}"]
    of_methods, of_protocol = split_options(settings, ["eigencam"], {"plus_one": False})
    assert of_protocol == {"plus_one": value}
    assert of_methods == {"eigencam": {"centered": value}}
    assert type(of_protocol["plus_one"]) is type(of_methods["eigencam"]["centered"]) is bool


def test_sizes():
    assert [parse_bytes(text) for text in (None, "512MB", "1.5 GiB", "7", "2k")] == [
        None, 512 << 20, 3 << 29, 7, 2048,
    ]  # fmt: skip


def test_seed_reaches_methods_and_metrics():
    make_data()
    arguments = ("--methods", "randomcam,sscam", "-O", "samples=2", "-O", "sscam.seed=7", "--seed", "3", "--limit", "2")
    found, _ = evaluate("data", *arguments, metrics="complexity")
    methods = found["settings"]["evaluation"]["methods"]
    assert (methods["randomcam"]["options"]["seed"], methods["sscam"]["options"]["seed"]) == (3, 7)
    assert found["settings"]["evaluation"]["seed"] == 3


@pytest.mark.parametrize(
    ("target", "classes"), [(None, "predicted"), ("predicted", "predicted"), ("label", "target"), ("2", "target")]
)
def test_target(target, classes):
    make_data()
    chosen = () if target is None else ("--target", target)
    found, _ = evaluate("data", *chosen, metrics="average_drop,box_iou")
    assert found["settings"]["evaluation"]["protocol"]["classes"] == classes


def test_warped_pictures_keep_their_edges():
    """The box covers the whole picture: after a crop too, but a warped box of one half stays one half."""
    data = make_data(**{f"n{number}": {"boxes": [[0, 0, 24, 40]]} for number in range(COUNT)})
    found, _ = evaluate(data, "--resize", "warp", metrics="energy_pointing_game")
    assert found["settings"]["preprocess"]["size"] == found["settings"]["preprocess"]["crop"] == [32, 32]
    assert found["table"]["center"]["energy_pointing_game"] == pytest.approx(0.5, abs=1e-6)
    cropped, _ = evaluate(data, "--out", "c", metrics="energy_pointing_game")
    assert cropped["settings"]["preprocess"]["size"] == 37


def test_metrics_are_those_of_the_registry():
    listed = json.loads(run("metrics", "--json").stdout)
    assert [row["name"] for row in listed] == fastcam.list_metrics()
    for row in listed:
        assert all(row[key] for key in ("formula", "direction", "range", "paper", "protocols", "cost"))
    text = run("metrics").stdout
    for name in fastcam.list_metrics():
        assert name in text
    assert "box_iou" in fails("metrics", "nothing*")
    cheap = [row["name"] for row in listed if row["cheap"]]
    assert [row["name"] for row in json.loads(run("metrics", "cheap", "--json").stdout)] == cheap
    assert f"all share: {', '.join(cheap)}" in text


def test_cheap_metrics_by_one_word():
    make_data()
    results, _ = evaluate("data", "--limit", "2", metrics="cheap")
    found = results["settings"]["evaluation"]["metrics"]
    assert {"adcc", "average_drop", "win_rate", "box_iou"} < set(found)
    assert not {"insertion", "road", "max_sensitivity", "pxap"} & set(found)  # no masks here
    assert results["costs"]["average_drop"]["forwards"] == 1


def outcome(**changes):
    up, down = [0.1, 0.4, 0.9], [0.9, 0.4, 0.1]
    table = {
        "gradcam": {"adcc": 0.7, "insertion": 0.45, "insertion_curve": up, "deletion": 0.2, "deletion_curve": down},
        "scorecam": {"adcc": 0.8, "insertion": 0.5, "insertion_curve": [0.2, 0.5, 0.9], "max_box_acc": math.nan},
        "center": {
            "max_box_acc": 0.4,
            "max_box_acc_curve": [[0.1, 0.4, 0.3, 0.0]],
            "max_box_acc_iou_curve": [0.2, 0.4, 0.3, 0.1],
        },
    }
    costs = {"method gradcam": {"seconds": 0.01}, "method scorecam": {"seconds": 2.0}}
    settings = {"evaluation": {"protocol": {"name": "paper", "score": "probability"}}, "model": "m"}
    return results.Outcome(settings, "d", table | changes, costs, Gathered(), [], 3, [])


def test_figures_show_the_numbers():
    found = outcome()
    left, right = figures._curves(found).axes
    assert [line.get_xdata().tolist() for line in left.lines] == [[0, 0.5, 1]] * 2
    assert [line.get_ydata().tolist() for line in left.lines] == [[0.1, 0.4, 0.9], [0.2, 0.5, 0.9]]
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["gradcam 0.4500", "scorecam 0.5000"]
    assert [line.get_ydata().tolist() for line in right.lines] == [[0.9, 0.4, 0.1]]
    assert left.get_xlabel() == "share of pixels inserted"
    assert left.get_ylabel() == "probability of the explained class"
    accuracy, overlap = figures._boxes(found).axes
    assert accuracy.lines[0].get_xdata().tolist() == [0, 0.25, 0.5, 0.75]
    assert accuracy.lines[0].get_color() == "0.5"
    assert overlap.lines[0].get_ydata().tolist() == [0.2, 0.4, 0.3, 0.1]
    (axes,) = figures._cost(found).axes
    assert [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in axes.lines] == [
        ([10], [0.7]),
        ([2000], [0.8]),
    ]
    assert axes.get_xscale() == "log"
    looks = {
        tuple(sorted(figures._style(outcome(**{f"m{n}": {} for n in range(20)}), f"m{n}").items())) for n in range(20)
    }
    assert len(looks) == 20


def test_numbers_that_are_none():
    found = outcome()
    assert found.metrics == ["adcc", "insertion", "deletion", "max_box_acc"]
    assert found.best("adcc") == {"scorecam"}
    assert found.best("deletion") == set()
    assert found.best("max_box_acc") == set()
    assert found.as_json()["table"]["scorecam"]["max_box_acc"] is None
    json.dumps(found.as_json(), allow_nan=False)


def test_rate_counts_what_this_run_has_done():
    def shown(completed, before, elapsed):
        clock = iter([0.0, elapsed, elapsed])
        task = Task(0, "", 100, completed, _get_time=lambda: next(clock), fields={"before": before})
        task.start_time = 0.0
        next(clock)
        return str(Rate().render(task))

    assert shown(70, 50, 4.0) == "5.0/s"
    assert shown(51, 50, 4.0) == "4.0 s each"
    assert shown(50, 50, 4.0) == ""


def test_two_processes_under_torchrun():
    """As processes of their own; torchmetrics adds up their states, the first one prints and writes."""
    make_data(n2={"class_ids": [7]})
    metrics = "average_drop,adcc,pointing_game,max_box_acc,insertion"
    alone, _ = evaluate("data", "--out", "alone", metrics=metrics, code=1)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "fastcam"]
    words = ["evaluate", "data", *TINY, *QUICK, "--metrics", metrics, "--json", "--out", "two"]
    path = os.pathsep.join([str(Path(fastcam.__file__).parent.parent), str(Path.cwd())])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    found = subprocess.run([*command, *words], capture_output=True, text=True, check=False, env=environment)
    assert found.returncode == 1, found.stderr  # a picture could not be evaluated
    both = json.loads(found.stdout)
    assert json.loads(Path("two/results.json").read_text()) == both
    assert both["settings"] == alone["settings"]
    assert both["problems"] == alone["problems"]
    assert both["counts"] == alone["counts"]
    for method, row in alone["table"].items():
        for name, value in row.items():
            close(both["table"][method][name], value, rel=1e-12)
    again, _ = evaluate("data", "--out", "two", metrics=metrics, code=1)
    assert again["table"] == alone["table"]
