"""The pure parts of the benchmarks: rows, tables, verdicts, orders, and the loops that peers are timed by."""

import csv
import math
import sys
from argparse import Namespace
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bench import __main__, boxes, clock, curves, published, report, report_metrics, results_table, rows
from bench.published import BETTER, COLUMNS, METHODS
from bench.results_table import Job, Result
from fastcam import CAM
from fastcam.metrics import Evaluation


def test_published_adcc_is_the_harmonic_mean_of_its_columns():
    tables = published.published()
    assert len(tables) == 6
    for model, methods in tables.items():
        assert tuple(methods) == METHODS
        for method, row in methods.items():
            terms = row["coherency"], 100 - row["complexity"], 100 - row["drop"]
            assert 3 / sum(1 / term for term in terms) == pytest.approx(row["adcc"], abs=0.05), (model, method)


@pytest.mark.parametrize("cell", ["", "high", "101", "-1"])
def test_published_rows_are_percentages(tmp_path, cell):
    lines = published.TABLE.read_text().splitlines()
    parts = lines[1].split(",")
    file = tmp_path / "table.csv"
    file.write_text("\n".join([lines[0], ",".join([*parts[:2], cell, *parts[3:]])]))
    with pytest.raises(ValueError, match=r"table\.csv, line 2"):
        published.published(file)


@pytest.mark.parametrize(
    ("a", "b", "tau"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4], [1, 2, 4, 3], 4 / 6),
        ([1, 1, 2], [1, 2, 3], 2 / math.sqrt(2 * 3)),
        ([5, 5], [1, 2], math.nan),
        ([1], [1], math.nan),
    ],
)
def test_kendall(a, b, tau):
    assert published.kendall(a, b) == pytest.approx(tau, nan_ok=True)


def test_kendall_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(0)
    for _ in range(20):
        a, b = random.integers(0, 5, (2, 6)).tolist()
        if len(set(a)) > 1 and len(set(b)) > 1:
            assert published.kendall(a, b) == pytest.approx(stats.kendalltau(a, b).statistic)


def test_order_puts_the_better_first():
    low, high = dict.fromkeys(COLUMNS, 10.0), dict.fromkeys(COLUMNS, 20.0)
    for column, sign in BETTER.items():
        assert published.order({"low": low, "high": high}, column) == (["high", "low"] if sign > 0 else ["low", "high"])


def test_distance_leaves_out_what_was_not_measured():
    ours, theirs = dict.fromkeys(COLUMNS, 10.0), dict.fromkeys(COLUMNS, 12.0)
    assert published.distance(ours, theirs) == 2
    assert published.distance(ours | {"deletion": math.nan, "drop": 2.0}, theirs) == pytest.approx((5 * 2 + 10) / 6)
    assert math.isnan(published.distance(dict.fromkeys(COLUMNS, math.nan), theirs))


def test_beside_cancels_what_all_rows_share():
    table = published.published()["resnet18"]
    moved = {method: {column: value + 7 for column, value in row.items()} for method, row in table.items()}
    plain, shifted = (published.beside(t, t["reciprocam"], ["gradcam", "gradcampp"]) for t in (table, moved))
    assert shifted == pytest.approx(plain)


def test_averages_take_the_first_pictures():
    values = {metric: [0.5, 0.25, 1.0] for metric in results_table.PARTS.values()} | {"deletion": [0.5, 0.7]}
    two = results_table.averages(values, 2, 1)
    assert two["drop"] == two["complexity"] == two["coherency"] == pytest.approx(37.5)
    assert two["deletion"] == pytest.approx(50)
    assert two["adcc"] == pytest.approx(100 * 3 / (1 / 0.375 + 1 / 0.625 + 1 / 0.625))
    assert math.isnan(results_table.averages(values, 2, 0)["insertion"])


def result(method, scores, kernel="", protocol="paper", subset="all", images=300):
    own = ("resnet18", method, kernel, protocol, subset, images, images)
    return Result(*own, **scores, seconds=0.1, forwards=1.0, bare=0.1, weights="w", data="d", settings="steps=rows")


def test_results_survive_the_file(tmp_path):
    scores = published.published()["resnet18"]["gradcam"] | {"deletion": math.nan}
    file = tmp_path / "results" / "table.csv"
    assert results_table.read(file) == []
    results_table.write(file, [result("gradcam", scores)])
    (back,) = results_table.read(file)
    assert back.job == Job("resnet18", "gradcam")
    assert back.scores == pytest.approx(scores, nan_ok=True)
    assert (back.images, back.settings) == (300, "steps=rows")
    newer = result("gradcam", scores, images=8)
    other = result("scorecam", scores)
    assert results_table.replaced([back, other], [newer]) == [other, newer]
    assert list(tmp_path.rglob("*.part")) == []


