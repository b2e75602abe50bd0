"""Each function and class of `fastcam.metrics` against the plain loops, and against answers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from fastcam import metrics, ops
from tests import formulas_boxes, formulas_localization, formulas_metrics
from tests.cases_known import CASES_METRICS, Known

pytestmark = pytest.mark.usefixtures("one_thread")
AGREE = 1e-6  # of maps in float32; sums are float64

THRESHOLDS = torch.arange(10) / 10


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth(batch=4, size=(23, 31), seed=0):
    """Maps in [0, 1] from 7 x 7 cells, the last one constant."""
    maps = ops.resize_normalize(torch.randn(batch, 7, 7, generator=generator(seed)), size)
    maps[-1] = 0
    return maps


def boxes(batch=4, seed=1):
    """One or two boxes an image, some reaching over the edge; the second image has none."""
    corners = torch.rand(batch, 2, 2, 2, generator=generator(seed)) * torch.tensor([35, 26]) - 2
    found = torch.cat([corners.amin(2), corners.amax(2)], 2)
    found[0, 1] = torch.tensor([0.0, 0, -1, -1])
    found[1] = torch.tensor([0.0, 0, -1, -1])
    return found


def masks(batch=4):
    found = torch.zeros(batch, 23, 31, dtype=torch.bool)
    found[:, 5:15, 8:20] = True
    found[2] = False
    return found


def scores(seed=0, batch=6):
    return torch.rand(2, batch, generator=generator(seed), dtype=torch.float64)


def equal(got, want, tolerance=AGREE):
    torch.testing.assert_close(
        torch.as_tensor(got).double(), torch.as_tensor(want).double(), rtol=0, atol=tolerance, equal_nan=True
    )


@pytest.mark.parametrize("case", CASES_METRICS, ids=str)
def test_known_answer(case: Known):
    function = getattr(metrics, case.function, None) or getattr(ops, case.function)
    args, options = case.args, case.options
    if case.function == "pxap":
        args, options = (metrics.pixel_histograms(*args, **options).sum(0),), {}
    got, want = function(*args, **options), case.answer
    pairs = zip(got, want, strict=True) if isinstance(want, tuple) else [(got, want)]
    for one, other in pairs:
        equal(one, other)


@pytest.mark.parametrize(
    "name", ["average_drop", "increase_in_confidence", "average_gain", "average_drop_in_deletion", "win_rate"]
)
def test_scores_against_loops(name):
    before, after = scores()
    after = after[None] if name == "win_rate" else after
    equal(getattr(metrics, name)(before, after), getattr(formulas_metrics, name)(before, after), 1e-12)


@pytest.mark.parametrize("name", ["pearson", "spearman", "coherency", "ssim", "complexity", "sparseness"])
def test_maps_against_loops(name):
    args = (smooth(),) if name in ("complexity", "sparseness") else (smooth(), smooth(seed=3))
    equal(getattr(metrics, name)(*args), getattr(formulas_metrics, name)(*args))


def test_sensitivity_and_adcc_against_loops():
    noisy = torch.stack([smooth(seed=s) for s in (4, 5, 6)])
    equal(metrics.max_sensitivity(smooth(), noisy), formulas_metrics.max_sensitivity(smooth(), noisy))
    parts = torch.rand(3, 5, generator=generator(2), dtype=torch.float64)
    equal(metrics.adcc(*parts), formulas_metrics.adcc(*parts), 1e-12)
    curves = torch.rand(3, 8, generator=generator(2))
    equal(metrics.auc(curves), formulas_metrics.auc(curves), 1e-12)


@pytest.mark.parametrize("edges", ["exclusive", "inclusive"])
def test_energy_against_loops(edges):
    equal(
        metrics.energy_pointing_game(smooth(), boxes(), edges=edges),
        formulas_localization.energy_pointing_game(smooth(), boxes(), edges),
    )
    inside = (smooth().double() * masks()).sum((1, 2)) / smooth().double().sum((1, 2))
    equal(metrics.energy_pointing_game(smooth(), masks=masks()), inside.nan_to_num(0))


@pytest.mark.parametrize("tolerance", [0, 4, 15])
def test_points_against_loops(tolerance):
    maps = smooth(12, seed=9)
    equal(
        metrics.pointing_game(maps, boxes(12), tolerance=tolerance),
        formulas_localization.pointing_game(maps, boxes(12), tolerance),
    )
    equal(
        metrics.pointing_game(maps, masks=masks(12), tolerance=tolerance),
        formulas_localization.pointing_game(maps, None, tolerance, masks=masks(12)),
    )


@pytest.mark.parametrize("connectivity", [4, 8])
def test_overlaps_against_loops(connectivity):
    args = (smooth(), boxes(), THRESHOLDS, connectivity)
    equal(metrics.max_box_iou(*args), formulas_localization.max_box_iou(*args))
    equal(metrics.max_component_iou(*args), formulas_localization.max_component_iou(*args))
    a, b = boxes()[:, :1], boxes(seed=4)
    for plus_one in (False, True):
        equal(metrics.box_iou(a, b, plus_one), formulas_boxes.box_iou(a, b, plus_one))


def test_box_accuracy_against_loops():
    maps, given = smooth(), boxes()
    known = torch.tensor([0, 2, 3])  # the second image has no box
    for metric, iou, loops in (
        (metrics.MaxBoxAcc(10), formulas_localization.max_box_iou, formulas_localization.max_box_acc),
        (metrics.MaxBoxAccV2(10), formulas_localization.max_component_iou, formulas_localization.max_box_acc_v2),
    ):
        metric.update(maps, given)
        found = iou(maps[known], given[known], THRESHOLDS)
        equal(metric.compute(), loops(found))
        equal(metric.details[f"{metric.name}_iou_curve"], found.mean(0))
        assert metric.last.isnan().tolist() == [False, True, False, False]


def test_pixel_precision_against_loops():
    for maps in (smooth(), (smooth() * 4).round() / 4):
        metric = metrics.PxAP()
        metric.update(maps[:2], masks()[:2])
        metric.update(maps[2:], masks()[2:])
        equal(metric.compute(), formulas_localization.pxap(maps, masks()))


def test_localization_accuracy_against_loops():
    maps, given, label = smooth(), boxes(), torch.tensor([3, 0, 1, 2])
    logits = torch.randn(4, 9, generator=generator(5))
    logits[0, 3] = 9
    metric = metrics.LocalizationAccuracy(0.2)
    metric.update(maps, given, logits, label)
    known = torch.tensor([0, 2, 3])
    iou = formulas_localization.max_box_iou(maps[known], given[known], torch.tensor([0.2]))[:, 0]
    for k, got in ((1, metric.compute()), (5, metric.details["localization_accuracy_top5"])):
        equal(got, formulas_localization.localization_accuracy(iou, logits[known], label[known], k).mean())


def test_points_are_averaged_by_class():
    maps, classes = smooth(12, seed=9), torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2])
    metric = metrics.PointingGame(4, num_classes=5)
    metric.update(maps, boxes(12), classes=classes)
    hits, seen = metric.last, ~metric.last.isnan()
    means = [hits[seen & (classes == c)].mean().item() for c in range(3)]
    equal(metric.compute(), sum(means) / 3)
    equal(metric.details["pointing_game_images"], hits[seen].mean())
    with pytest.raises(ValueError, match="larger num_classes"):
        metric.update(maps, boxes(12), classes=classes + 3)


@pytest.mark.parametrize(
    ("metric", "function"),
    [
        (metrics.AverageDrop(), metrics.average_drop),
        (metrics.IncreaseInConfidence(), metrics.increase_in_confidence),
        (metrics.AverageGain(), metrics.average_gain),
        (metrics.AverageDropInDeletion(), metrics.average_drop_in_deletion),
        (metrics.WinRate(), metrics.win_rate),
    ],
    ids=lambda one: type(one).__name__ if not callable(one) or hasattr(one, "update") else "",
)
def test_means_over_batches_and_copies(metric, function):
    """A mean of two uneven batches is that of all images, and two metrics add up by their sums."""
    before, after = scores()
    metric.update(before[:4], after[:4])
    other = metric.clone()
    other.reset()
    other.update(before[4:], after[4:])
    metric.update(before[4:], after[4:])
    equal(metric.compute(), function(before, after).mean(), 1e-12)
    assert metric.total - other.total == pytest.approx(function(before[:4], after[:4]).sum().item())


def test_published_adcc_is_of_the_means():
    before, after = scores(batch=4)
    maps, masked = smooth(), smooth(seed=3)
    published, single = metrics.ADCC(), metrics.ADCC("images")
    for metric in (published, single):
        metric.update(before, after, maps, masked)
    parts = [
        formulas_metrics.average_drop(before, after),
        formulas_metrics.coherency(maps, masked),
        formulas_metrics.complexity(maps),
    ]
    equal(published.compute(), formulas_metrics.adcc_of_means(*parts))
    equal(single.compute(), formulas_metrics.adcc(*parts).mean())


def test_drops_of_other_libraries():
    before, after = torch.tensor([2.0, 1.0]), torch.tensor([0.5, 3.0])
    equal(metrics.average_drop(before, after, "absolute"), [1.5, 0])
    guarded = torch.tensor([1.5 / (2 + 1e-7), 0], dtype=torch.float64)
    equal(metrics.average_drop(before, after, "guarded"), guarded, 1e-15)


def test_boxes_that_do_not_fit_the_batch():
    with pytest.raises(ValueError, match="boxes of 1 images for a batch of 2"):
        metrics.pad_boxes([torch.zeros(1, 4)], 2)
    with pytest.raises(ValueError, match="neither boxes nor masks"):
        metrics.pointing_game(smooth())
