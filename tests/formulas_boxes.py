"""Components, contours and boxes again, in plain loops: flood fill, border following, overlaps.

A box is x0, y0, x1, y1. Ground truth has exclusive corners, a component's box inclusive ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tests.formulas_metrics import Grid, column, flat, values

Box = Sequence[float]
Pixel = tuple[int, int]
STRAIGHT = [(-1, 0), (0, -1), (0, 1), (1, 0)]
AROUND = [(0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1)]  # clockwise from the west


class Component(NamedTuple):
    """A connected set of pixels (y, x), the first in row-major order at its head."""

    pixels: list[Pixel]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Inclusive corners."""
        ys, xs = [y for y, _ in self.pixels], [x for _, x in self.pixels]
        return min(xs), min(ys), max(xs), max(ys)


def regions(on: list[list[bool]], connectivity: int) -> list[Component]:
    """The connected sets of true pixels, by their first pixel in row-major order."""
    steps = AROUND if connectivity == 8 else STRAIGHT
    seen: set[Pixel] = set()
    out = []
    for y in range(len(on)):
        for x in range(len(on[0])):
            if not on[y][x] or (y, x) in seen:
                continue
            found, waiting = [], [(y, x)]
            seen.add((y, x))
            while waiting:
                v, u = waiting.pop()
                found.append((v, u))
                for dv, du in steps:
                    near = (v + dv, u + du)
                    inside = 0 <= near[0] < len(on) and 0 <= near[1] < len(on[0])
                    if inside and on[near[0]][near[1]] and near not in seen:
                        seen.add(near)
                        waiting.append(near)
            out.append(Component(sorted(found)))
    return out


def above(grid: Grid, threshold: float, relative: bool = True, single: bool = False) -> list[list[bool]]:
    """value > t max(map), or > t; strict, so NaN is never above, and the maximum leaves NaN out.

    `single`: the product is rounded to float32, as numpy does for float32 factors.
    """
    level = threshold
    if relative:
        top = max((value for value in flat(grid) if not math.isnan(value)), default=math.nan)
        level = float(np.float32(threshold) * np.float32(top)) if single else threshold * top
    elif single:
        level = float(np.float32(threshold))
    return [[value > level for value in row] for row in grid]


def largest(components: Sequence[Component]) -> Component | None:
    """The one of most pixels; of equal ones the one whose first pixel comes first."""
    return min(components, key=lambda one: (-len(one.pixels), one.pixels[0]), default=None)


def component_boxes(
    maps: Tensor, thresholds: Tensor, connectivity: int = 8, relative: bool = True
) -> tuple[Tensor, Tensor]:
    """The inclusive box (B, T, 4) and the area (B, T) of each map's largest component above each threshold."""
    boxes, areas = [], []
    steps = values(thresholds)
    for b, grid in enumerate(values(maps)):
        for t in steps[b] if thresholds.ndim == 2 else steps:
            found = largest(regions(above(grid, t, relative, maps.dtype == torch.float32), connectivity))
            boxes.append([0, 0, -1, -1] if found is None else list(found.box))
            areas.append(0 if found is None else len(found.pixels))
    shape = (len(maps), thresholds.shape[-1])
    return torch.tensor(boxes).reshape(*shape, 4), torch.tensor(areas).reshape(shape)


def inside(box: Box, y: int, x: int, edges: str = "exclusive") -> bool:
    """Whether the pixel lies in the box; false for a box with a NaN or with x1 < x0."""
    x0, y0, x1, y1 = box
    if edges == "inclusive":
        return x0 <= x <= x1 and y0 <= y <= y1
    return x0 <= x < x1 and y0 <= y < y1


