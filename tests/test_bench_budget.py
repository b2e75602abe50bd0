"""The benchmark of budgets: what it compares, that it goes on where it was stopped, and its tables."""

from __future__ import annotations

import json
import math
from argparse import Namespace

import pytest
import torch
from torch import Tensor, nn

from bench import budget, report, report_budget, rows
from fastcam import CAM
from fastcam.image import Preprocess
from fastcam.metrics import Evaluation

BUDGETS = ("2", "5", "all")

pytestmark = pytest.mark.usefixtures("one_thread")


def network() -> nn.Module:
    torch.manual_seed(0)
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net = nn.Sequential(nn.Conv2d(3, 12, 3, 2), nn.SiLU(), pool, nn.Linear(12, 5)).eval()
    net[3].weight.data *= 100  # masks then score far apart
    return net


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A small network in the place of the benchmark's, and what a call is given."""
    net = network()
    monkeypatch.setattr(budget, "network", lambda *_: (net, Preprocess(32, 32), True))
    monkeypatch.setattr(budget, "SCRATCH", tmp_path / "scratch")
    monkeypatch.setattr(budget, "BUDGETS", BUDGETS)
    given = {"quick": False, "only": "", "device": "cpu", "weights": None, "data": None, "limit": 2}
    return Namespace(**given, runtime="torch", save=None)


def corrcoef(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]).double())[0, 1])


def test_quality_is_that_of_the_maps():
    net, x = network(), torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    asked = budget.Quality(net, BUDGETS)
    for _ in range(2):  # the second picture is not compared with the first one's map
        found = asked.of(x)
        x, last = x.flip(3), x
    full = CAM(net, "scorecam")(last)
    for name, values in found.items():
        cam = CAM(net, "scorecam", budget=None if name == "all" else int(name))
        assert values["correlation"] == pytest.approx(corrcoef(cam(last), full), abs=1e-4)
        parts = Evaluation(cam, budget.PARTS).update(last)["scorecam"]
        assert [values[part] for part in budget.PARTS] == pytest.approx(
            [float(parts[p]) for p in budget.PARTS], abs=1e-4
        )
    assert found["all"]["correlation"] == pytest.approx(1)
    assert found["2"]["correlation"] < 0.9999
    for name in ("2", "5"):  # and the image's own, and the proof of what runs the masked ones
        assert found[name]["forwards"] - int(name) in {1, 2}
    assert found["all"]["forwards"] - 12 in {1, 2}


def values(correlation: float = 0.5, drop: float = 0.25, forwards: float = 4) -> dict[str, float]:
    parts = {"average_drop": drop, "coherency": 0.75, "complexity": 0.5}
    return {"correlation": correlation, "forwards": forwards} | parts


def test_averages_are_of_the_data_set():
    seen = [{"2": values(0.5, 0.25)}, {"2": values(1.0, 0.75, 6)}, {"2": values(math.nan, 0.5, 5)}]
    (found,) = budget.averages(seen).values()
    adcc = 100 * 3 / (1 / 0.5 + 1 / 0.75 + 1 / 0.5)
    assert found == pytest.approx({"agreement": 0.75, "least": 0.5, "forwards": 5, "adcc": adcc})


def test_scratch_forgets_what_was_cut_off_and_what_was_made_otherwise(tmp_path):
    scratch = budget.Scratch(tmp_path / "new" / "s.jsonl", "a")
    assert scratch.read() == {}
    scratch.add(3, {"2": values()})
    scratch.file.write_text(scratch.file.read_text() + scratch.file.read_text()[:40])
    budget.Scratch(scratch.file, "b").add(4, {"2": values(0.1)})
    scratch.add(5, {"2": values(math.nan)})
    found = scratch.read()
    assert list(found) == [3, 5]
    assert found[3] == {"2": values()}
    assert math.isnan(found[5]["2"]["correlation"])
    assert list(budget.Scratch(scratch.file, "b").read()) == [4]


def test_a_run_goes_on_where_it_was_stopped(small, monkeypatch, capsys):
    small.only, asked, of = "quality", [], budget.Quality.of

    def counted(self, images):
        asked.append(len(images))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return of(self, images)

    monkeypatch.setattr(budget.Quality, "of", counted)
    with pytest.raises(KeyboardInterrupt):
        budget.run(small)
    first = budget.run(small)
    again = budget.run(small)
    assert len(asked) == 3
    assert "1 known" in capsys.readouterr().out
    assert [(row.budget, row.agreement, row.adcc) for row in first] == [
        (row.budget, row.agreement, row.adcc) for row in again
    ]
    (file,) = budget.SCRATCH.iterdir()
    assert [json.loads(line)["picture"] for line in file.read_text().splitlines()] == [0, 1]
    assert {row.shape for row in first} == {"2x3x32x32"}
    assert [row.budget for row in budget.quality(small, ("3", "all"))] == ["3", "all"]
    assert len(asked) == 5, "other budgets are another run"


def test_rows_of_both_kinds_make_one_table(small, monkeypatch, tmp_path):
    monkeypatch.setattr(budget, "TIMED", ("torch",))
    monkeypatch.setitem(budget.SECONDS, False, 0.01)
    made = budget.run(small)
    assert [row.budget for row in made] == [*BUDGETS, *BUDGETS]
    assert all(row.commit and row.torch and row.processor for row in made if row.suite == "budget")
    rows.write_csv(tmp_path / "a.csv", made[:3])
    rows.write_csv(tmp_path / "b.csv", made[3:])
    groups = report.newest(tmp_path, "budget")
    assert len(groups) == 6
    lines = report_budget.markdown(groups).splitlines()
    assert lines[0] == "| budget | forwards | correlation | least | ADCC | torch |"
    assert [line.split(" | ")[0] for line in lines[2:5]] == ["| 2", "| 5", "| all"]
    assert all("ms" in line or "µs" in line for line in lines[2:5])
    assert "2 pictures of cuts of the bundled pictures, by torch" in lines
    assert f"time: mean of {len(budget.PICTURES)} bundled pictures" in lines


def row(of: str, kind: str, median: float, **more) -> rows.Row:
    what = f"scorecam, net, {kind}, budget {of}"
    return rows.Row(
        "budget", "", what, "fastcam", "3x3x8x8", "float32", "cpu", median, median, median, 3, budget=of, **more
    )


def test_table_orders_budgets_and_says_how_many_times_as_fast():
    one = {"agreement": 1.0, "least": 1.0, "adcc": 80.0, "forwards": 9.0}
    made = [row("all", "quality", math.nan, **one), row("all", "time, onnxruntime", 8.0, forwards=9.0)]
    made += [row(of, "time, onnxruntime", 2.0, forwards=3.0) for of in ("16", "8")]
    header, lines = report_budget.cells(made)
    assert header == ["budget", "forwards", "correlation", "least", "ADCC", "onnxruntime"]
    assert lines == [
        ["8", "3", "", "", "", "2 s (4.0 ×)"],
        ["16", "3", "", "", "", "2 s (4.0 ×)"],
        ["all", "9", "1.0000", "1.0000", "80.0", "8 s"],
    ]
    assert "4.0 ×" in report_budget.text(made)
    assert report_budget.text([]) == "nothing measured"
    assert report_budget.markdown([]).startswith("No committed rows")


def test_data_that_cannot_be_used(small, tmp_path):
    small.data = tmp_path / "nowhere"
    with pytest.raises(SystemExit, match="budget: "):
        budget.run(small)
