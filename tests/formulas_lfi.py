"""LFI-CAM again, in plain loops over float64: what its branch reads, its weights, its map, and what the map does."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from tests.formulas import Grid, combine, extent, resize


def read(a: Tensor, image: Tensor) -> Tensor:
    """F^ times the gray image: channels to [0, 1], a constant one 1, zeros 0. a (C, h, w), image (channels, H, W)"""
    height, width = a.shape[1:]
    planes = image.tolist()
    gray = [[sum(p[i][j] for p in planes) / len(planes) for j in range(len(p0))] for i, p0 in enumerate(planes[0])]
    small = resize(gray, height, width)
    out = []
    for grid in a.tolist():
        low, high = extent(grid)
        scaled = [[1.0 if high == low else (value - low) / (high - low) for value in row] for row in grid]
        out.append(
            [[0.0 if grid[i][j] == 0 else scaled[i][j] * small[i][j] for j in range(width)] for i in range(height)]
        )
    return torch.tensor(out, dtype=torch.float64)


def branch(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Four times convolution, batch norm with running statistics, ReLU. (C, h, w)"""
    for block in range(4):
        norm = f"{3 * block + 1}"
        x = conv2d(x[None], state[f"{3 * block}.weight"], padding=1)[0]
        mean, var = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        scaled = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        x = (scaled * state[f"{norm}.weight"][:, None, None] + state[f"{norm}.bias"][:, None, None]).clamp_min(0)
    return x


def weights(e: Tensor) -> list[float]:
    """w = softmax of the means."""
    means = [math.fsum(v for row in grid for v in row) / (len(grid) * len(grid[0])) for grid in e.tolist()]
    raised = [math.exp(mean - max(means)) for mean in means]
    return [one / math.fsum(raised) for one in raised]


def raw(a: Tensor, e: Tensor) -> Grid:
    """Σ_k w_k F_k"""
    return combine(weights(e), a.tolist())


def attention(a: Tensor, e: Tensor) -> Tensor:
    """M: what is positive of the sum, scaled to [0, 1]; a constant map as it is. (h, w)"""
    grid = [[max(value, 0.0) for value in row] for row in raw(a, e)]
    low, high = extent(grid)
    if low != high:
        grid = [[(value - low) / (high - low) for value in row] for row in grid]
    return torch.tensor(grid, dtype=torch.float64)
