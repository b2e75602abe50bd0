"""T6: boxes of the largest component at 100 thresholds, against what finds components elsewhere; one thread each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from bench.agreement import scale
from bench.clock import Timing, alternate
from bench.models import subject
from bench.rows import Row
from bench.task import Setting, Task, WrongError, installed, part_row, row
from bench.works import LITE0
from fastcam import CAM, ops

SHARES = torch.arange(100, dtype=torch.float32) / 100
FEW = SHARES[5::10]  # ten of them, for slow peers on large maps
LARGE = 512
SECONDS = {True: 1.5, False: 12.0}
VERSUS = {
    "smooth": {"OpenCV contours": 5.0, "OpenCV components": 50.0},
    "noise": {"OpenCV components": 1.0},
}
Found = tuple[tuple[int, int, int, int], int]  # inclusive corners, pixels
NOTHING: Found = ((0, 0, -1, -1), 0)


def tasks() -> Iterator[Task]:
    """Maps of a network and noise, at the size of a picture and at a large one."""
    for side in (224, 1024):
        for kind in ("smooth", "noise"):

            def measure(setting: Setting, task: Task, side: int = side, kind: str = kind) -> list[Row]:
                return _measure(setting, task, side, kind)

            text = "smooth CAM map" if kind == "smooth" else "noise"
            yield Task("T6", f"boxes at 100 thresholds, {side} x {side}, {text}", measure, threads=1)


def smooth(side: int, count: int) -> Tensor:
    """Grad-CAM maps of the bundled pictures. (count, side, side) in [0, 1]"""
    asked = subject(LITE0, None, count, "cpu")
    small = CAM(asked.model, "gradcam", asked.layer).explain(asked.images).raw
    assert isinstance(small, Tensor)
    return scale(interpolate(small.relu()[:, None], (side, side), mode="bilinear")[:, 0]).contiguous()


def noise(side: int, count: int) -> Tensor:
    """(count, side, side) uniform in [0, 1)"""
    return torch.rand((count, side, side), generator=torch.Generator().manual_seed(0))


def contours(above: np.ndarray) -> Found:
    """OpenCV's outlines, the one with the largest polygon: as WSOL evaluations take it, not by pixels."""
    import cv2

    outlines = cv2.findContours(above, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    if not outlines:
        return NOTHING
    best = max(outlines, key=cv2.contourArea)
    x, y, width, height = cv2.boundingRect(best)
    return (x, y, x + width - 1, y + height - 1), -1


def with_stats(above: np.ndarray) -> Found:
    """OpenCV's labels with their boxes and pixel counts."""
    import cv2

    stats = cv2.connectedComponentsWithStats(above, connectivity=8)[2][1:]
    if not len(stats):
        return NOTHING
    x, y, width, height, area = stats[stats[:, cv2.CC_STAT_AREA].argmax()].tolist()
    return (x, y, x + width - 1, y + height - 1), area


def scipy_label(above: np.ndarray) -> Found:
    """SciPy's labels, counted and boxed."""
    from scipy import ndimage

    labels, count = ndimage.label(above, structure=np.ones((3, 3), np.uint8))
    if not count:
        return NOTHING
    areas = np.bincount(labels.ravel())
    best = int(areas[1:].argmax()) + 1
    rows, columns = ndimage.find_objects(labels)[best - 1]
    return (columns.start, rows.start, columns.stop - 1, rows.stop - 1), int(areas[best])


def cc3d_label(above: np.ndarray) -> Found:
    """cc3d's labels and its statistics of them."""
    import cc3d

    stats = cc3d.statistics(cc3d.connected_components(above, connectivity=8), no_slice_conversion=True)
    areas = stats["voxel_counts"]
    if len(areas) < 2:
        return NOTHING
    best = int(areas[1:].argmax()) + 1
    y0, y1, x0, x1 = (int(corner) for corner in stats["bounding_boxes"][best][:4])
    return (x0, y0, x1, y1), int(areas[best])


FINDERS: dict[str, Callable[[np.ndarray], Found]] = {
    "OpenCV contours": contours,
    "OpenCV components": with_stats,
    "SciPy": scipy_label,
    "cc3d": cc3d_label,
}


def over(maps: np.ndarray, shares: np.ndarray, find: Callable[[np.ndarray], Found]) -> list[list[Found]]:
    """What a finder finds in each map above each share of its maximum."""
    return [[find((one > share * top).view(np.uint8)) for share in shares] for one in maps for top in [one.max()]]


def agreement(maps: np.ndarray, shares: Sequence[float], ours: list[list[Found]], theirs: list[list[Found]]) -> float:
    """The share of equal boxes, where of several components of one size any may be meant.

    Raises:
        WrongError: a finder that counts pixels has another largest area, or a box of a smaller component.
    """
    same = total = 0
    for index, (mine, others) in enumerate(zip(ours, theirs, strict=True)):
        for share, (box, area), (other, pixels) in zip(shares, mine, others, strict=True):
            total += 1
            tied = pixels == area and box != other and {box, other} <= _largest(maps[index], share)
            same += box == other or tied
            if pixels >= 0 and (pixels != area or not (box == other or tied)):
                raise WrongError(f"map {index}, threshold {share:.2f}: {box} of {area} pixels, {other} of {pixels}")
    return same / total


def _largest(one: np.ndarray, share: float) -> set[tuple[int, int, int, int]]:
    """The boxes of all components of the largest size."""
    from scipy import ndimage

    labels: Any = ndimage.label(one > np.float32(share) * one.max(), structure=np.ones((3, 3), np.uint8))[0]
    areas = np.bincount(labels.ravel())[1:]
    boxes: Any = ndimage.find_objects(labels)
    found = [boxes[i] for i in np.flatnonzero(areas == areas.max())]
    return {(x.start, y.start, x.stop - 1, y.stop - 1) for y, x in found}


def boxes_of(maps: Tensor, shares: Tensor) -> list[list[Found]]:
    """fastcam's, in the same form."""
    boxes, areas = ops.component_boxes(maps, shares)
    rows: Any = zip(boxes.tolist(), areas.tolist(), strict=True)
    return [[(tuple(box), area) for box, area in zip(*row, strict=True)] for row in rows]


def _measure(setting: Setting, task: Task, side: int, kind: str) -> list[Row]:
    count = 1 if side > LARGE else 3
    maps = smooth(side, count) if kind == "smooth" else noise(side, count)
    finders = {who: find for who, find in FINDERS.items() if installed(who)}
    shares = FEW if setting.quick and side > LARGE else SHARES
    arrays, few = maps.numpy(), shares.numpy()
    ours = boxes_of(maps, shares)
    agreements = {who: agreement(arrays, few.tolist(), ours, over(arrays, few, find)) for who, find in finders.items()}
    calls: dict[str, Callable[[], object]] = {"fastcam": lambda: ops.component_boxes(maps, SHARES)}
    calls |= {who: lambda find=find: over(arrays, few, find) for who, find in finders.items()}
    timings = alternate(calls, SECONDS[setting.quick], least=3, most=40, warm=1)
    found = []
    for who, timing in timings.items():
        part = 1.0 if who == "fastcam" else len(SHARES) / len(shares)
        each = Timing([seconds * part / count for seconds in timing.rounds])
        more = {"agreement": agreements.get(who), "versus": VERSUS[kind].get(who)}
        if part == 1.0:
            found.append(row(task, setting, who, each, maps.shape[1:], note=_note(who), **more))
        else:
            note = f"extrapolated from {len(shares)} of {len(SHARES)} thresholds{_note(who) and '; ' + _note(who)}"
            found.append(part_row(task, setting, who, each.median, maps.shape[1:], note, **more))
    return found


def _note(who: str) -> str:
    return "picks by the polygon's area, not by pixels" if who == "OpenCV contours" else ""
