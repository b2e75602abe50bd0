"""Opti-CAM in loops: Adam by its paper, one image and one channel weight at a time; autograd gives ds/du only."""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor

from tests.formulas import Grid, Halves, Target, activations_of, combine, relu, resize, score, score_of
from tests.formulas_scores import softmax


def upsampling(h: int, w: int, H: int, W: int) -> Tensor:
    """(h * w, H, W): what each cell alone becomes at full size."""
    maps = []
    for i, j in product(range(h), range(w)):
        grid = [[float((i, j) == (y, x)) for x in range(w)] for y in range(h)]
        maps.append(resize(grid, H, W))
    return torch.tensor(maps, dtype=torch.float64)


def opticam(
    net: Halves,
    x: Tensor,
    c: Target,
    steps: int,
    rate: float = 0.1,
    objective: str = "score",
) -> Grid:
    """Zhang et al. 2023: L = Σ_k softmax_k(u) A_k, u by Adam on y(x) - y(x * N(up(L)))."""
    a = activations_of(net, x).clamp(min=0)
    up = upsampling(*a.shape[1:], *x.shape[1:]).flatten(1)
    y = score(net, net.head(x[None]).detach(), x, c)[0]
    u, m, v = [0.5] * len(a), [0.0] * len(a), [0.0] * len(a)
    for t in range(1, steps + 1):
        parameters = torch.tensor(u, dtype=torch.float64, requires_grad=True)
        powers = parameters.exp()
        one = sum(powers[k] / powers.sum() * a[k].flatten() for k in range(len(a))) @ up
        low, high = one.min(), one.max()
        mask = ((one - low) / (high - low)).view(1, *x.shape[1:]) if high > low else 0 * one.view(1, *x.shape[1:])
        masked = (x * mask)[None]
        lost = y - score_of(net.tail(net.head(masked), masked), c)[0]
        (gradient,) = torch.autograd.grad(lost.abs() if objective == "distance" else lost, parameters)
        for k, g in enumerate(gradient.tolist()):
            m[k] = 0.9 * m[k] + 0.1 * g
            v[k] = 0.999 * v[k] + 0.001 * g * g
            u[k] -= rate * (m[k] / (1 - 0.9**t)) / (math.sqrt(v[k] / (1 - 0.999**t)) + 1e-8)
    grids = [[[relu(value) for value in row] for row in grid] for grid in a.tolist()]
    return combine(softmax(u), grids)
