"""What WSOL evaluations count: corners of boxes, pixels that are ignored, every component in little memory."""

from __future__ import annotations

import math
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fastcam import metrics
from fastcam.datasets import Object, Sample, fit_boxes, fit_corners, open_dataset
from fastcam.datasets.source import File
from fastcam.distributed import Job, Plan
from fastcam.distributed.work import Worker
from fastcam.image import Preprocess
from fastcam.metrics import Evaluation
from tests import formulas_localization as formulas
from tests.datasets_on_disk import SIZE, wsol

pytestmark = pytest.mark.usefixtures("one_thread")

WSOL = {"protocol": "wsol", "options": {"upsample": "bilinear", "thresholds": 10}}
BOXES = ["box_iou", "max_box_acc", "max_box_acc_v2", "localization_accuracy"]


def logits(images):
    """A class a channel."""
    return images.mean((2, 3))


def evaluate(maps, names, *, images=None, **data):
    images = torch.rand(len(maps), 3, *maps.shape[-2:]) if images is None else images
    evaluation = Evaluation({"m": lambda images, target: maps}, names, score=logits, **WSOL)
    target = torch.zeros(len(maps), dtype=torch.long)
    return evaluation.update(images, target=target, **data)["m"], evaluation.compute()["m"]


# Corners


def test_known_corners():
    boxes = [(0, 0, 500, 375), (250, 0, 251, 1), (10.2, 3, 10.4, 9)]
    assert fit_corners(boxes, (375, 500), (224, 224)).tolist() == [[0, 0, 223, 223], [112, 0, 112, 0], [4, 1, 4, 4]]
    cropped = fit_corners([(0, 0, 200, 100), (0, 0, 40, 100), (60, 10, 80, 500)], (100, 200), Preprocess(50, 50))
    assert cropped.tolist() == [[0, 0, 49, 49], [5, 5, 14, 49]]
    assert fit_corners([], (375, 500), (224, 224)).shape == (0, 4)


def test_corners_are_scaled_as_published():
    rng = random.Random(0)
    for _ in range(3000):
        width, height, side = rng.randrange(20, 900), rng.randrange(20, 900), rng.choice((32, 224, 299))
        x, y = (sorted(rng.choices(range(n), k=2)) for n in (width, height))
        got = fit_corners([(x[0], y[0], x[1] + 1, y[1] + 1)], (height, width), (side, side))
        assert got.tolist() == [formulas.wsol_corners((x[0], y[0], x[1], y[1]), (width, height), (side, side))]


def test_a_perfect_map_of_the_whole_picture_overlaps_wholly():
    maps, place = torch.ones(1, 224, 224), ((375, 500), (224, 224))
    boxes, corners = ([fit([(0, 0, 500, 375)], *place)] for fit in (fit_boxes, fit_corners))
    values, found = evaluate(maps, [*BOXES, "energy_pointing_game"], boxes=boxes, corners=corners)
    assert [float(values[name]) for name in BOXES[:3]] == [1, 1, 1]
    assert [found[name] for name in BOXES[1:]] == [1, 1, found["localization_accuracy"]]
    assert float(values["energy_pointing_game"]) == 1  # of the box, not of its corners


def rectangles(count=6, size=(40, 48), wanted=(24, 32)):
    """Maps of one block each, which any rule takes for the component; stored boxes around another block."""
    rng, maps, stored = random.Random(2), torch.zeros(count, *wanted), []
    for one in maps:
        y, x = (sorted(rng.sample(range(n), 2)) for n in wanted)
        one[y[0] : y[1] + 2, x[0] : x[1] + 2] = 1
        y, x = (sorted(rng.sample(range(n), 2)) for n in size)
        stored.append([x[0], y[0], x[1], y[1]])
    return maps, stored, (size, wanted)


def test_overlaps_are_those_of_the_published_arithmetic():
    maps, stored, place = rectangles()
    outside = [[(a, b, c + 1, d + 1)] for a, b, c, d in stored]
    boxes, corners = ([fit(one, *place) for one in outside] for fit in (fit_boxes, fit_corners))
    truth = [[formulas.wsol_corners(box, place[0][::-1], place[1][::-1])] for box in stored]
    expected = formulas.wsol_iou(maps.tolist(), truth, [0.2])[:, 0]
    values, _ = evaluate(maps, BOXES, boxes=boxes, corners=corners)
    for name in BOXES[:3]:
        torch.testing.assert_close(values[name], expected, rtol=0, atol=1e-12)
    assert 0 < float(expected.max()) < 1


