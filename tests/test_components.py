"""Connected components and energy in boxes: known answers, OpenCV, exact thresholds, what wrong arguments say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from fastcam import ops
from fastcam.ops import component_boxes, components, energy_in_boxes

HUNDRED = torch.arange(100) / 100
NAN = float("nan")


def generated(kind, h, w, seed):
    """A map (h, w) of one kind with maximum 1."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand((h, w), generator=generator)
    cells = torch.randn((1, 1, 5, 5), generator=generator).relu()
    cells[..., 2, 2] += 0.1
    smooth = interpolate(cells, (h, w), mode="bilinear")[0, 0]
    smooth /= smooth.max()
    m = {
        "smooth": lambda: smooth,
        "noise": lambda: noise,
        "noisy": lambda: smooth + noise / 10,
        "quantized": (smooth * 9).round,
        "quantized_noise": (noise * 5).round,
        "sparse": lambda: (noise > 0.6) * noise.round(decimals=1),
        "steep": lambda: smooth**3,
    }[kind]()
    return m / m.max()


KINDS = ("smooth", "noise", "noisy", "quantized", "quantized_noise", "sparse", "steep")
SIZES = ((1, 1), (1, 40), (33, 1), (3, 17), (23, 31), (64, 65))


def opencv(mask, connectivity):
    """Boxes and areas of all components by their first pixels in row-major order."""
    cv2 = pytest.importorskip("cv2")
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=connectivity)
    # Its labels are in the order of blocks, not of first pixels. The last assignment to an index stays.
    first = np.zeros(len(stats), np.int64)
    first[labels.ravel()[::-1]] = np.arange(labels.size)[::-1]
    x, y, width, height, area = stats[1 + np.argsort(first[1:])].T
    return np.stack([x, y, x + width - 1, y + height - 1], 1), area


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_opencv_at_100_thresholds(kind, connectivity):
    for seed, (h, w) in enumerate(2 * SIZES):
        m = generated(kind, h, w, seed)
        boxes, areas = component_boxes(m[None], HUNDRED, connectivity)
        every, sizes, owners = components(m[None], HUNDRED, connectivity)
        for t, threshold in enumerate(HUNDRED.numpy()):
            corners, counts = opencv(m.numpy() > threshold * m.numpy().max(), connectivity)
            mine = owners[:, 1] == t
            assert np.array_equal(every[mine], corners)
            assert np.array_equal(sizes[mine], counts)
            if len(counts):
                assert boxes[0, t].tolist() == corners[counts.argmax()].tolist()
                assert areas[0, t] == counts.max()
            else:
                assert (boxes[0, t].tolist(), areas[0, t]) == ([0, 0, -1, -1], 0)


def test_known_components():
    m = torch.tensor(
        [
            [9, 9, 0, 0, 5, 0],
            [0, 0, 5, 0, 5, 0],
            [0, 0, 0, 0, 0, 0],
            [7, 0, 1, 1, 1, 1],
        ]
    ).float()[None]
    for backend in ("reference", "cpu"):
        with ops.use(backend):
            boxes, areas = component_boxes(m, [0, 4, 6, 8, 9], relative=False)
            assert boxes[0].tolist() == [[2, 3, 5, 3], [0, 0, 2, 1], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, -1, -1]]
            assert areas[0].tolist() == [4, 3, 2, 2, 0]
            # Without diagonals both pairs have two pixels: the one that begins first counts.
            assert component_boxes(m, [4], 4, False)[0][0].tolist() == [[0, 0, 1, 0]]
            boxes, areas, owners = components(m, [6 / 9, 0.0], min_area=2)
            assert boxes.tolist() == [[0, 0, 1, 0], [0, 0, 2, 1], [4, 0, 4, 1], [2, 3, 5, 3]]
            assert areas.tolist() == [2, 3, 2, 4]
            assert owners.tolist() == [[0, 0], [0, 1], [0, 1], [0, 1]]


