"""The formulas on boxes, blur, patches, imputation and randomization against OpenCV, SciPy, scikit-image, Quantus."""

from __future__ import annotations

import pytest
import torch

from tests import formulas_boxes as boxes
from tests import formulas_localization as localization
from tests import formulas_perturb as perturb
from tests import small
from tests.formulas_metrics import values

for package in ("pytorch_grad_cam", "torchcam", "captum", "quantus", "cv2", "skimage"):
    pytest.importorskip(package)

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from scipy import ndimage, signal  # noqa: E402
from skimage import measure  # noqa: E402
from torch import nn  # noqa: E402
from torchvision import ops  # noqa: E402

from tests import peers_metrics as peers  # noqa: E402 - it imports the packages asked for above

pytestmark = pytest.mark.usefixtures("one_thread")

THRESHOLDS = torch.tensor([0.0, 0.2, 0.55, 0.7, 0.9])


def random_maps(count: int, seed: int) -> list[torch.Tensor]:
    """Noise, steps, so that values tie, and blobs, of 1 to 14 pixels a side."""
    rng = np.random.default_rng(seed)
    out = []
    for k in range(count):
        m = rng.random(rng.integers(1, 15, 2))
        m = np.round(m, 1) if k % 3 == 0 else ndimage.gaussian_filter(m, 1.0) if k % 3 == 1 else m
        out.append(torch.from_numpy(m.astype(np.float32))[None])
    return out