def reproduced():
    table = published.published()["resnet18"]
    found = [result(m, table[m], subset=s) for m in METHODS[:4] for s in ("all", "common")]
    for kernel, protocol in (("point", "paper"), ("gaussian", "paper"), ("point", "recipro"), ("gaussian", "recipro")):
        off = 0.0 if (kernel, protocol) == ("gaussian", "recipro") else 0.01
        scores = {column: value + off for column, value in table["reciprocam"].items()}
        found += [result("reciprocam", scores, kernel, protocol, subset) for subset in ("all", "common")]
    return found


def test_reproduced_report_finds_the_published_order_and_form():
    from bench import report_reproduce

    found = reproduced()
    text = report_reproduce.markdown(found, ["resnet18"])
    assert "Order of 5 methods on 300 pictures" in text
    assert text.count("Order of") == 1, "the same methods on the same pictures are compared once"
    assert "by ADCC it holds (Kendall's τ 1.00)" in text
    assert text.count("| yes |") == 7
    assert "the gaussian kernel under protocol `recipro` (0.00 points)" in text
    distances = report_reproduce.distances(found, "resnet18")
    assert distances["point", "paper"] == pytest.approx((0.01, 0.01))
    swapped = [replace(row, adcc=99.0) if row.method == "gradcam" and row.protocol == "paper" else row for row in found]
    text = report_reproduce.markdown(swapped, ["resnet18"])
    assert "by ADCC it does not hold" in text
    assert text.count("| yes |") == 6


def test_reproduced_report_of_an_unpublished_network_and_of_few_rows():
    from bench import report_reproduce

    found = [replace(row, model="lite") for row in reproduced() if row.method != "scorecam"]
    text = report_reproduce.markdown(found, ["resnet18", "lite"])
    assert "by the mean of the published networks" in text
    assert "without Score-CAM" in text
    assert "No network here was published." in text
    assert "Order of" not in report_reproduce.markdown(found[:1], ["lite"])
    assert report_reproduce.markdown([], ["lite"]).startswith("Nothing")


def test_reproduction_is_planned_cheap_first_and_resumed():
    from bench import reproduce
    from bench.pictures import Pictures

    usual = {"curve_steps": None, "runtime": "torch"}
    given = Namespace(quick=False, limit=100, curve_limit=None, score_limit=None, **usual)
    plan = reproduce.Plan.of(given, 300)
    todo = reproduce.jobs(["resnet18", "resnet50"], plan)
    assert [job.method for job in todo[-2:]] == ["scorecam", "scorecam"]
    assert len(todo) == len(set(todo)) == 2 * 8
    assert plan.counts(todo[0]) == (100, 100)
    assert plan.counts(todo[-1]) == (reproduce.SCORE_LIMIT, reproduce.SCORE_LIMIT)
    few = reproduce.Plan.of(Namespace(quick=True, limit=None, curve_limit=0, score_limit=0, **usual), 3)
    assert few.counts(todo[0]) == (3, 0)
    assert not [job for job in reproduce.jobs(["resnet18"], few) if job.method == "scorecam"]
    pictures = Pictures("d", [], warp=True, fingerprint="f")
    settings = {
        reproduce.settings_of(one, pictures, todo[0])
        for one in (plan, few, replace(plan, steps=8), replace(plan, runtime="openvino"))
    }
    assert len(settings) == 4


def metric_rows(floor=(1.0, 1.0), ours=1.04, peer=4.0, rounds=3):
    def row(who, median, **more):
        more = {"rounds": 3} | more
        return rows.Row("metrics", "T7", "curves", who, "", "float32", "cpu", median, floor[0], floor[1], **more)

    first = row("fastcam", ours, of_floor=ours, limit=1.05, forwards=448.0)
    return [row("floor", 1.0), first, row("RISE", peer, versus=3.0, rounds=rounds, note="8 of 224 steps")]


@pytest.mark.parametrize(
    ("made", "verdicts"),
    [
        (metric_rows(), ["pass", "pass"]),
        (metric_rows(ours=1.06), ["MISS", "pass"]),
        (metric_rows(peer=2.0), ["pass", "MISS"]),
        (metric_rows(floor=(1.0, 1.2)), ["noisy", "pass"]),
    ],
)
def test_metric_verdicts(made, verdicts):
    assert [line[-1] for line in report_metrics.lines(made)] == verdicts