def test_pictures_that_need_no_resizing_give_their_own_corners():
    maps, _, _ = rectangles()
    boxes = torch.tensor([[3.0, 2, 20, 19]]).repeat(len(maps), 1)
    truth = [[[3, 2, 19, 18]]] * len(maps)
    values, _ = evaluate(maps, ["box_iou"], boxes=boxes)
    expected = formulas.wsol_iou(maps.tolist(), truth, [0.2])[:, 0]
    torch.testing.assert_close(values["box_iou"], expected, rtol=0, atol=1e-12)
    paper = Evaluation({"m": lambda images, target: maps}, ["box_iou"], score=logits)
    values = paper.update(torch.rand(len(maps), 3, 24, 32), boxes=boxes)["m"]["box_iou"]
    torch.testing.assert_close(values, formulas.max_box_iou(maps, boxes[:, None], torch.tensor([0.2]))[:, 0])


# Pixels


def noise(batch=3, size=(9, 11)):
    generator = torch.Generator().manual_seed(4)
    maps, others = torch.rand(2, batch, *size, generator=generator)
    maps[0, 0, :3] = 1
    return maps, others > 0.6, torch.rand(batch, *size, generator=generator) > 0.7


def test_ignored_pixels_count_nowhere():
    maps, masks, ignored = noise()
    values, found = evaluate(maps, ["pxap"], masks=masks, ignored=ignored)
    assert found["pxap"] == pytest.approx(formulas.pxap(maps, masks, ignored), abs=1e-12)
    assert found["pxap"] != pytest.approx(formulas.pxap(maps, masks), abs=1e-3)
    for b, value in enumerate(values["pxap"].tolist()):
        assert value == pytest.approx(formulas.pxap(*(one[b : b + 1] for one in (maps, masks, ignored))), abs=1e-12)


def test_maps_are_not_cut_to_8_bits_for_pixels():
    maps = torch.tensor([[[100.1, 100.9], [3.0, 200.0]]]) / 255
    masks = torch.tensor([[[False, True], [False, False]]])
    _, found = evaluate(maps, ["pxap"], masks=masks)
    assert found["pxap"] == formulas.pxap(maps, masks) == 0.5  # one third were the first two pixels equal


def test_a_map_with_a_nan_has_no_value():
    maps, masks, _ = noise()
    maps[1, 2, 3] = math.nan
    metric = metrics.PxAP()
    metric.update(maps, masks)
    assert metric.last.isnan().tolist() == [False, True, False]
    assert float(metric.compute()) == pytest.approx(formulas.pxap(maps, masks), abs=1e-12)
    assert float(metric.count[0]) == 2
    alone = metrics.PxAP()
    alone.update(maps[1:2], masks[1:2])
    assert math.isnan(float(alone.compute()))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"masks": torch.ones(1, 4, 4), "ignored": torch.ones(1, 4, 5)}, r"ignored has shape \(1, 4, 5\), expected"),
        ({"ignored": torch.ones(1, 4, 4)}, "ignored without masks; give both"),
        ({"corners": [torch.zeros(0, 4)]}, "corners without boxes; give both"),
    ],
)
def test_what_does_not_fit_is_named(data, message):
    with pytest.raises(ValueError, match=message):
        evaluate(torch.rand(1, 4, 4), ["pxap"], **data)


# From files to values


