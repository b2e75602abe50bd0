"""Outlines to pixels: polygons and run lengths as COCO stores them, and mask pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastcam import image

Polygon = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Runs:
    """A mask as lengths of runs, column by column, starting with zeros (COCO's "RLE").

    Attributes:
        counts: the lengths, or COCO's compressed text of them.
        size: (H, W) of the mask.
    """

    counts: tuple[int, ...] | str
    size: tuple[int, int]

    def decode(self) -> np.ndarray:
        """The mask, (H, W) bool.

        Raises:
            ValueError: the runs do not fill the mask exactly.
        """
        counts = _decompress(self.counts) if isinstance(self.counts, str) else list(self.counts)
        height, width = self.size
        if sum(counts) != height * width or any(count < 0 for count in counts):
            raise ValueError(
                f"the runs of a mask cover {sum(counts)} pixels of {height} x {width}; expected all of them, once"
            )
        values = np.arange(len(counts)) % 2 == 1
        return np.repeat(values, counts).reshape(width, height).T


def _decompress(text: str) -> list[int]:
    """Five bits a character from ASCII 48 on, 32 says more follow; from the fourth on, differences to two before."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"{character!r} in the compressed runs of a mask; expected characters from '0' to 'o'")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("the compressed runs of a mask end within a number; copy the file again")
    return counts


def fill_polygon(points: Polygon, height: int, width: int) -> np.ndarray:
    """The pixels whose centers lie inside a polygon (even-odd rule).

    Pixel (row i, column j) covers [j, j + 1) x [i, i + 1), so its center is (j + 0.5, i + 0.5), as in a box.

    Args:
        points: x0 y0 x1 y1 …, closed by itself.
        height: rows of the mask.
        width: columns of the mask.

    Returns:
        (height, width) bool.
    """
    x0, y0 = np.asarray(points, np.float64).reshape(-1, 2).T
    x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
    mask = np.zeros((height, width), bool)
    first, last = max(0, math.floor(y0.min())), min(height, math.ceil(y0.max()))
    if last <= first:
        return mask
    centers = np.arange(first, last)[:, None] + 0.5
    rows, edges = np.nonzero((y0 <= centers) != (y1 <= centers))
    slope = (x1 - x0)[edges] / (y1 - y0)[edges]
    crossings = x0[edges] + slope * (centers[rows, 0] - y0[edges])
    # A crossing flips every pixel whose center is at or right of it.
    columns = np.clip(np.ceil(crossings - 0.5), 0, width).astype(np.intp)
    flips = np.zeros((last - first, width + 1), np.int32)
    np.add.at(flips, (rows, columns), 1)
    mask[first:last] = np.cumsum(flips[:, :width], axis=1) % 2 == 1
    return mask


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """The nearest pixel of a mask for each pixel center of another size.

    Args:
        mask: (H, W) bool.
        height: rows wanted.
        width: columns wanted.

    Returns:
        (height, width) bool.
    """
    rows = (np.arange(height) * 2 + 1) * mask.shape[0] // (2 * height)
    columns = (np.arange(width) * 2 + 1) * mask.shape[1] // (2 * width)
    return mask[rows[:, None], columns]


def draw(outline: tuple[Polygon, ...] | Runs, size: tuple[int, int], height: int, width: int) -> np.ndarray:
    """An outline given in pixels of a picture, drawn at another size.

    Args:
        outline: polygons, of which the union counts, or runs.
        size: (H, W) of the picture.
        height: rows wanted.
        width: columns wanted.

    Returns:
        (height, width) bool.

    Raises:
        ValueError: damaged runs, or runs of another size than the picture's.
    """
    if isinstance(outline, Runs):
        if outline.size != size:
            raise ValueError(f"a mask of {outline.size} for a picture of {size}; expected the same (height, width)")
        return resize_mask(outline.decode(), height, width)
    mask = np.zeros((height, width), bool)
    for polygon in outline:
        points = np.asarray(polygon).reshape(-1, 2) * (width / size[1], height / size[0])
        mask |= fill_polygon(tuple(points.ravel()), height, width)
    return mask


def read_mask(path: str, height: int, width: int) -> np.ndarray:
    """A mask picture, true where any channel is above 0, at another size.

    Args:
        path: a picture.
        height: rows wanted.
        width: columns wanted.

    Returns:
        (height, width) bool.

    Raises:
        ValueError: no such file, or damaged.
    """
    return resize_mask(image.read(path).amax(2).numpy() > 0, height, width)


def union(parts: list[np.ndarray]) -> Tensor | None:
    """The pixels of any of several masks of one size; None when there is none."""
    return torch.from_numpy(np.logical_or.reduce(parts)) if parts else None
