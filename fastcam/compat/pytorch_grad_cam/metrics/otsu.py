"""Otsu's threshold of maps as bytes, of a batch at once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SMALLEST = float(np.finfo(np.float32).eps)  # a class with a smaller share of the pixels is none


def above_otsu(maps: Tensor) -> Tensor:
    """Where floor(255 m) is above the map's own threshold. (B, H, W) -> (B, H, W) bool"""
    levels = (255 * maps).to(torch.uint8).flatten(1).numpy()
    return torch.from_numpy(levels > thresholds(levels)[:, None]).view(maps.shape)


def thresholds(levels: np.ndarray) -> np.ndarray:
    """The level t at which q (1 - q) (mean above - mean below)² is largest, q the share of pixels up to t: Otsu 1979.

    The first of several; 0 of a map that is the same everywhere. Sums are carried from level to level in float64 as
    OpenCV does, so that near ties are decided alike.

    Args:
        levels: (B, N) uint8

    Returns:
        (B,) integers.
    """
    batch, pixels = levels.shape
    offset = 256 * np.arange(batch)[:, None]
    counts = np.bincount((levels + offset).ravel(), minlength=256 * batch).reshape(batch, 256)
    shares = counts * (1 / pixels)
    total = (np.arange(256) * counts).sum(1) * (1 / pixels)
    below, mean = np.zeros(batch), np.zeros(batch)
    best, found = np.zeros(batch), np.zeros(batch, dtype=int)
    for level in range(256):
        mean = mean * below
        below = below + shares[:, level]
        above = 1 - below
        two = (np.minimum(below, above) >= SMALLEST) & (np.maximum(below, above) <= 1 - SMALLEST)
        mean = np.where(two, (mean + level * shares[:, level]) / np.where(two, below, 1), mean)
        other = (total - below * mean) / np.where(two, above, 1)
        spread = np.where(two, below * above * (mean - other) ** 2, 0)
        found = np.where(spread > best, level, found)
        best = np.maximum(spread, best)
    return found
