"""Boxes and masks in the model's pixels, outlines to pixels, and loading ahead."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
import torch

from fastcam import image
from fastcam.datasets import Object, Problem, Sample, fit_boxes, fit_mask, open_dataset, prefetch
from fastcam.datasets.masks import Runs, fill_polygon, resize_mask
from fastcam.datasets.source import File
from fastcam.image import Preprocess
from tests.datasets_on_disk import annotations, imagefolder, write

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
SETTINGS = [
    Preprocess(64, 56, **PLAIN),
    Preprocess(57, (33, 50), "bicubic", **PLAIN),
    Preprocess(48, None, "nearest", **PLAIN),
    Preprocess((40, 90), None, **PLAIN),
    Preprocess((61, 45), (40, 31), "lanczos", **PLAIN),
    Preprocess(None, 20, **PLAIN),
    Preprocess(200, 180, **PLAIN),
]


def whole(points, size):
    """A sample that is nothing but one outline."""
    return Sample("a", File("a"), objects=(Object(outline=points),), size=size)


# Boxes


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_painted_rectangle_lies_where_its_box_says(settings):
    rng = random.Random(str(settings))
    seen = 0
    for _ in range(60):
        height, width = rng.randrange(30, 160), rng.randrange(30, 160)
        x0, y0 = rng.randrange(width - 8), rng.randrange(height - 8)
        box = (x0, y0, rng.randrange(x0 + 8, width + 1), rng.randrange(y0 + 8, height + 1))
        picture = torch.zeros(height, width, 3, dtype=torch.uint8)
        picture[box[1] : box[3], box[0] : box[2]] = 255
        tensor = image.preprocess(picture, settings)[0]
        rows, columns = torch.nonzero(tensor[0] > 0.5, as_tuple=True)
        fitted = fit_boxes([box], (height, width), settings)
        if len(rows) == 0:
            assert len(fitted) == 0 or (fitted[0, 2:] - fitted[0, :2]).min() <= 1
            continue
        found = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert (fitted[0] - found).abs().max() <= 1, (box, (height, width))
        seen += 1
    assert seen >= 20


def test_known_boxes():
    boxes = [(0, 0, 200, 100), (50, 0, 51, 100), (10.5, 20, 30.5, 40), (0, 0, 40, 100), (-50, -50, 500, 60)]
    # 100 x 200 to 50 x 100, of which columns 25 to 75 stay.
    expected = [[0, 0, 50, 50], [0, 0, 0.5, 50], [0, 0, 50, 30]]
    assert fit_boxes(boxes, (100, 200), Preprocess(50, 50)).tolist() == expected
    assert fit_boxes(boxes[:1], (100, 200), (10, 20)).tolist() == [[0, 0, 20, 10]]
    assert fit_boxes(torch.tensor([[0.0, 0, 1, 1]]), (1, 1), (8, 8)).tolist() == [[0, 0, 8, 8]]
    empty = fit_boxes([], (100, 200), Preprocess(50, 50))
    assert (empty.shape, empty.dtype) == ((0, 4), torch.float32)
    with pytest.raises(ValueError, match="smaller than the crop"):
        fit_boxes(boxes, (10, 10), Preprocess(None, 50))


def test_boxes_that_hold_nothing_are_left_out():
    boxes = [(5, 5, 5, 9), (5, 9, 9, 5), (float("nan"), 0, 9, 9), (1, 1, 2, 2)]
    assert fit_boxes(boxes, (10, 10), (10, 10)).tolist() == [[1, 1, 2, 2]]


# Masks


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_rectangle_as_outline_and_as_box(settings):
    rng = random.Random(str(settings))
    for _ in range(20):
        size = (rng.randrange(20, 160), rng.randrange(20, 160))
        x0, y0 = rng.uniform(0, size[1] - 4), rng.uniform(0, size[0] - 4)
        x1, y1 = rng.uniform(x0 + 3, size[1]), rng.uniform(y0 + 3, size[0])
        mask = fit_mask(whole(((x0, y0, x1, y0, x1, y1, x0, y1),), size), size, settings)
        rows, columns = (torch.arange(side) + 0.5 for side in mask.shape)
        inside = torch.zeros_like(mask)
        for a, b, c, d in fit_boxes([(x0, y0, x1, y1)], size, settings):
            inside |= ((b <= rows) & (rows < d))[:, None] & ((a <= columns) & (columns < c))
        assert torch.equal(mask, inside)
        assert mask.is_contiguous()


def inside(points, x, y):
    """Whether a ray to the right crosses the outline an odd number of times."""
    odd = False
    corners = list(zip(points[0::2], points[1::2], strict=True))
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if (y0 <= y) != (y1 <= y) and x0 + (x1 - x0) * (y - y0) / (y1 - y0) <= x:
            odd = not odd
    return odd


def test_polygons_against_points_one_by_one():
    rng = np.random.default_rng(1)
    for _ in range(60):
        height, width, corners = (int(n) for n in rng.integers(3, 15, 3))
        points = tuple((rng.random(2 * corners) * 24 - 6).tolist())
        expected = [[inside(points, x + 0.5, y + 0.5) for x in range(width)] for y in range(height)]
        assert np.array_equal(fill_polygon(points, height, width), expected)


def test_polygons_on_pixel_edges():
    square = fill_polygon((1, 2, 4, 2, 4, 5, 1, 5), 6, 6)
    expected = np.zeros((6, 6), bool)
    expected[2:5, 1:4] = True
    assert np.array_equal(square, expected)
    assert not fill_polygon((1, 1, 4, 1, 2, 1), 6, 6).any()
    assert not fill_polygon((10, 10, 14, 10, 12, 14), 6, 6).any()
    assert fill_polygon((-9, -9, 99, -9, 99, 99, -9, 99), 6, 6).all()


def test_runs():
    eye = np.eye(3, 4, dtype=bool)
    # As pycocotools.mask.encode writes these masks.
    assert np.array_equal(Runs("0130000", (3, 4)).decode(), eye)
    assert np.array_equal(Runs((0, 1, 3, 1, 3, 1, 3), (3, 4)).decode(), eye)
    assert not Runs("6", (2, 3)).decode().any()
    block = np.zeros((170, 117), bool)
    block[30:70, 60:110] = True
    assert np.array_equal(Runs("fo9X1R4" + "0" * 97 + "XT1", (170, 117)).decode(), block)
    for runs, reason in (
        (Runs("6", (2, 4)), "cover 6 pixels of 2 x 4"),
        (Runs((9, -1), (2, 4)), "cover 8 pixels of 2 x 4"),
        (Runs("f", (2, 4)), "end within a number"),
        (Runs("é", (2, 4)), "expected characters"),
    ):
        with pytest.raises(ValueError, match=reason):
            runs.decode()


def test_masks_of_a_sample():
    square, other = (1, 1, 5, 1, 5, 5, 1, 5), (4, 4, 8, 4, 8, 8, 4, 8)
    runs = Runs((0, 20, 80), (10, 10))
    objects = (Object(outline=(square, other)), Object(outline=runs, crowd=True), Object(box=(0, 0, 1, 1)))
    sample = Sample("a", File("a"), objects=objects, size=(10, 10))
    mask = sample.mask(10, 10)
    expected = torch.zeros(10, 10, dtype=torch.bool)
    expected[1:5, 1:5] = expected[4:8, 4:8] = True
    assert torch.equal(mask, expected)
    assert sample.polygons == (square, other)
    crowd = torch.zeros(10, 10, dtype=torch.bool)
    crowd[:, :2] = True
    assert torch.equal(sample.ignored(10, 10), crowd & ~expected)
    assert torch.equal(fit_mask(sample, (10, 10), Preprocess(None, 4), ignored=True), (crowd & ~expected)[3:7, 3:7])
    assert Sample("a", File("a")).mask(10, 10) is None
    assert fit_mask(Sample("a", File("a")), (10, 10), (5, 5)) is None
    with pytest.raises(ValueError, match=r"a mask of \(10, 10\) for a picture of \(9, 10\)"):
        Sample("a", File("a"), objects=(Object(outline=runs),), size=(9, 10)).mask(10, 10)


def test_the_size_comes_from_the_picture_when_annotations_lack_it(tmp_path):
    path = imagefolder(tmp_path) / "n01440764" / "p0.png"
    objects = (Object(outline=((0, 0, 15, 0, 15, 20, 0, 20),)),)
    mask = Sample("a", File(str(path)), objects=objects).mask(4, 6)
    assert mask.tolist() == [[True] * 3 + [False] * 3] * 4


def test_nearest_pixels():
    mask = np.array([[True, False, False], [False, True, True]])
    assert resize_mask(mask, 4, 6).tolist() == mask.repeat(2, 0).repeat(2, 1).tolist()
    assert resize_mask(mask, 1, 1).tolist() == [[True]]  # of the center (1.0, 1.5): row 1, column 1
    assert resize_mask(mask, 2, 3).tolist() == mask.tolist()


# Loading ahead

SMALL = Preprocess((16, 24), None)


class Watched:
    """A source that says when it is read, and may wait."""

    def __init__(self, name, started=None, gate=None):
        self.name, self.started, self.gate = name, started, gate

    def read(self):
        if self.started:
            self.started.set()
        assert self.gate is None or self.gate.wait(20)
        return torch.full((20, 30, 3), int(self.name), dtype=torch.uint8)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_inputs_come_in_order_and_equal_preprocess(workers, tmp_path):
    data = open_dataset(annotations(tmp_path))
    loaded = list(prefetch(data.samples, SMALL, workers, ahead=2))
    assert [sample for sample, _ in loaded] == data.samples
    for sample, tensor in loaded:
        assert torch.equal(tensor, image.preprocess(sample.read(), SMALL)[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_pictures_come_as_problems_in_their_place(workers, tmp_path):
    data = open_dataset(imagefolder(tmp_path))
    write(tmp_path / data.samples[1].key, data.samples[1].source.path.encode())
    (tmp_path / data.samples[3].key).unlink()
    loaded = list(prefetch(data, SMALL, workers))
    assert [sample.key for sample, _ in loaded] == [sample.key for sample in data]
    assert [isinstance(tensor, Problem) for _, tensor in loaded] == [False, True, False, True, False]
    assert loaded[1][1].file == data.samples[1].source.path
    assert "not a picture Pillow knows" in loaded[1][1].reason
    assert "no such file" in loaded[3][1].reason
    too_small = list(prefetch(data.samples[:1], Preprocess(None, 99), workers))
    assert "smaller than the crop" in too_small[0][1].reason


@pytest.mark.parametrize("workers", [0, 1])
def test_the_size_of_the_picture_is_filled_in(workers, tmp_path):
    data = open_dataset(imagefolder(tmp_path))
    assert data.samples[0].size is None
    assert next(iter(prefetch(data, SMALL, workers)))[0].size == (20, 30)


def test_no_more_than_ahead_is_asked_for():
    asked = []

    def samples():
        for number in range(40):
            asked.append(number)
            yield Sample(str(number), Watched(str(number)))

    for number, (sample, tensor) in enumerate(prefetch(samples(), SMALL, 2, ahead=4)):
        assert sample.key == str(number)
        assert tensor.shape == (3, 16, 24)
        assert len(asked) == min(number + 1 + 4, 40)


def test_the_next_one_loads_while_this_one_is_used():
    started, gate = threading.Event(), threading.Event()
    samples = [Sample("0", Watched("0")), Sample("1", Watched("1", started, gate))]
    loaded = prefetch(samples, SMALL, 1)
    assert next(loaded)[0].key == "0"
    assert started.wait(20)
    gate.set()
    assert next(loaded)[0].key == "1"


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("fastcam-load")]


def test_leaving_early_leaves_no_thread_and_other_faults_come_through():
    read, gate = [threading.Event() for _ in range(9)], threading.Event()
    samples = [Sample(str(n), Watched(str(n), read[n], gate if n else None)) for n in range(9)]
    loaded = prefetch(samples, SMALL, 2)
    next(loaded)
    assert threads()
    threading.Timer(0.1, gate.set).start()
    loaded.close()
    assert not threads()
    assert sum(event.is_set() for event in read) <= 3  # what two threads had begun, and none of those that waited
    with pytest.raises(AttributeError):
        list(prefetch([Sample("0", None)], SMALL, 1))
    assert not threads()


@pytest.mark.parametrize(("workers", "ahead"), [(-1, 4), (1, 0)])
def test_impossible_numbers(workers, ahead):
    with pytest.raises(ValueError, match="expected 0 or more workers and at least 1 ahead"):
        prefetch([], SMALL, workers, ahead)