def work(dataset, maps, names, boxes=False):
    """The values of a data set's pictures whose maps are all this one."""
    evaluation = Evaluation({"m": lambda images, target: maps.expand(len(images), -1, -1)}, names, score=logits, **WSOL)
    plain = Preprocess(maps.shape, None, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    job = Job(dataset, {}, evaluation, plain, torch.device("cpu"), 4, None, boxes, {}, loaders=0)
    (result,) = Worker(job).results(Plan(range(len(dataset)), 8), [0])
    evaluation.merge(result.states)
    columns = {name: result.columns[name] for name in ("method", "key", *names)}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return {row["key"]: row for row in rows if row["method"] == "m"}


def test_ignore_masks_of_files_reach_the_metric(tmp_path):
    metadata = wsol(tmp_path)
    folder = tmp_path / "dataset/PAINTED/test"
    parts = np.zeros((2, *SIZE), np.uint8)
    parts[0, 2:8, 3:9], parts[1, 0:12, 0:12] = 255, 255
    for name, part in zip(("mask", "ignore"), parts, strict=True):
        Image.fromarray(part).save(folder / f"{name}.png")
    lines = "test/p0.png,test/mask.png,test/ignore.png\ntest/p1.png,test/mask.png,\n"
    (metadata / "localization.txt").write_text(lines)
    maps = torch.rand(*SIZE, generator=torch.Generator().manual_seed(1))
    found = work(open_dataset(metadata), maps, ["pxap"])
    mask, ignored = (torch.from_numpy(part > 0)[None] for part in parts)
    with_it, without = formulas.pxap(maps[None], mask, ignored & ~mask), formulas.pxap(maps[None], mask)
    assert found["test/p0.png"]["pxap"] == pytest.approx(with_it, abs=1e-12)
    assert found["test/p1.png"]["pxap"] == pytest.approx(without, abs=1e-12)
    assert with_it > without + 0.01
    assert math.isnan(found["test/p2.png"]["pxap"])


def test_crowds_are_ignored(tmp_path):
    Image.fromarray(np.zeros((10, 10, 3), np.uint8)).save(tmp_path / "a.png")
    square, crowd = (1.0, 1.0, 5.0, 1.0, 5.0, 5.0, 1.0, 5.0), (4.0, 4.0, 9.0, 4.0, 9.0, 9.0, 4.0, 9.0)
    objects = (Object(outline=(square,)), Object(outline=(crowd,), crowd=True))
    dataset = open_dataset_of(Sample("a", File(str(tmp_path / "a.png")), 0, (0,), objects, size=(10, 10)))
    maps = torch.zeros(10, 10)
    maps[1:5, 1:5], maps[5:9, 5:9] = 0.5, 1
    assert work(dataset, maps, ["pxap"])["a"]["pxap"] == 1


def open_dataset_of(sample):
    from fastcam.datasets import Dataset

    return Dataset("coco", [sample])


def test_corners_of_files_reach_the_metric(tmp_path):
    metadata = wsol(tmp_path)
    lines = (metadata / "localization.txt").read_text().splitlines()
    lines = [line for line in lines if "p1" not in line or line.endswith(f"0,0,{SIZE[1] - 1},{SIZE[0] - 1}")]
    (metadata / "localization.txt").write_text("\n".join(lines) + "\n")
    found = work(open_dataset(metadata), torch.ones(13, 17), ["box_iou"], boxes=True)
    assert found["test/p1.png"]["box_iou"] == 1
    assert found["test/p0.png"]["box_iou"] < 1


# Memory


def test_every_component_in_little_memory():
    """Noise has some thousand components at each threshold; all of them at once, with 20 boxes each, took GBs."""
    code = """
import torch
from fastcam import metrics

def highest():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024

torch.set_num_threads(1)
torch.manual_seed(0)
maps, corners = torch.rand(2, 224, 224), torch.rand(2, 20, 2, 2) * 224
boxes = torch.cat([corners.amin(2), corners.amax(2)], 2)
metrics.max_component_iou(maps[:, :32, :32], boxes, torch.arange(10) / 10)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # forget the peak of the imports
before = highest()
metrics.max_component_iou(maps, boxes, torch.arange(800) / 800)
print(highest() - before)
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("the highest memory of a process is read from Linux's /proc")
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert float(found.stdout) < 64


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("kind", ["noise", "steps", "smooth"])
def test_parts_give_what_the_whole_gives(kind, connectivity, monkeypatch):
    maps, _, _ = noise(3, (12, 15))
    if kind == "steps":
        maps = (maps * 4).round() / 4
        maps[1] = 0
        maps[2, 3, 3] = math.nan
    if kind == "smooth":
        maps = torch.nn.functional.avg_pool2d(maps[:, None], 5, 1, 2)[:, 0]
    corners = torch.rand(3, 4, 2, 2, generator=torch.Generator().manual_seed(7)) * 14
    boxes = torch.cat([corners.amin(2), corners.amax(2)], 2)
    for thresholds in (torch.arange(20) / 20, torch.rand(3, 20, generator=torch.Generator().manual_seed(8))):
        args = (maps, boxes, thresholds, connectivity)
        whole = metrics.max_component_iou(*args)
        rows = thresholds if thresholds.dim() == 2 else thresholds.expand(3, -1)
        loops = [formulas.max_component_iou(m[None], b[None], t, connectivity) for m, b, t in zip(maps, boxes, rows)]  # noqa: B905
        torch.testing.assert_close(whole, torch.cat(loops), rtol=0, atol=1e-12)
        with monkeypatch.context() as patch:
            patch.setattr("fastcam.metrics.boxes.MOST", 9)
            patch.setattr("fastcam.metrics.boxes.PAIRS", 8)
            assert torch.equal(metrics.max_component_iou(*args), whole)