def test_ties_go_to_the_first_pixel_in_row_major_order():
    """The left column begins one row later than the right one, although OpenCV may number it first."""
    m = torch.tensor([[0.0, 0, 1], [1, 0, 1], [1, 0, 0]])[None]
    for backend in ("reference", "cpu"):
        with ops.use(backend):
            assert component_boxes(m, [0.5])[0].tolist() == [[[2, 0, 2, 1]]]


def test_a_path_of_one_pixel_joins_at_its_lowest_level():
    """Two peaks, joined at 0.4 by a path around the map."""
    m = torch.zeros(1, 5, 5)
    m[0, 0], m[0, -1], m[0, :, -1] = 0.4, 0.4, 0.4
    m[0, 0, 0], m[0, -1, 0] = 1.0, 0.9
    boxes, areas = component_boxes(m, [0.3, 0.4, 0.9])
    assert boxes[0].tolist() == [[0, 0, 4, 4], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert areas[0].tolist() == [13, 1, 1]


@pytest.mark.parametrize("count", [1, 254, 255, 256, 257, 1000, 65535])
def test_all_thresholds_at_once_equal_one_at_a_time(count):
    m = generated("noisy", 20, 21, 3)[None] - 0.2
    thresholds = torch.linspace(-0.5, 1.05, count)
    boxes, areas = component_boxes(m, thresholds, relative=False)
    assert areas[0, 0] == m.numel()  # the highest level there is, which one byte holds up to 255
    for t in range(0, count, max(1, count // 50)):
        box, area = component_boxes(m, thresholds[t : t + 1], relative=False)
        assert torch.equal(boxes[:, t], box[:, 0])
        assert torch.equal(areas[:, t], area[:, 0])


def test_products_are_rounded_as_numpy_rounds_float32():
    """Pixels on, just below and just above each threshold, for thresholds and maxima with long fractions."""
    for top in np.float32([0.7310585, 3.3333333, 1e-30, 12345.678]):
        limits = np.float32(HUNDRED.numpy()) * top
        m = np.stack([limits, np.nextafter(limits, np.float32(-1)), np.nextafter(limits, np.float32(1e9))])
        m = np.minimum(m, top)
        m[0, 0] = top
        for backend in ("reference", "cpu"):
            with ops.use(backend):
                areas = components(torch.from_numpy(m)[None], HUNDRED)
            found = np.bincount(areas[2][:, 1], weights=areas[1], minlength=100)
            assert found.tolist() == [(m > t * m.max()).sum() for t in HUNDRED.numpy()]


def test_uneven_thresholds_find_every_level():
    generator = torch.Generator().manual_seed(0)
    m = torch.randn((1, 30, 31), generator=generator).exp()
    for seed in range(20):
        generator.manual_seed(seed)
        clustered = torch.rand(30, generator=generator) * 1e-3 + 0.3
        thresholds = torch.cat([torch.randn(30, generator=generator).exp(), clustered, clustered[:5]])
        scale = 10.0 ** float(torch.randint(-37, 37, (), generator=generator))
        values = m * scale
        with ops.use("cpu"):
            areas = components(values, thresholds * scale, relative=False)
        found = np.bincount(areas[2][:, 1], weights=areas[1], minlength=65)
        assert found.tolist() == [(values > t).sum().item() for t in thresholds * scale]


@pytest.mark.parametrize("connectivity", [4, 8])
def test_turned_and_mirrored_maps_have_turned_and_mirrored_components(connectivity):
    m = generated("noise", 30, 37, 5)[None]

    def rows(maps, turn=lambda *box: box):
        found = (values.tolist() for values in components(maps, HUNDRED, connectivity))
        return sorted((t, area, *turn(*box)) for box, area, (_, t) in zip(*found, strict=True))

    assert len(rows(m)) > 1000
    assert rows(m.transpose(1, 2), lambda x0, y0, x1, y1: (y0, x0, y1, x1)) == rows(m)
    assert rows(m.flip(2), lambda x0, y0, x1, y1: (36 - x1, y0, 36 - x0, y1)) == rows(m)
    assert rows(m.flip(1), lambda x0, y0, x1, y1: (x0, 29 - y1, x1, 29 - y0)) == rows(m)


def test_maps_that_require_gradients_run_on_the_kernel():
    m = torch.rand(1, 5, 6, requires_grad=True)
    for op in (component_boxes, components):
        assert op.why_not("cpu", m, [0.5]) is None
        assert op.why_not("cpu", m.double(), [0.5]) == "float64 is computed by the reference"
    assert energy_in_boxes.why_not("cpu", m, torch.ones(1, 1, 4)) == "only the reference is differentiable"


def test_energy_of_known_boxes():
    m = torch.arange(12.0).view(1, 3, 4)
    box = torch.tensor([[[1.0, 0, 3, 2]]])
    for backend in ("reference", "cpu"):
        with ops.use(backend):
            assert [v.tolist() for v in energy_in_boxes(m, box)] == [[1 + 2 + 5 + 6], [66]]
            inclusive = energy_in_boxes(m, box, edges="inclusive")
            assert inclusive[0].tolist() == [1 + 2 + 3 + 5 + 6 + 7 + 9 + 10 + 11]
            # The sum of 2^24 and ones is not exact in float32.
            far = torch.ones(1, 50, 50)
            far[0, 7, 7] = 2.0**24
            inside, total = energy_in_boxes(far, torch.tensor([[[0.0, 0, 50, 50]]]))
            assert (inside.item(), total.item()) == (2**24 + 2499, 2**24 + 2499)


def test_energy_outside_the_boxes_does_not_count():
    m = torch.ones(1, 4, 4)
    m[0, 0, 0] = NAN
    for backend, (x0, expected) in itertools.product(("reference", "cpu"), ((1.0, 12.0), (0.0, NAN))):
        with ops.use(backend):
            inside, total = energy_in_boxes(m, torch.tensor([[[x0, 0, 4, 4]]]))
        assert inside.item() == pytest.approx(expected, nan_ok=True)
        assert total.isnan().all()


M = torch.rand(2, 4, 5)
BOXES = torch.ones(2, 3, 4)
WRONG = {
    "axes": (component_boxes, (M[0], [0.5]), ValueError, r"must have axes \(B H W\)"),
    "integers": (component_boxes, (M.int(), [0.5]), TypeError, r"got torch.int32; use .float\(\)"),
    "pixels": (
        component_boxes,
        (torch.empty(1, 2**16, 2**15, device="meta"), [0.5]),
        ValueError,
        r"have 2\*\*31 pixels or more; resize",
    ),
    "thresholds": (component_boxes, (M, "half"), TypeError, r"thresholds must be floating numbers \(T,\) or"),
    "no_thresholds": (component_boxes, (M, []), ValueError, r"thresholds \(T\) is empty"),
    "thresholds_axes": (component_boxes, (M, torch.ones(1, 1, 1)), ValueError, r"must have axes \(B T\)"),
    "thresholds_batch": (components, (M, torch.ones(3, 1)), ValueError, "thresholds' batch is 3, expected 2"),
    "too_many": (component_boxes, (M, torch.ones(65536)), ValueError, "at most 65535; pass them in parts"),
    "connectivity": (components, (M, [0.5], 6), ValueError, "connectivity=6 is unknown, choose 4 or 8"),
    "min_area": (components, (M, [0.5], 8, True, 0), ValueError, "min_area must be at least 1 pixel, got 0"),
    "boxes": (energy_in_boxes, (M, [[1.0]]), TypeError, r"boxes must be a tensor \(B N 4\)"),
    "boxes_type": (energy_in_boxes, (M, BOXES.int()), TypeError, r"got torch.int32; use .float\(\)"),
    "boxes_batch": (energy_in_boxes, (M, BOXES[:1]), ValueError, "boxes' batch is 1, expected 2"),
    "boxes_corners": (energy_in_boxes, (M, BOXES[..., :3]), ValueError, "boxes' last axis is 3, expected 4"),
    "edges": (energy_in_boxes, (M, BOXES, "half"), ValueError, "edges='half' is unknown"),
}


@pytest.mark.parametrize(("op", "arguments", "error", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_say_what_was_expected(op, arguments, error, message):
    for backend in ("reference", "cpu"):
        with ops.use(backend), pytest.raises(error, match=message):
            op(*arguments)
