"""What the formulas of pictures cannot say of signals and volumes, in loops: trilinear resizing, neighborhoods."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from tests.formulas import Grid, Halves, Target, activations_of, resize, score_of
from tests.formulas_scores import softmax


def trilinear(slices: list[Grid], D: int, H: int, W: int) -> list[Grid]:
    """Bilinear within each slice, then linear between slices with half-pixel centers, kept within the volume."""
    fine = [resize(one, H, W) for one in slices]
    out = []
    for z in range(D):
        at = min(max((z + 0.5) * len(fine) / D - 0.5, 0.0), len(fine) - 1.0)
        low = int(at)
        high, share = min(low + 1, len(fine) - 1), at - low
        out.append([[(1 - share) * a + share * b for a, b in zip(*rows, strict=True)]
                    for rows in zip(fine[low], fine[high], strict=True)])  # fmt: skip
    return out


def folded_trilinear(shape: tuple[int, int, int], size: tuple[int, int, int]) -> Callable[[Grid, int, int], Grid]:
    """`formulas.resize` for volumes of this shape whose slices stand one below the other."""

    def resized(grid: Grid, H: int, W: int) -> Grid:
        depth, height, width = shape
        if (size[0] * size[1], size[2]) != (H, W) or (depth * height, width) != (len(grid), len(grid[0])):
            raise ValueError(f"{len(grid)} x {len(grid[0])} is no volume {shape}")
        slices = [grid[z * height : (z + 1) * height] for z in range(depth)]
        return [row for one in trilinear(slices, *size) for row in one]

    return resized


def reciprocam(
    net: Halves, x: Tensor, c: Target, shape: tuple[int, ...], kernel: str, answer: str = "probability"
) -> Grid:
    """The score when only the features around one cell are left: a cell counts 1/2 along an axis, those beside it 1/4.

    gaussian: the cell's own vector on the cells around it; neighbors: each neighbor's own vector.
    """
    a = activations_of(net, x)
    cube, out = a.reshape(len(a), *shape), []
    for cell in itertools.product(*map(range, shape)):
        kept = torch.zeros_like(cube)
        for step in itertools.product((-1, 0, 1), repeat=len(shape)):
            other = tuple(at + by for at, by in zip(cell, step, strict=True))
            if all(0 <= at < n for at, n in zip(other, shape, strict=True)):
                share = math.prod(0.25 if by else 0.5 for by in step)
                own = cell if kernel == "gaussian" else other
                kept[(slice(None), *other)] = share * cube[(slice(None), *own)]
        with torch.no_grad():
            scores = net.tail(kept.reshape(1, *a.shape), x[None])
        value = softmax(scores[0].tolist())[c] if answer == "probability" else float(score_of(scores, c)[0])
        out.append(value)
    width = a.shape[2]
    return [out[i : i + width] for i in range(0, len(out), width)]
