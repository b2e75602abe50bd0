"""The bench of the drop-ins: a peer's suite on both, its classes through both import roots, and what is made of it."""

from __future__ import annotations

import importlib
import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch import nn

from bench import compat, compat_front, compat_plugin, compat_suite, report, report_compat, rows
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


def report_of(path: Path) -> Report:
    tests = {"a::one": Outcome("passed", 0.5, ""), "a::two": Outcome("failed", 0.1, "no")}
    theirs = {name: Outcome("passed", 2.0, "") for name in tests}
    return Report("torchcam", str(path), True, Suite(tests, 3.0), Suite(theirs, 4.0))


def test_the_command_says_and_keeps_it(monkeypatch, tmp_path, capsys):
    asked = []
    monkeypatch.setattr(compat_suite, "run", lambda *words: asked.append(words) or report_of(tmp_path))
    monkeypatch.setattr(compat_suite.keep, "__defaults__", (tmp_path / "suites.csv",))
    given = Namespace(
        suite=tmp_path, readme=None, random_weights=True, only="x", json=tmp_path / "found.json", save="y"
    )
    assert compat_front.run(given) == 1, "a failure without a known reason"
    assert asked == [(tmp_path, True, "x")]
    assert "are random: the tests see other networks" in capsys.readouterr().out
    assert json.loads((tmp_path / "found.json").read_text())["suite"]["ours"]["tests"]["a::one"]["outcome"] == "passed"
    monkeypatch.setitem(compat_suite.REASONS, "torchcam", {"a::two": "meant"})
    assert compat_front.run(given) == 0
    assert "failed on fastcam only: a::two: meant: no" in capsys.readouterr().out
    assert len(compat_suite.read(tmp_path / "suites.csv", Counts)) == 2, "a new run takes the place of the old one"


def test_random_weights_are_lent_and_taken_back(monkeypatch, tmp_path):
    models = pytest.importorskip("torchvision.models")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # without any weights
    monkeypatch.setenv(compat_suite.RANDOM, "1")
    original = models.WeightsEnum.get_state_dict
    compat_plugin.pytest_configure()
    try:
        a, b = (models.squeezenet1_1(weights="DEFAULT").classifier[1].weight for _ in range(2))
        assert torch.equal(a, b)
        assert a.std() > 0
    finally:
        compat_plugin.lent.close()
    assert models.WeightsEnum.get_state_dict is original


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
    monkeypatch.setattr(compat, "entries", lambda: iter([Entry("torchcam", "CAM")]))
    monkeypatch.setattr(compat, "subject", lambda *_: wide)
    monkeypatch.setattr(compat, "NETWORKS", ("small",))
    assert compat.run(given(quick=True)) == []
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
    found = report_of(tmp_path)
    assert found.ratio() == (2.0, 0.5)
    compat_suite.keep(found, tmp_path / "suites.csv")
    text = report_compat.suites(compat_suite.read(tmp_path / "suites.csv", Counts))
    assert "| torchcam | fastcam | 1 | 1 | 0 | 500 ms | random |" in text
    assert "| torchcam | torchcam | 2 | 0 | 0 | 2 s | random |" in text
    assert report_compat.failures({"torchcam": {"a::two": "meant"}}).endswith("| torchcam | `a::two` | meant |")
    assert Path(tmp_path / "suites.csv").read_text().startswith("peer,checkout,who,")
