"""The localization metrics again, in plain loops: energy, pointing, boxes over thresholds, pixel precision.

Per-image functions are 0 for an image without any box: nothing lies inside of nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tests.formulas_boxes import Box, above, exclusive, inside, iou_of, largest, regions, wsol_boxes
from tests.formulas_metrics import Grid, column, first_largest, flat, values


def energy_pointing_game(maps: Tensor, boxes: Tensor, edges: str = "exclusive") -> Tensor:
    """Σ_{in a box} m / Σ m (Wang et al. 2020, section 4.3); the union of the boxes counts once; 0 where Σ m is 0."""
    out = []
    for grid, own in zip(values(maps), values(boxes), strict=True):
        part = [
            value
            for y, row in enumerate(grid)
            for x, value in enumerate(row)
            if any(inside(box, y, x, edges) for box in own)
        ]
        total = math.fsum(flat(grid))
        out.append(math.fsum(part) / total if total != 0 else 0.0)
    return column(out)


def pointing_game(
    maps: Tensor, boxes: Tensor | None = None, tolerance: float = 0, masks: Tensor | None = None
) -> Tensor:
    """1 where the first maximum in row-major order hits the object (Zhang et al. 2018, section 4.2).

    tolerance 0: it is a pixel of the object. More: a pixel of the object is nearer than that, sqrt(dy² + dx²) <
    tolerance. Pixels of the object lie in the image. NaN is no maximum; a map of nothing else hits nothing.
    """
    out = []
    for b, grid in enumerate(values(maps)):
        numbers = [-math.inf if math.isnan(value) else value for value in flat(grid)]
        v, u = divmod(first_largest(numbers), len(grid[0]))
        hit = False
        mask = masks[b].tolist() if masks is not None else None
        own = values(boxes[b]) if boxes is not None else []
        for y in range(len(grid)):
            for x in range(len(grid[0])):
                on = mask[y][x] if mask is not None else any(inside(box, y, x) for box in own)
                near = (y, x) == (v, u) if tolerance == 0 else (y - v) ** 2 + (x - u) ** 2 < tolerance**2
                hit = hit or (on and near)
        out.append(1.0 if hit and not all(math.isnan(value) for value in flat(grid)) else 0.0)
    return column(out)


def pointing_accuracy(hits: Tensor, labels: Tensor, classes: int | None = None) -> float:
    """The mean over the classes of each one's share of hits, as in TorchRay.

    `classes`: their number, and a class without images counts 0, which is TorchRay's; None: only those that occur.
    """
    shares = []
    for c in range(int(labels.max()) + 1 if classes is None else classes):
        own = [hit for hit, label in zip(values(hits), labels.tolist(), strict=True) if label == c]
        if own or classes is not None:
            shares.append(math.fsum(own) / max(len(own), 1))
    return math.fsum(shares) / len(shares)


def max_box_iou(maps: Tensor, boxes: Tensor, thresholds: Tensor, connectivity: int = 8) -> Tensor:
    """IoU of the largest component's box above t max(m) with the best of the image's boxes (B, T)."""
    out = []
    for grid, own in zip(values(maps), values(boxes), strict=True):
        row = []
        for t in values(thresholds):
            found = largest(regions(above(grid, t, single=maps.dtype == torch.float32), connectivity))
            best = 0.0 if found is None else max((iou_of(exclusive(found.box), box) for box in own), default=0.0)
            row.append(best)
        out.append(row)
    return torch.tensor(out, dtype=torch.float64)


def max_component_iou(
    maps: Tensor, boxes: Tensor, thresholds: Tensor, connectivity: int = 8, min_area: int = 1
) -> Tensor:
    """IoU of the best pair of any component's box and any of the image's boxes (B, T)."""
    out = []
    for grid, own in zip(values(maps), values(boxes), strict=True):
        row = []
        for t in values(thresholds):
            found = regions(above(grid, t, single=maps.dtype == torch.float32), connectivity)
            ours = [exclusive(one.box) for one in found if len(one.pixels) >= min_area]
            row.append(max((iou_of(a, b) for a in ours for b in own), default=0.0))
        out.append(row)
    return torch.tensor(out, dtype=torch.float64)


def wsol_iou(
    maps: Sequence[Grid], boxes: Sequence[Sequence[Box]], thresholds: Sequence[float], multiple: bool = False
) -> Tensor:
    """As the two above by the code of Choe et al. 2020: its boxes, corners cut to whole pixels, IoU with + 1 (B, T)."""
    out = []
    for grid, own in zip(maps, boxes, strict=True):
        truth = [[int(value) for value in box] for box in own]
        row = []
        for t in thresholds:
            found = wsol_boxes(grid, t, multiple)
            row.append(max((iou_of(a, b, plus_one=True) for a in found for b in truth), default=0.0))
        out.append(row)
    return torch.tensor(out, dtype=torch.float64)


def wsol_corners(box: Box, size: tuple[int, int], wanted: tuple[int, int]) -> list[int]:
    """Inclusive corners in a picture (W, H) scaled to (w, h) as Choe et al. 2020 do: int(x w / W)."""
    W, H = size
    w, h = wanted
    return [int(box[0] * w / W), int(box[1] * h / H), int(box[2] * w / W), int(box[3] * h / H)]


def accuracy_curve(ious: Tensor, delta: float = 0.5) -> list[float]:
    """For each threshold, the share of images (B, T) whose IoU is at least delta; NaN rows are no images."""
    rows = [row for row in values(ious) if not any(math.isnan(value) for value in row)]
    return [sum(1 for row in rows if row[t] >= delta) / len(rows) for t in range(len(rows[0]))]


def max_box_acc(ious: Tensor, delta: float = 0.5) -> float:
    """The best threshold's share of images with IoU >= delta (Choe et al. 2020, eq. 2)."""
    return max(accuracy_curve(ious, delta))