def test_metric_tables_say_what_is_extrapolated():
    text = report_metrics.text([metric_rows(rounds=0)])
    assert "4 s*" in text
    assert "* RISE, curves: 8 of 224 steps" in text
    assert "targets: 2 pass" in text
    readme = report_metrics.markdown([metric_rows(rounds=0, peer=2.0)])
    assert "≤ 1.05 × floor, ≥ 3 × RISE **missed**" in readme
    assert "1.92 × *" in readme
    assert report_metrics.markdown([]).startswith("No committed rows")


def test_forwards_have_a_verdict():
    (_, ours, _) = metric_rows()
    assert report.verdict(replace(ours, forwards=2.0, forwards_limit=2.2)) == "pass"
    assert report.verdict(replace(ours, forwards=2.3, forwards_limit=2.2)) == "MISS"


def test_older_rows_can_still_be_read(tmp_path):
    new = {"difference", "forwards", "forwards_limit"}
    kept = [field.name for field in fields(rows.Row) if field.name not in new]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, kept, extrasaction="ignore")
        writer.writeheader()
        writer.writerow(asdict(metric_rows()[1]))
    (tmp_path / "b.csv").write_text("model,method\n")
    assert rows.measured(tmp_path) == [tmp_path / "a.csv"]
    ((row,),) = report.newest(tmp_path, "metrics")
    assert (row.who, row.forwards, row.of_floor) == ("fastcam", None, 1.04)


def test_boxes_agree_up_to_ties():
    pytest.importorskip("scipy")
    one = np.zeros((1, 3, 5), np.float32)
    one[0, 0, 0] = one[0, 2, 4] = 1
    first, last = ((0, 0, 0, 0), 1), ((4, 2, 4, 2), 1)
    assert boxes.agreement(one, [0.5], [[first]], [[first]]) == 1
    assert boxes.agreement(one, [0.5], [[first]], [[last]]) == 1, "two components of one pixel"
    assert boxes.agreement(one, [0.5], [[first]], [[((0, 0, 4, 2), -1)]]) == 0, "a finder that counts no pixels"
    for wrong in (((4, 2, 4, 2), 2), ((1, 1, 1, 1), 1)):
        with pytest.raises(AssertionError, match=r"threshold 0\.50"):
            boxes.agreement(one, [0.5], [[first]], [[wrong]])


@pytest.mark.parametrize("who", list(boxes.FINDERS))
def test_finders_see_the_same_boxes(who):
    pytest.importorskip({"SciPy": "scipy", "cc3d": "cc3d"}.get(who, "cv2"))
    above = np.zeros((6, 7), np.uint8)
    assert boxes.FINDERS[who](above) == boxes.NOTHING
    above[0, 0] = above[1, 1] = above[3:6, 2:6] = 1
    box, pixels = boxes.FINDERS[who](above)
    assert box == (2, 3, 5, 5)
    assert pixels in {12, -1}


def test_rises_loop_gives_the_evaluations_curves():
    pytest.importorskip("scipy")
    torch.manual_seed(0)
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), pool, nn.Linear(8, 5)).eval()
    images = torch.randn(2, 3, 16, 16)
    cam = CAM(net, "gradcam")
    values = Evaluation(cam, ["deletion", "insertion"]).update(images)["gradcam"]
    explained, loop = cam.explain(images), curves.Loop(net)
    for kind in ("deletion", "insertion"):
        curve = loop.run(images, explained.maps, explained.target, kind)
        assert curve.shape == (2, 17)
        torch.testing.assert_close(curve, values[f"{kind}_curve"], rtol=0, atol=1e-6)
        torch.testing.assert_close(loop.run(images, explained.maps, explained.target, kind, 5), curve[:, :5])


def test_extrapolation_counts_what_is_done_once_once(monkeypatch):
    monkeypatch.setattr(clock, "seconds", lambda call: call())
    assert clock.extrapolate(lambda steps: 7.0 + 2.0 * steps, 4, 100) == pytest.approx(7 + 2 * 100)


@pytest.mark.parametrize("words", [["metrics", "peers"], ["reproduce"], ["report", "ops"]])
def test_arguments_that_do_not_go_together(monkeypatch, capsys, words):
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    with pytest.raises(SystemExit):
        __main__.arguments()
    assert "error:" in capsys.readouterr().err


def test_report_reads_the_committed_rows():
    if not list(Path(rows.RESULTS).glob("*.csv")):
        pytest.skip("no committed rows here")
    assert "× floor" in report.markdown(report.newest())
