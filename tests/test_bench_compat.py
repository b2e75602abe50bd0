"""The bench of the drop-ins: a peer's suite on both, its classes through both import roots, and what is made of it."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch import nn

from bench import compat, compat_front, compat_suite, report, report_compat, rows
from bench.compat import Entry
from bench.compat_suite import Counts, Outcome, Report, Suite
from bench.models import Subject

for package in ("pytorch_grad_cam", "torchcam"):
    pytest.importorskip(package)

pytestmark = pytest.mark.usefixtures("one_thread")

TESTS = """
import pytest, torchcam, torchcam.utils

OURS = torchcam.__name__.startswith("fastcam")

def test_passes():
    assert torchcam.utils.overlay_mask

@pytest.mark.parametrize("size", [1, 2])
def test_theirs(size):
    assert not OURS, "of the peer only"

def test_nobody():
    raise KeyError("gone")

@pytest.mark.skip(reason="not here")
def test_skipped():
    pass
"""


@pytest.fixture
def suite(tmp_path):
    """A checkout: the peer's package stands in it, and must not be taken for fastcam's."""
    (tmp_path / "torchcam").mkdir()
    (tmp_path / "torchcam" / "__init__.py").write_text("")
    (tmp_path / "torchcam" / "utils.py").write_text("overlay_mask = True\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_all.py").write_text(TESTS)
    (tmp_path / "tests" / "test_import.py").write_text(
        "from torchcam import utils\nassert 'fastcam' not in utils.__name__, 'wrong place'\ndef test_one(): pass\n"
    )
    return tmp_path


def test_a_suite_on_both(suite, monkeypatch):
    monkeypatch.setitem(compat_suite.REASONS, "torchcam", {"tests/test_all.py::test_theirs[*": "as meant"})
    found = compat_suite.run(suite)
    assert found.peer == "torchcam"
    assert {name.partition("::")[2]: test.outcome for name, test in found.ours.tests.items()} == {
        "": "failed",  # the file that cannot be imported
        "test_passes": "passed",
        "test_theirs[1]": "failed",
        "test_theirs[2]": "failed",
        "test_nobody": "failed",
        "test_skipped": "skipped",
    }
    assert [found.theirs.count(kind) for kind in compat_suite.KINDS] == [4, 1, 1]
    assert found.failed == {
        "tests/test_import.py": "",
        "tests/test_all.py::test_theirs[1]": "as meant",
        "tests/test_all.py::test_theirs[2]": "as meant",
    }
    assert found.both == {"tests/test_all.py::test_nobody": "KeyError: 'gone'"}
    text = found.text()
    assert "tests/test_import.py: NO REASON KNOWN: AssertionError: wrong place" in text
    assert "test_theirs[1]: as meant: AssertionError: of the peer only" in text
    assert "skipped: tests/test_all.py::test_skipped: Skipped: not here" in text
    assert not list(suite.rglob("__pycache__")), "nothing is written into the checkout"
    assert not list(suite.rglob(".pytest_cache"))


def test_the_command_says_and_keeps_it(suite, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(compat_suite, "FILE", tmp_path / "suites.csv")
    monkeypatch.setattr(compat_suite.keep, "__defaults__", (tmp_path / "suites.csv",))
    given = Namespace(suite=suite, readme=None, random_weights=True, only="passes or theirs", json=None, save="suites")
    given.json = tmp_path / "found.json"
    assert compat_front.run(given) == 1, "two failures without a known reason"
    assert "are random: the tests see other networks" in capsys.readouterr().out
    kept = json.loads(given.json.read_text())["suite"]
    assert kept["ours"]["tests"]["tests/test_all.py::test_passes"]["outcome"] == "passed"
    (ours, theirs) = sorted(compat_suite.read(tmp_path / "suites.csv", Counts), key=lambda row: row.who)
    assert (ours.who, ours.passed, ours.failed, ours.skipped, ours.weights) == ("fastcam", 1, 3, 0, "random")
    assert (theirs.who, theirs.passed, theirs.failed) == ("torchcam", 3, 0)


def test_random_weights_are_lent(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    assert torchvision
    (tmp_path / "test_weights.py").write_text(
        "import torch, torchvision\n"
        "def test_one():\n"
        "    a, b = (torchvision.models.squeezenet1_1(weights='DEFAULT').classifier[1].weight for _ in range(2))\n"
        "    assert torch.equal(a, b) and a.std() > 0\n"
    )
    found = tmp_path / "outcomes.json"
    variables = {"TORCH_HOME": str(tmp_path), compat_suite.RANDOM: "1", compat_suite.OUTCOMES: str(found)}
    path = {"PYTHONPATH": str(compat_suite.ROOT), "PATH": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "bench.compat_plugin", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=path | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert [test["outcome"] for test in json.loads(found.read_text()).values()] == ["passed"]


def test_patterns_of_reasons():
    assert compat_suite.matches("tests/a.py::test_x[1-a]", "tests/a.py::test_x[1-a]")
    assert compat_suite.matches("tests/a.py::test_x[1-a]", "tests/a.py::test_x*")
    assert compat_suite.matches("tests/a.py::test_x[1-a]", "tests/*[1-*]")
    assert not compat_suite.matches("tests/a.py::test_x1", "tests/a.py::test_x[1]")


def test_a_folder_that_is_no_checkout(tmp_path):
    with pytest.raises(ValueError, match="give a checkout with tests/ and pytorch_grad_cam/ or torchcam/"):
        compat_suite.run(tmp_path)
    given = Namespace(suite=None, readme=tmp_path / "README.md", random_weights=False, only="", json=None, save=None)
    with pytest.raises(SystemExit, match="compat: "):
        compat_front.run(given)


def network() -> nn.Module:
    torch.manual_seed(0)
    stages = [nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU()), nn.Sequential(nn.Conv2d(6, 8, 3), nn.ReLU())]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()


@pytest.fixture
def subject():
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return Subject("small", network(), x, "1", "random")


def given(**more) -> Namespace:
    return Namespace(**{"quick": False, "only": "", "device": "cpu", "weights": None} | more)


def test_times_through_both_import_roots(monkeypatch, subject, tmp_path, capsys):
    listed = [
        Entry("pytorch_grad_cam", "GradCAM", versus=2.5),
        Entry("torchcam", "GradCAM", versus=1e9, only=("another",)),
        Entry("pytorch_grad_cam", "AblationCAM", versus=1000, long=True, only=("small",)),
        Entry("pytorch_grad_cam", "RefineCAM", layers=2),
    ]
    monkeypatch.setattr(compat, "entries", lambda: iter(listed))
    monkeypatch.setattr(compat, "subject", lambda *_: subject)
    monkeypatch.setattr(compat, "NETWORKS", ("small",))
    monkeypatch.setattr(compat, "SECONDS", {True: 0.01, False: 0.01})
    found = compat.run(given())
    assert [row.what.rpartition(", ")[2] for row in found[:6:2]] == list(compat.KINDS)
    assert [row.who for row in found[:2]] == ["fastcam", "pytorch-grad-cam"]
    ablation = [row for row in found if "AblationCAM" in row.what]
    assert [row.rounds for row in ablation] == [1, 1]
    assert ablation[1].versus == 1000
    assert found[1].versus == 2.5
    by = {row.what: row for row in found if row.who != "fastcam"}
    assert by["torchcam GradCAM, small, call"].versus == 1, "no more than no slower on other networks"
    assert all(row.difference < 1e-4 for row in by.values()), {row.what: row.difference for row in by.values()}
    assert f"of {len(by)} targets met" in capsys.readouterr().out
    rows.write_csv(tmp_path / "cpu-compat.csv", found)
    text = report_compat.times(report.newest(tmp_path, "compat"))
    assert text.count("| pytorch-grad-cam GradCAM, small, ") == 3


def test_quick_leaves_long_ones_and_first_calls_out(monkeypatch, subject):
    listed = [Entry("torchcam", "ScoreCAM", long=True), Entry("torchcam", "LayerCAM")]
    monkeypatch.setattr(compat, "entries", lambda: iter(listed))
    monkeypatch.setattr(compat, "subject", lambda *_: subject)
    monkeypatch.setattr(compat, "NETWORKS", ("small",))
    monkeypatch.setattr(compat, "SECONDS", {True: 0.01, False: 0.01})
    found = compat.run(given(quick=True))
    assert {row.what for row in found} == {f"torchcam LayerCAM, small, {kind}" for kind in compat.KINDS[:2]}


def test_a_peer_that_does_not_run_is_named(monkeypatch, subject, capsys):
    wide = Subject("small", nn.Sequential(*network(), nn.Linear(5, 3)), subject.images, "1", "random")
    assert compat.measure(Entry("torchcam", "CAM"), wide, quick=True) == []
    assert "torchcam CAM, small: the peer does not run here: " in capsys.readouterr().out


def test_a_target_missed_is_said(subject):
    made = compat._row(Entry("torchcam", "GradCAM"), subject, "call", "fastcam", compat.Timing([2.0]), 0.0)
    peer = compat._row(Entry("torchcam", "GradCAM"), subject, "call", "torchcam", compat.Timing([1.0]), 0.25)
    assert compat.verdict(made, peer) == "MISS"
    assert "0 of 1 targets met" in compat.text([made, peer])
    assert "2.5e-01" in compat.text([made, peer])


def test_every_class_of_the_list_is_in_both_roots():
    for entry in compat.entries():
        tail = "" if entry.peer == "pytorch_grad_cam" else ".methods"
        for root in (entry.peer, compat.FASTCAM + entry.peer):
            assert hasattr(importlib.import_module(root + tail), entry.name), (root, entry.name)


def test_the_page_shows_what_is_kept(tmp_path):
    tests = {"a::one": Outcome("passed", 0.5, ""), "a::two": Outcome("failed", 0.1, "no")}
    theirs = {name: Outcome("passed", 2.0, "") for name in tests}
    found = Report("torchcam", str(tmp_path), False, Suite(tests, 3.0), Suite(theirs, 4.0))
    assert found.ratio() == (2.0, 0.5)
    compat_suite.keep(found, tmp_path / "suites.csv")
    compat_suite.keep(found, tmp_path / "suites.csv")
    kept = compat_suite.read(tmp_path / "suites.csv", Counts)
    assert len(kept) == 2, "a new run takes the place of the old one"
    text = report_compat.suites(kept)
    assert "| torchcam | fastcam | 1 | 1 | 0 | 500 ms | pretrained |" in text
    assert "| torchcam | torchcam | 2 | 0 | 0 | 2 s | pretrained |" in text
    assert report_compat.failures({"torchcam": {"a::two": "meant"}}).endswith("| torchcam | `a::two` | meant |")
    assert Path(tmp_path / "suites.csv").read_text().startswith("peer,checkout,who,")