@pytest.mark.parametrize("connectivity", [4, 8])
def test_component_boxes_are_opencvs_and_scikit_images(connectivity: int) -> None:
    for m in random_maps(40, connectivity):
        got, areas = boxes.component_boxes(m, THRESHOLDS, connectivity)
        for t, box, area in zip(THRESHOLDS.numpy(), got[0].tolist(), areas[0].tolist(), strict=True):
            on = m[0].numpy() > t * m[0].numpy().max()
            count, labels, table, _ = cv2.connectedComponentsWithStats(on.astype(np.uint8), connectivity=connectivity)
            if count == 1:
                assert (box, area) == ([0, 0, -1, -1], 0)
                continue
            most = table[1:, cv2.CC_STAT_AREA].max()
            tied = [k for k in range(1, count) if table[k, cv2.CC_STAT_AREA] == most]
            first = min(tied, key=lambda k: np.flatnonzero(labels == k)[0])
            x, y, w, h = table[first, :4].tolist()
            assert (box, area) == ([x, y, x + w - 1, y + h - 1], most)
            regions = measure.regionprops(measure.label(on, connectivity=connectivity // 4))
            assert (y, x, y + h, x + w) in {one.bbox for one in regions if one.area == most}


def test_every_component_is_scipys() -> None:
    for m in random_maps(40, 1):
        on = m[0].numpy() > 0.6
        labels, count = ndimage.label(on, np.ones((3, 3)))
        ours = boxes.regions(on.tolist(), 8)
        assert len(ours) == count
        for one, (rows, columns) in zip(ours, ndimage.find_objects(labels), strict=True):
            assert one.box == (columns.start, rows.start, columns.stop - 1, rows.stop - 1)


@pytest.mark.parametrize("multiple", [False, True])
def test_wsol_boxes_are_those_of_opencvs_contours(multiple: bool) -> None:
    several = 0
    for m in random_maps(150, 2):
        grid = values(m)[0]
        for t in (0.0, 0.3, 0.61, 0.999):
            got, want = boxes.wsol_boxes(grid, t, multiple), peers.contour_boxes(grid, t, multiple)
            assert sorted(got) == sorted(want)
            several += len(want) > 1
    assert not multiple or several > 100


def test_outline_area_is_opencvs() -> None:
    for m in random_maps(60, 3):
        on = m[0].numpy() > 0.5
        for one in boxes.regions(on.tolist(), 8):
            alone = np.zeros(on.shape, np.uint8)
            alone[tuple(zip(*one.pixels, strict=True))] = 1
            contours = cv2.findContours(alone, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
            assert boxes.outline_area(one) == cv2.contourArea(contours[0])


def test_the_longest_line_is_no_large_polygon() -> None:
    """By pixels it is the line of 9; the WSOL evaluation takes the square of 4, whose outline has an area."""
    grid = torch.zeros(1, 6, 9)
    grid[0, 0, :], grid[0, 3:5, 2:4] = 1.0, 1.0
    assert boxes.component_boxes(grid, torch.tensor([0.5]))[0].tolist() == [[[0, 0, 8, 0]]]
    assert boxes.wsol_boxes(values(grid)[0], 0.5) == peers.contour_boxes(values(grid)[0], 0.5) == [[2, 3, 4, 5]]


def test_an_empty_map_overlaps_the_first_pixel_in_the_wsol_evaluation() -> None:
    grid, truth = [[0.0, 0.0], [0.0, 0.0]], [0, 0, 1, 1]
    assert peers.contour_boxes(grid, 0.5) == [[0, 0, 0, 0]]
    assert localization.wsol_iou([grid], [[truth]], [0.5]).item() == 0.25
    assert localization.max_box_iou(torch.tensor([grid]), torch.tensor([[truth]]), torch.tensor([0.5])).item() == 0


def test_box_iou_is_torchvisions() -> None:
    corners = torch.rand(12, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 9
    corners[:, 2:] += corners[:, :2]
    got = boxes.box_iou(corners[:, None], corners[None])
    torch.testing.assert_close(got, ops.box_iou(corners, corners), rtol=0, atol=1e-12)
    whole = corners.round()  # a pixel wider on two sides: the +1 convention
    wider = whole + torch.tensor([0, 0, 1, 1])
    got = boxes.box_iou(whole[:, None], whole[None], plus_one=True)
    torch.testing.assert_close(got, ops.box_iou(wider, wider), rtol=0, atol=1e-12)


def test_pointing_with_a_tolerance_is_a_distance_transform() -> None:
    objects = torch.zeros(1, 14, 18, dtype=torch.bool)
    objects[0, 4:7, 5:9] = True
    distance = ndimage.distance_transform_edt(~objects[0].numpy())
    hits = []
    for y in range(14):
        for x in range(18):
            m = torch.zeros(1, 14, 18)
            m[0, y, x] = 1.0
            got = [localization.pointing_game(m, masks=objects, tolerance=t).item() for t in (0, 3, 15)]
            assert got == [float(objects[0, y, x]), float(distance[y, x] < 3), float(distance[y, x] < 15)]
            hits.append(got[1])
    assert 0 < sum(hits) < len(hits)


def test_accuracies_over_thresholds() -> None:
    ious = torch.tensor([[0.2, 0.6], [0.75, 0.4], [0.5, 0.1], [torch.nan, torch.nan]])
    assert localization.accuracy_curve(ious) == [2 / 3, 1 / 3]
    assert localization.max_box_acc(ious) == 2 / 3
    assert localization.max_box_acc_v2(ious) == pytest.approx((2 / 3 + 2 / 3 + 1 / 3) / 3)
    logits, labels = torch.tensor([[3.0, 2, 1], [3, 2, 1], [3, 2, 1]]), torch.tensor([0, 1, 0])
    assert localization.localization_accuracy(torch.tensor([0.5, 0.9, 0.4]), logits, labels).tolist() == [1, 0, 0]
    assert localization.localization_accuracy(torch.tensor([0.5, 0.9, 0.4]), logits, labels, 2).tolist() == [1, 1, 0]
    hits, classes = torch.tensor([1.0, 0, 1]), torch.tensor([0, 0, 2])
    assert localization.pointing_accuracy(hits, classes) == 0.75
    assert localization.pointing_accuracy(hits, classes, 4) == 0.375


def test_any_component_may_match() -> None:
    m = torch.zeros(1, 5, 5)
    m[0, 0, 0:3], m[0, 3:5, 3:4] = 1.0, 1.0
    truth, t = torch.tensor([[[3.0, 3, 4, 5]]]), torch.tensor([0.5])
    assert localization.max_box_iou(m, truth, t).item() == 0
    assert localization.max_component_iou(m, truth, t).item() == 1
    assert localization.max_component_iou(m, truth, t, min_area=3).item() == 0


def test_blur_is_scipys_kernel_and_a_plain_convolution() -> None:
    impulse = np.zeros((11, 11))
    impulse[5, 5] = 1.0
    kernel = ndimage.gaussian_filter(impulse, 5)
    taps = np.array(perturb.blur_taps())
    np.testing.assert_allclose(np.outer(taps, taps), kernel, rtol=0, atol=1e-16)
    np.testing.assert_allclose(taps[:6], [0.08796, 0.0889, 0.09047, 0.09219, 0.09349, 0.09398], rtol=0, atol=6e-6)
    x = peers.pictures()[0]
    want = np.stack([signal.convolve2d(channel, kernel, mode="same") for channel in x.numpy()])
    np.testing.assert_allclose(perturb.blur(x).numpy(), want, rtol=0, atol=1e-12)


def test_order_and_counts() -> None:
    grid = [[0.5, -0.0, 0.5], [float("nan"), 0.0, 1.0]]
    assert perturb.falling(grid) == [5, 0, 2, 1, 4, 3]
    assert perturb.falling(grid, last_first=True) == [5, 2, 0, 4, 1, 3]
    assert perturb.rise_counts(10, 4) == [0, 4, 8, 10]
    assert perturb.rise_counts(1, 224) == [0, 1]


def test_deletion_and_insertion_pixel_by_pixel() -> None:
    """The score is the sum of the image, so that each pixel is seen as it goes."""
    image, grid = torch.tensor([[[1.0, 2.0, 4.0]]]), [[0.25, 1.0, 0.5]]
    total = lambda x: float(x.sum())  # noqa: E731
    assert perturb.deletion(total, image, grid, 1) == [7, 5, 1, 0]
    assert perturb.deletion(total, image, grid, 2) == [7, 1, 0]
    assert perturb.insertion(total, image, grid, 1, torch.zeros(1, 1, 3)) == [0, 2, 6, 7]
    assert perturb.insertion(total, image, grid, 2, torch.full((1, 1, 3), 8.0)) == [24, 14, 7]


def test_patches_of_reciprocam_reach_one_pixel_further() -> None:
    """4 x 4 pixels of 1, four patches: 3 x 3 pixels, cut at the lower and right border to 3 x 2, 2 x 3 and 2 x 2."""
    total = lambda x: float(x.sum())  # noqa: E731
    image = torch.arange(1.0, 17.0).reshape(1, 4, 4)
    deleted, inserted = perturb.reciprocam_curves(total, image, [[1.0, 0.5], [0.0, 0.75]])
    area = image[0]
    first, second, third = area[:3, :3].sum(), area[3, 2:].sum() + area[2, 3], area[:2, 3].sum()
    assert deleted == [136, *np.cumsum([-first, -second, -third, -area[3, :2].sum()]) + 136]
    mean = 8.5
    left = [16 - 9, 16 - 12, 16 - 14, 0]
    gained = np.cumsum([first, second, third, area[3, :2].sum()])
    assert inserted == [*(g + mean * n for g, n in zip(gained, left, strict=True)), 136]
    assert perturb.reciprocam_auc([1.0, 1.0, 1.0]) == pytest.approx(2 / 3)


def test_imputation_is_that_of_pytorch_grad_cam_and_quantus() -> None:
    x = peers.pictures()[0].float()
    for percent in (20, 60, 95):
        removed = perturb.removed_by_percentile(values(peers.maps()[0]), percent)
        kept = torch.tensor([[0.0 if gone else 1.0 for gone in row] for row in removed])
        want = peers.imputed_by_grad_cam(x, kept)
        got = perturb.impute(x, removed)
        torch.testing.assert_close(got, want.double(), rtol=0, atol=1e-6)
        torch.testing.assert_close(got, peers.imputed_by_quantus(x.double(), kept), rtol=0, atol=1e-12)


def test_an_imputed_pixel_is_the_mean_of_its_neighbors() -> None:
    x = torch.tensor([[[0.0, 6.0, 0.0], [12.0, 99.0, 0.0], [12.0, 0.0, 0.0]]])
    middle = [[False] * 3, [False, True, False], [False] * 3]
    assert perturb.impute(x, middle)[0, 1, 1].item() == pytest.approx(6 / 6 + 12 / 6 + 12 / 12)
    corner = [[True, False, False], [False] * 3, [False] * 3]
    weights = 1 / 6 + 1 / 6 + 1 / 12
    assert perturb.impute(x, corner)[0, 0, 0].item() == pytest.approx((6 / 6 + 12 / 6 + 99 / 12) / weights)
    with pytest.raises(ValueError, match="every pixel"):
        perturb.impute(x, [[True] * 3] * 3)


def test_noise_is_added_where_pixels_were_removed() -> None:
    image, seen = torch.ones(1, 2, 2), []
    perturb.road(lambda x: seen.append(x) or 0.0, image, [[True, False], [False, False]], torch.full((1, 2, 2), 0.5))
    assert seen[0].tolist() == [[[1.5, 1.0], [1.0, 1.0]]]


def test_percentile_is_numpys() -> None:
    numbers = values(peers.maps()[0])[0]
    for percent in (0, 10, 33, 50, 99, 100):
        assert perturb.percentile(numbers, percent) == pytest.approx(np.percentile(numbers, percent), abs=1e-15)


def test_cascade_is_quantus_top_down() -> None:
    model = nn.Sequential(*small.network(), nn.Linear(5, 4), nn.BatchNorm1d(4)).eval()
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    layers = [name for name, module in model.named_modules() if hasattr(module, "reset_parameters")]
    assert layers == ["0.0", "0.2", "3", "4", "5"]
    with torch.random.fork_rng():
        steps = [
            (name, {key: value.clone() for key, value in one.state_dict().items()})
            for name, one in peers.cascade(model)
        ]
    states = perturb.cascade(layers, trained, steps[-1][1])
    assert [name for name, _ in steps] == layers[::-1]
    for (_, theirs), ours in zip(steps, states, strict=True):
        assert theirs.keys() == ours.keys()
        assert all(torch.equal(theirs[key], ours[key]) for key in theirs)
    changed = [sum(not torch.equal(state[key], trained[key]) for key in trained) for state in states]
    assert changed == sorted(changed)
    assert changed[0] < changed[-1]


def test_rank_correlation_falls_from_one() -> None:
    m = values(peers.maps()[0])
    got = perturb.rank_correlations(m, [m, values(peers.maps(11)[0])]).tolist()
    assert got[0] == pytest.approx(1)
    assert abs(got[1]) < 0.5