def iou_of(a: Box, b: Box, plus_one: bool = False) -> float:
    """Area of what two boxes share over the area of what they cover; 0 where nothing is covered."""
    if any(math.isnan(value) for value in [*a, *b]):
        return 0.0
    more = 1 if plus_one else 0
    width = min(a[2], b[2]) - max(a[0], b[0]) + more
    height = min(a[3], b[3]) - max(a[1], b[1]) + more
    sides = [(box[2] - box[0] + more, box[3] - box[1] + more) for box in (a, b)]
    areas = [max(w, 0) * max(h, 0) for w, h in sides]
    shared = max(width, 0) * max(height, 0) if min(areas) > 0 else 0
    cover = areas[0] + areas[1] - shared
    return shared / cover if cover > 0 else 0.0


def box_iou(a: Tensor, b: Tensor, plus_one: bool = False) -> Tensor:
    """Intersection over union of boxes (..., 4) that broadcast; plus_one: corners are inclusive pixels."""
    a, b = torch.broadcast_tensors(a.double(), b.double())
    pairs = zip(values(a.reshape(-1, 4)), values(b.reshape(-1, 4)), strict=True)
    return column([iou_of(p, q, plus_one) for p, q in pairs]).reshape(a.shape[:-1])


def exclusive(box: Box) -> list[float]:
    """An inclusive box of pixels with exclusive corners; 0 0 -1 -1, nothing, stays empty."""
    return [box[0], box[1], box[2] + 1, box[3] + 1]


def outline(component: Component) -> list[Pixel]:
    """The outer border of an 8-connected component, followed as in Suzuki & Abe 1985."""
    pixels = set(component.pixels)
    start = component.pixels[0]

    def neighbor(center: Pixel, turn: int) -> Pixel:
        dy, dx = AROUND[turn % 8]
        return center[0] + dy, center[1] + dx

    first = next((turn for turn in range(8) if neighbor(start, turn) in pixels), None)
    if first is None:
        return [start]
    end = neighbor(start, first)
    border, previous, here = [], end, start
    while True:
        border.append(here)
        back = next(turn for turn in range(8) if neighbor(here, turn) == previous)
        after = next(neighbor(here, back - k) for k in range(1, 9) if neighbor(here, back - k) in pixels)
        if after == start and here == end:
            return border
        previous, here = here, after


def outline_area(component: Component) -> float:
    """The area of the polygon through the centers of the border pixels, as OpenCV's contourArea: a line has none."""
    border = outline(component)
    twice = sum(p[1] * q[0] - q[1] * p[0] for p, q in zip(border, [*border[1:], border[0]], strict=True))
    return abs(twice) / 2


def hole_boxes(on: list[list[bool]]) -> list[list[int]]:
    """Inclusive boxes of the borders around holes: a hole and one pixel on each side."""
    w = len(on[0])
    padded = [[True] * (w + 2), *([True, *(not value for value in row), True] for row in on), [True] * (w + 2)]
    out = []
    for hole in regions(padded, connectivity=4)[1:]:  # the first is what surrounds everything
        x0, y0, x1, y1 = hole.box
        out.append([x0 - 2, y0 - 2, x1, y1])
    return out


def wsol_boxes(grid: Grid, threshold: float, multiple: bool = False) -> list[list[int]]:
    """The boxes of Choe et al. 2020 as their code makes them, from a map of values in [0, 1].

    m := uint8(255 m); pixels > int(t max m); outer borders and, for `multiple`, those of holes; of one box the
    border whose polygon is the largest, of equal ones the last in row-major order (OpenCV lists borders from the
    bottom up and the first is taken); corners x, y, min(x + w, W - 1), min(y + h, H - 1); nothing: 0 0 0 0.
    """
    bytes_ = [[int(value * 255) for value in row] for row in grid]
    level = int(threshold * max(max(row) for row in bytes_))
    on = [[value > level for value in row] for row in bytes_]
    found = regions(on, connectivity=8)
    if not found:
        return [[0, 0, 0, 0]]
    boxes: list[list[int]] = [list(one.box) for one in found]
    if multiple:
        boxes += hole_boxes(on)
    else:
        boxes = [list(max(reversed(found), key=outline_area).box)]
    h, w = len(grid), len(grid[0])
    return [[x0, y0, min(x1 + 1, w - 1), min(y1 + 1, h - 1)] for x0, y0, x1, y1 in boxes]
