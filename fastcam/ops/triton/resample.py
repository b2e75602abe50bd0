"""Bilinear resize of small maps inside a kernel: where pixels lie between cells, and the extremes of a whole map."""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

POINTS = 1024  # a step of the search for the extremes


@functools.lru_cache(maxsize=64)
def axis(cells: int, pixels: int, align_corners: bool, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """How the pixels of one axis lie between its cells.

    Args:
        cells: of the map.
        pixels: of the resized map.
        align_corners: as in `torch.nn.functional.interpolate`.
        device: of the result.

    Returns:
        low (pixels,) int32, t (pixels,) float32: pixel i is (1 - t) cell low + t cell min(low + 1, cells - 1). And
        the pixels (n,) int32 among which the extremes lie: between two cells a map is linear, so only the first and
        the last pixel of each interval are searched.
    """
    with torch.inference_mode(False):
        # In float64: at a few thousand positions float32 would already move a sample by 1e-4 of a cell.
        i = torch.arange(pixels, dtype=torch.float64)
        if align_corners:
            at = i * ((cells - 1) / (pixels - 1) if pixels > 1 else 0.0)
        else:
            at = (i + 0.5) * (cells / pixels) - 0.5
        at = at.clamp(0, cells - 1)
        low = at.to(torch.int32)
        change = torch.ones(pixels + 1, dtype=torch.bool)
        change[1:-1] = low[1:] != low[:-1]
        ends = (change[:-1] | change[1:]).nonzero()[:, 0].to(torch.int32)
        return low.to(device), (at - low).float().to(device), ends.to(device)


@triton.jit
def cell(cells, index, origin, low, span, RELU: tl.constexpr, SCALE: tl.constexpr):
    """One cell moved to zero, after a ReLU or before a scaling where these come ahead of the resize."""
    value = tl.load(cells + index).to(tl.float32)
    if RELU:
        value = tl.maximum(value, 0.0, propagate_nan=tl.PropagateNan.ALL)
    value -= origin
    if SCALE:
        value = (value - low) / span
    return value


@triton.jit
def blend(
    cells, origin, low, span, low_y, t_y, low_x, t_x, y, x, h, w, ok, RELU: tl.constexpr, SCALE: tl.constexpr
):  # fmt: skip
    """The resized map at pixels (y, x): first along x, then along y, as the CPU kernel does."""
    y0 = tl.load(low_y + y, mask=ok, other=0)
    x0 = tl.load(low_x + x, mask=ok, other=0)
    ty = tl.load(t_y + y, mask=ok, other=0.0)
    tx = tl.load(t_x + x, mask=ok, other=0.0)
    y1 = tl.minimum(y0 + 1, h - 1)
    x1 = tl.minimum(x0 + 1, w - 1)
    a = cell(cells, y0 * w + x0, origin, low, span, RELU, SCALE)
    b = cell(cells, y0 * w + x1, origin, low, span, RELU, SCALE)
    c = cell(cells, y1 * w + x0, origin, low, span, RELU, SCALE)
    d = cell(cells, y1 * w + x1, origin, low, span, RELU, SCALE)
    top = a + tx * (b - a)
    bottom = c + tx * (d - c)
    return top + ty * (bottom - top)


@triton.jit
def widened(low, high, bad, value, ok):
    """The extremes so far and those of more values; `bad` counts NaN, which minimum and maximum may lose."""
    bad += tl.sum((ok & (value != value)).to(tl.int32))  # noqa: PLR0124
    low = tl.minimum(low, tl.min(tl.where(ok, value, float("inf"))))
    high = tl.maximum(high, tl.max(tl.where(ok, value, float("-inf"))))
    return low, high, bad


@triton.jit
def extremes_of_cells(cells, origin, count, RELU: tl.constexpr, POINTS: tl.constexpr):
    """The smallest and the largest of `count` cells, both NaN where one is."""
    low, high, bad = float("inf"), float("-inf"), 0
    for first in range(0, count, POINTS):
        index = first + tl.arange(0, POINTS)
        ok = index < count
        value = cell(cells, tl.where(ok, index, 0), origin, 0.0, 1.0, RELU, False)
        low, high, bad = widened(low, high, bad, value, ok)
    return tl.where(bad > 0, float("nan"), low), tl.where(bad > 0, float("nan"), high)


@triton.jit
def extremes_of_pixels(
    cells, origin, low_y, t_y, ends_y, rows, low_x, t_x, ends_x, columns, h, w,
    RELU: tl.constexpr, AFTER: tl.constexpr, POINTS: tl.constexpr,
):  # fmt: skip
    """The smallest and the largest pixel of the resized map, after a ReLU where that follows; NaN where one is."""
    low, high, bad = float("inf"), float("-inf"), 0
    for first in range(0, rows * columns, POINTS):
        index = first + tl.arange(0, POINTS)
        ok = index < rows * columns
        y = tl.load(ends_y + index // columns, mask=ok, other=0)
        x = tl.load(ends_x + index % columns, mask=ok, other=0)
        value = blend(cells, origin, 0.0, 1.0, low_y, t_y, low_x, t_x, y, x, h, w, ok, RELU, False)
        if AFTER:
            value = tl.maximum(value, 0.0, propagate_nan=tl.PropagateNan.ALL)
        low, high, bad = widened(low, high, bad, value, ok)
    return tl.where(bad > 0, float("nan"), low), tl.where(bad > 0, float("nan"), high)
