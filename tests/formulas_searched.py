"""AISE in loops, with a DIRECT of its own: rectangles as they are drawn, each tried against every other."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from tests.formulas import Grid, Target, zeros
from tests.formulas_perturbed import Net, scores


class Rectangle(NamedTuple):
    x: Fraction
    y: Fraction
    width: Fraction
    height: Fraction
    value: float

    @property
    def size(self) -> float:
        """From the center to a corner."""
        return math.sqrt(self.width**2 + self.height**2) / 2


def optimal(one: Rectangle, rectangles: list[Rectangle], eps: float) -> bool:
    """Jones et al. 1993, def. 4.1: for some K > 0, f - K d is the least of all and gains eps of the least value."""
    low, high = 0.0, math.inf
    for other in rectangles:
        if abs(other.size - one.size) < 1e-12:
            if other.value < one.value - 1e-13:
                return False
        elif other.size < one.size:
            low = max(low, (one.value - other.value) / (one.size - other.size))
        else:
            high = min(high, (other.value - one.value) / (other.size - one.size))
    least = min(other.value for other in rectangles)
    if high <= 0 or low > high:
        return False
    return high == math.inf or one.value - high * one.size <= least - eps * abs(least)


def direct(function: Callable[[float, float], float], count: int, eps: float) -> list[tuple[float, float, float]]:
    """The first `count` points (x, y, value) that DIRECT looks at on the unit square."""
    half = Fraction(1, 2)
    rectangles = [Rectangle(half, half, Fraction(1), Fraction(1), function(0.5, 0.5))]
    seen = [(0.5, 0.5, rectangles[0].value)]
    while len(seen) < count:
        chosen = [one for one in rectangles if optimal(one, rectangles, eps)]
        for one in sorted(chosen, key=lambda r: -r.size):
            longest = max(one.width, one.height)
            step, pairs = longest / 3, []
            for axis in ("x", "y"):
                if (one.width if axis == "x" else one.height) < longest:
                    continue
                pair = []
                for side in (1, -1):
                    x = one.x + side * step * (axis == "x")
                    y = one.y + side * step * (axis == "y")
                    pair.append((x, y, function(float(x), float(y))))
                    seen.append((float(x), float(y), pair[-1][2]))
                pairs.append((axis, pair))
            width, height = one.width, one.height
            rectangles.remove(one)
            for axis, pair in sorted(pairs, key=lambda p: min(value for _, _, value in p[1])):
                width, height = (width / 3, height) if axis == "x" else (width, height / 3)
                rectangles += [Rectangle(x, y, width, height, value) for x, y, value in pair]
            rectangles.append(Rectangle(one.x, one.y, width, height, one.value))
    return seen[:count]


def window(x: float, y: float, sigma: float, H: int, W: int) -> Grid:
    """A Gaussian around (x, y) in [0, 1] from the first pixel to the last, over its largest value."""
    across = [j / (W - 1) for j in range(W)]
    down = [i / (H - 1) for i in range(H)]
    grid = [[math.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * sigma**2)) for u in across] for v in down]
    most = max(map(max, grid))
    return [[value / most for value in row] for row in grid]


def aise(
    net: Net,
    x: Tensor,
    c: Target,
    samples: int,
    widths: list[float],
    eps: float = 0.1,
    objective: str = "both",
    estimate: str = "mean",
    probability: bool = True,
) -> Grid:
    """The mean over σ of Σ v_i G_i / Σ G_i; "sum" is OpenVINO XAI's Σ_σ K_σ / max K_σ with K_σ = Σ v_i G_i."""
    H, W = x.shape[1:]

    def lost(sigma: float, u: float, v: float) -> float:
        mask = torch.tensor(window(u, v, sigma, H, W), dtype=torch.float64)
        kept, removed = scores(net, [x * mask, x * (1 - mask)], c, probability)
        return -{"both": kept - removed, "keep": kept, "remove": -removed}[objective]

    out = zeros(H, W)
    for sigma in widths:
        one, mass = zeros(H, W), zeros(H, W)
        for u, v, value in direct(lambda u, v, sigma=sigma: lost(sigma, u, v), samples, eps):
            mask = window(u, v, sigma, H, W)
            for i, j in product(range(H), range(W)):
                one[i][j] -= value * mask[i][j]
                mass[i][j] += mask[i][j]
        most = max(map(max, one))
        for i, j in product(range(H), range(W)):
            if estimate == "mean":
                out[i][j] += one[i][j] / mass[i][j] / len(widths)
            else:
                out[i][j] += one[i][j] / most if most > 0 else one[i][j]
    return out