def max_box_acc_v2(ious: Tensor, deltas: Sequence[float] = (0.3, 0.5, 0.7)) -> float:
    """The mean over delta of the best threshold's share, each delta with its own threshold (Choe et al. 2022)."""
    return math.fsum(max_box_acc(ious, delta) for delta in deltas) / len(deltas)


def localization_accuracy(ious: Tensor, logits: Tensor, labels: Tensor, k: int = 1, delta: float = 0.5) -> Tensor:
    """1 where the labelled class is among the k first and the box overlaps by at least delta (B,).

    Of equal scores the class of the lower index comes first.
    """
    out = []
    for iou, row, label in zip(values(ious), values(logits), labels.tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda c: (-row[c], c))
        out.append(1.0 if label in order[:k] and iou >= delta else 0.0)
    return column(out)


def pxap(maps: Tensor, masks: Tensor, ignored: Tensor | None = None, levels: int = 1000) -> float:
    """Pixel average precision over the data set (Choe et al. 2020, eqs. 4-6): Σ_l Prec(τ_l) (Rec(τ_l) - Rec(τ_l-1)).

    τ falls over 0, 1/levels, ..., (levels - 1)/levels, 1; a pixel counts at τ where its value is at least τ, and all
    pixels of all images are counted together. Pixels of `ignored` count nowhere, nor those of a map with a NaN. NaN
    without a pixel of an object.
    """
    edges = [*(np.arange(levels) * (1.0 / levels)), 1.0]
    levels += 1
    hits, misses = [0] * (levels + 1), [0] * (levels + 1)
    for b, grid in enumerate(values(maps)):
        if any(math.isnan(value) for value in flat(grid)):
            continue
        for y, row in enumerate(grid):
            for x, value in enumerate(row):
                if ignored is not None and bool(ignored[b, y, x]):
                    continue
                level = sum(1 for edge in edges if value >= edge)  # 0: under every edge
                (hits if bool(masks[b, y, x]) else misses)[level] += 1
    objects = sum(hits)
    if objects == 0:
        return math.nan
    area, true, false = 0.0, 0, 0
    for level in range(levels, 0, -1):
        true, false = true + hits[level], false + misses[level]
        if true + false:
            area += true / (true + false) * hits[level] / objects
    return area


def center_map(H: int, W: int, share: float = 0.25) -> Grid:
    """A Gaussian at the center with a standard deviation of `share` of each side, its maximum 1 at the center."""
    rows = [math.exp(-(((i + 0.5) / H - 0.5) ** 2) / (2 * share**2)) for i in range(H)]
    columns = [math.exp(-(((j + 0.5) / W - 0.5) ** 2) / (2 * share**2)) for j in range(W)]
    return [[p * q for q in columns] for p in rows]
