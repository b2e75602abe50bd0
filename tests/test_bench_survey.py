"""The survey's benchmark: what it measures of a method, what it keeps, and its tables."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

import pytest
import torch
from torch import nn

from bench import entries, report, report_survey, results_table, rows, survey_peers, survey_quality, survey_time
from bench.entries import Entry
from bench.models import Subject
from bench.pictures import Pictures
from bench.reproduce import Network
from fastcam import CAM, list_methods
from fastcam.image import Preprocess
from fastcam.metrics import Evaluation
from tests.datasets_on_disk import annotations

pytestmark = pytest.mark.usefixtures("one_thread")


def network() -> nn.Module:
    torch.manual_seed(0)
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(nn.Conv2d(3, 12, 3, 2), nn.ReLU(), pool, nn.Linear(12, 1000)).eval()


@pytest.fixture
def pictures(tmp_path):
    annotations(tmp_path)
    return Pictures.open(tmp_path)


def test_every_method_has_a_line():
    listed = list(entries.entries())
    assert {entry.method for entry in entries.entries(transformer=True)} >= entries.ATTENTION
    names = {entry.method for entry in listed if isinstance(entry.method, str)}
    assert names | entries.LEARNED | entries.ATTENTION >= set(list_methods())
    assert len({(entry.name, entry.what) for entry in listed}) == len(listed)


def test_the_costlier_a_method_the_fewer_pictures():
    counts = [survey_quality.pictures_for(forwards, 0, 300) for forwards in (1, 10, 100, 10_000)]
    assert counts == [300, 200, 20, survey_quality.LEAST]
    assert survey_quality.pictures_for(10, 10, 300) < counts[1]
    assert survey_quality.pictures_for(1, 0, 5) == 5


def test_quality_is_that_of_the_maps(pictures):
    asked = Network(network(), Preprocess(32, 32))
    found = survey_quality.evaluate(Entry("gradcam", "gradcam"), asked, pictures)
    (batch,) = pictures.batches(asked.preprocess, 16)
    chosen = {"classes": "target", "steps": survey_quality.STEPS}
    names = [*survey_quality.PARTS, *survey_quality.CURVES, *survey_quality.BOXES, "adcc"]
    part = Evaluation(CAM(asked.model, "gradcam"), names, options=chosen)
    part.update(batch.images, batch.labels, boxes=batch.boxes, ids=batch.ids)
    table = part.compute()["gradcam"]
    assert found["images"] == found["curve_images"] == len(batch.images) > 1
    for name, metric in {"insertion": "insertion", "energy": "energy_pointing_game", "boxes": "max_box_acc_v2"}.items():
        assert found[name] == pytest.approx(100 * table[metric], rel=1e-4)
    means = [table[name] for name in ("average_drop", "coherency", "complexity")]
    harmonic = 3 / (1 / (1 - means[0]) + 1 / means[1] + 1 / (1 - means[2]))
    assert found["adcc"] == pytest.approx(100 * harmonic, rel=1e-4)
    assert (found["forwards"], found["backwards"]) == (1, 0)


def given(**more) -> Namespace:
    usual = {"quick": True, "only": "", "device": "cpu", "weights": None, "limit": None, "models": "small"}
    return Namespace(**usual | {"runtime": "torch", "save": None, "curve_limit": None} | more)


def test_a_run_goes_on_where_it_was_stopped(monkeypatch, tmp_path, capsys):
    annotations(tmp_path / "data")
    two = [Entry("gradcam", "gradcam"), Entry("eigen", "eigencam", {"centered": True})]
    monkeypatch.setattr(survey_quality, "entries", lambda **_: iter(two))
    monkeypatch.setattr(survey_quality, "network", lambda *_: Network(network(), Preprocess(32, 32)))
    monkeypatch.setattr(survey_quality, "RESULTS", tmp_path)
    monkeypatch.setattr(survey_quality, "weights_of", lambda *_: "none")
    survey_quality.run(given(data=tmp_path / "data", only="gradcam"))
    assert "small, gradcam: ADCC" in capsys.readouterr().out
    survey_quality.run(given(data=tmp_path / "data"))
    said = capsys.readouterr().out
    assert "small, eigen" in said
    assert "gradcam" not in said
    kept = results_table.read(tmp_path / "survey-quality.csv", survey_quality.Result)
    assert [(row.method, row.options) for row in kept] == [("gradcam", ""), ("eigen", "centered=True")]
    monkeypatch.setattr(report_survey, "FILE", tmp_path / "survey-quality.csv")
    text = report_survey.markdown([])
    assert "| eigen (centered=True) | " in text
    best = max(kept, key=lambda row: row.adcc).method
    assert text.splitlines()[2].startswith(f"| {best}")
    assert list(tmp_path.glob("*.part")) == []


def test_data_that_cannot_be_used(tmp_path):
    with pytest.raises(SystemExit, match="survey: "):
        survey_quality.run(given(data=tmp_path))


@pytest.fixture
def subject():
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return Subject("small", network(), x, "1", "random")


def test_time_beside_floor_and_peer(monkeypatch, subject):
    listed = [Entry("gradcam", "gradcam"), Entry("iscam", "iscam", {"samples": 2})]
    monkeypatch.setattr(survey_time, "entries", lambda **_: iter(listed))
    monkeypatch.setattr(survey_time, "subject", lambda *_: subject)
    monkeypatch.setattr(survey_time, "SECONDS", {True: 0.01})
    found = survey_time.run(given(save=None))
    by = {(row.what, row.who): row for row in found}
    assert by["gradcam", "fastcam"].floor == "1 forwards"
    assert by["gradcam", "floor"].of_floor == pytest.approx(1)
    assert by["gradcam", "pytorch-grad-cam"].rounds >= 3
    assert by["iscam (samples=2)", "fastcam"].forwards >= 2 * 12
    assert by["iscam (samples=2)", "torchcam"].rounds == 0
    text = report_survey.times(report.works_of(found))
    assert "| gradcam | 1 forwards | " in text
    assert "\\* iscam (samples=2): extrapolated" in text


def test_the_rows_survive_the_file(tmp_path, monkeypatch, subject):
    monkeypatch.setattr(survey_time, "subject", lambda *_: subject)
    monkeypatch.setattr(survey_time, "entries", lambda **_: iter([Entry("cam", "cam")]))
    monkeypatch.setattr(survey_time, "SECONDS", {True: 0.01})
    rows.write_csv(tmp_path / "x.csv", survey_time.run(given(save=None)))
    (group,) = report.newest(tmp_path, "survey")
    assert [row.who for row in group] == ["floor", "fastcam", "torchcam"]


def test_a_peer_that_does_not_run_is_named(monkeypatch, subject, capsys):
    broken = replace(subject, layer="0", model=nn.Sequential(nn.Conv2d(3, 12, 3), nn.Flatten()))

    def fail(*_):
        raise RuntimeError("no\nsecond line")

    monkeypatch.setattr(broken.model, "forward", fail)
    monkeypatch.setattr(survey_peers, "peers", lambda *_: iter(()))
    monkeypatch.setattr(survey_peers, "CAPTUM", {"saliency": "Saliency"})
    assert survey_peers.nearest("saliency", broken, [0], {}) is None
    assert "saliency: captum does not run here: no" in capsys.readouterr().out
    assert survey_peers.nearest("unknown", subject, [0], {}) is None
