"""Windows on scaled images: where they lie, and their maps at their places in the image itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """A square of one scaled image: its corner, and the scaled size (height, width)."""

    top: int
    left: int
    size: tuple[int, int]


def starts(length: int, side: int, stride: int) -> list[int]:
    """Where windows begin along an axis; the last one ends with it."""
    return [*range(0, length - side, stride), length - side]


def place(values: Tensor, window: Window, size: tuple[int, int]) -> tuple[slice, slice, Tensor]:
    """A window's map as it is in the image: the scaled image, zero around the window, resized to the image's size.

    Args:
        values: (T, side, side)
        window: where they belong.
        size: (H, W) of the image.

    Returns:
        The rows and the columns of the image that are not zero, and their values. Bilinear, half-pixel centers.
    """
    side = values.shape[-1]
    rows, down = lerp(values, -2, window.top, side, window.size[0], size[0])
    columns, both = lerp(down, -1, window.left, side, window.size[1], size[1])
    return rows, columns, both


def lerp(values: Tensor, axis: int, start: int, side: int, length: int, size: int) -> tuple[slice, Tensor]:
    """Along one axis: what [start, start + side) of `length` gives at those of `size` positions that it reaches."""
    at = ((torch.arange(size, dtype=torch.float64) + 0.5) * length / size - 0.5).clamp(0, length - 1)
    low = at.floor().long()
    high, share = (low + 1).clamp_max(length - 1), at - low
    reached = ((high >= start) & (low < start + side)).nonzero().flatten()
    first, last = (int(reached[0]), int(reached[-1]) + 1) if len(reached) else (0, 0)
    shape = [1] * values.dim()
    shape[axis] = last - first
    total: Any = 0.0
    for index, near in ((low, 1 - share), (high, share)):
        inside = index[first:last] - start
        weight = torch.where((inside >= 0) & (inside < side), near[first:last], 0)
        taken = values.index_select(axis, inside.clamp(0, side - 1).to(values.device))
        total = total + taken * weight.to(values).view(shape)
    return slice(first, last), total


def gaussian_blur(maps: Tensor, size: int, sigma: float) -> Tensor:
    """A Gaussian of `size` x `size` pixels, mirrored at the edges without repeating them, as OpenCV's. (..., H, W)"""
    taps = [math.exp(-0.5 * ((i - size // 2) / sigma) ** 2) for i in range(size)]
    for axis in (-2, -1):
        length = maps.shape[axis]
        period = max(2 * (length - 1), 1)
        at = torch.arange(-(size // 2), length + size // 2) % period
        padded = maps.index_select(axis, torch.where(at < length, at, period - at).to(maps.device))
        blurred = torch.zeros_like(maps)
        for i, tap in enumerate(taps):
            blurred = blurred + tap / sum(taps) * padded.narrow(axis, i, length)
        maps = blurred
    return maps
