"""The meta-methods in loops. The method inside runs one version at a time, and its maps are joined in float64.

A `Look` is what they ask: `map`: (1, 3, h, w), c -> the map (h, w) in [0, 1] of the method inside; `score`: of the same
-> the softmax probability of class c.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from tests.formulas import Grid, cells, resize, scale, zeros


class Look(NamedTuple):
    map: Callable[[Tensor, int], Grid]
    score: Callable[[Tensor, int], float]


def image_of(channels: list[Grid]) -> Tensor:
    return torch.tensor(channels, dtype=torch.float64)[None]


def mean_of(grids: list[Grid], weights: list[Grid]) -> Grid:
    """Cell by cell, the weighted mean; zero where all weights are."""
    out = zeros(len(grids[0]), len(grids[0][0]))
    for i, j in cells(out):
        size = math.fsum(w[i][j] for w in weights)
        if size > 0:
            out[i][j] = math.fsum(w[i][j] * g[i][j] for w, g in zip(weights, grids, strict=True)) / size
    return out


def full(grid: Grid, value: float) -> Grid:
    return [[value] * len(row) for row in grid]


# SESS


def corners(length: int, side: int, stride: int) -> list[int]:
    """Steps of the window; the one that would leave the image is moved back, and is the last."""
    found, at = [], 0
    while at + side < length:
        found.append(at)
        at += stride
    return [*found, length - side]


def slides(x: Tensor, scales: list[int], side: int, stride: int) -> Iterator[tuple[Tensor, int, int, int, int]]:
    """Windows (1, 3, side, side) of the scaled image, their corners, and its height and width. x (3, H, W)"""
    H, W = x.shape[-2:]
    for short in scales:
        h, w = (short, int(short * W / H)) if H <= W else (int(short * H / W), short)
        big = image_of([resize(channel, h, w) for channel in x.double().tolist()])
        for top, left in product(corners(h, side, stride), corners(w, side, stride)):
            yield big[..., top : top + side, left : left + side], top, left, h, w


def sess(
    look: Look,
    x: Tensor,
    c: int,
    scales: list[int],
    side: int,
    stride: int,
    pre_filter: float = 0.0,
    theta: float = 0.0,
    fusion: str = "mean",
    blur: bool = True,
) -> Grid:
    """Tursun 2022, as its code does it: windows by rising score, the lowest dropped, the rest weighed and joined."""
    H, W = x.shape[-2:]
    found = [(look.score(one[0], c), *one) for one in slides(x, scales, side, stride)]
    seen = sorted(found, key=lambda one: one[0])
    kept = seen[int(len(seen) * pre_filter) :]
    placed = []
    for p, window, top, left, h, w in kept:
        canvas = zeros(h, w)
        for i, row in enumerate(look.map(window, c)):
            for j, value in enumerate(row):
                canvas[top + i][left + j] = value * p / kept[-1][0]
        placed.append(resize(canvas, H, W))
    out = zeros(H, W)
    for i, j in cells(out):
        values = [grid[i][j] for grid in placed if grid[i][j] > theta + 1e-6]
        if fusion == "max":
            out[i][j] = max(grid[i][j] for grid in placed)
        elif values:
            out[i][j] = math.fsum(values) / len(values)
    return gaussian(out) if blur else out


def gaussian(grid: Grid) -> Grid:
    """11 x 11 pixels, sigma 5; beyond the edge as in a mirror that stands on the edge pixel."""

    def mirrored(i: int, n: int) -> int:
        while not 0 <= i < n:
            i = -i if i < 0 else 2 * (n - 1) - i
        return i

    H, W = len(grid), len(grid[0])
    taps = {(a, b): math.exp(-(a * a + b * b) / 50) for a, b in product(range(-5, 6), repeat=2)}
    whole = math.fsum(taps.values())
    out = zeros(H, W)
    for i, j in cells(out):
        out[i][j] = math.fsum(t * grid[mirrored(i + a, H)][mirrored(j + b, W)] for (a, b), t in taps.items()) / whole
    return out


# EVET


def sampled(grid: Grid, matrix: tuple[float, float, float, float], outside: str) -> Grid:
    """out(p) = grid(M p), p from the center in pixels; bilinear. Outside: "mirror", at the outer edge, or "zero"."""
    H, W = len(grid), len(grid[0])

    def within(at: float, n: int) -> float:
        while not -0.5 <= at <= n - 0.5:
            at = -1 - at if at < -0.5 else 2 * n - 1 - at
        return min(max(at, 0.0), n - 1.0)

    def value(i: int, j: int) -> float:
        return grid[i][j] if 0 <= i < H and 0 <= j < W else 0.0

    out = zeros(H, W)
    for i, j in cells(out):
        x, y = j - (W - 1) / 2, i - (H - 1) / 2
        u, v = matrix[0] * x + matrix[1] * y + (W - 1) / 2, matrix[2] * x + matrix[3] * y + (H - 1) / 2
        if outside == "mirror":
            u, v = within(u, W), within(v, H)
        left, top = math.floor(u), math.floor(v)
        for a, b in product((0, 1), repeat=2):
            share = (v - top if a else 1 - v + top) * (u - left if b else 1 - u + left)
            out[i][j] += share * value(top + a, left + b)
    return out


def moved(grid: Grid, down: int, right: int, outside: str) -> Grid:
    """out[i + down][j + right] = grid[i][j]"""
    H, W = len(grid), len(grid[0])

    def mirrored(i: int, n: int) -> int:
        return -1 - i if i < 0 else 2 * n - 1 - i if i >= n else i

    out = zeros(H, W)
    for i, j in cells(out):
        a, b = i - down, j - right
        if outside == "mirror":
            out[i][j] = grid[mirrored(a, H)][mirrored(b, W)]
        elif 0 <= a < H and 0 <= b < W:
            out[i][j] = grid[a][b]
    return out


def turn(degrees: float) -> tuple[float, float, float, float]:
    """Counterclockwise where y points down: what is shown to the right was below."""
    t = math.radians(degrees)
    return math.cos(t), -math.sin(t), math.sin(t), math.cos(t)


Pair = tuple[Callable[[Grid], Grid], Callable[[Grid], Grid]]


def pairs(H: int, W: int) -> dict[str, list[Pair]]:
    """By name, transformations of a channel and their inverses on a map."""

    def linear(there: tuple[float, float, float, float], back: tuple[float, float, float, float]) -> Pair:
        return lambda grid: sampled(grid, there, "mirror"), lambda grid: sampled(grid, back, "zero")

    def shift(down: int, right: int) -> Pair:
        return lambda grid: moved(grid, down, right, "mirror"), lambda grid: moved(grid, -down, -right, "zero")

    def zoom(s: float) -> Pair:
        return linear((1 / s, 0, 0, 1 / s), (s, 0, 0, s))

    def same(grid: Grid) -> Grid:
        return grid

    def flip(grid: Grid) -> Grid:
        return [row[::-1] for row in grid]

    down, right = round(H / 10), round(W / 10)
    return {
        "identity": [(same, same)],
        "flip": [(flip, flip)],
        "rotate": [linear(turn(a), turn(-a)) for a in (-15, 15)],
        "scale": [zoom(0.8), zoom(1.25)],
        "translate": [shift(0, -right), shift(0, right), shift(-down, 0), shift(down, 0)],
    }


def evet(look: Look, x: Tensor, c: int, names: list[str], by_score: bool = False) -> Grid:
    """mean_t t⁻¹(m(t(x))); a pixel counts as far as t showed it, below 1/1000 not at all."""
    H, W = x.shape[-2:]
    grids, weights = [], []
    for name in names:
        for there, back in pairs(H, W)[name]:
            version = image_of([there(channel) for channel in x.double().tolist()])
            p = look.score(version, c) if by_score else 1.0
            map_ = look.map(version, c)
            seen = [[value if value > 1e-3 else 0.0 for value in row] for row in back(full(map_, 1.0))]
            # What comes back is a sum of shares of pixels already, so it is divided by the shares.
            both = zip(back(map_), seen, strict=True)
            grids.append([[m / s if s else 0.0 for m, s in zip(*rows, strict=True)] for rows in both])
            weights.append([[p * value for value in row] for row in seen])
    return mean_of(grids, weights)


# Means and products


def mean_map(look: Look, versions: list[Tensor], shares: list[float], c: int) -> Grid:
    """Σ_n share_n m(x_n)"""
    grids = [look.map(x, c) for x in versions]
    out = full(grids[0], 0.0)
    for i, j in cells(out):
        out[i][j] = math.fsum(share * grid[i][j] for share, grid in zip(shares, grids, strict=True))
    return out


def product_of(grids: list[Grid]) -> Grid:
    out = full(grids[0], 1.0)
    for grid in grids:
        out = [[a * b for a, b in zip(*rows, strict=True)] for rows in zip(out, grid, strict=True)]
    return out


def tanhmax(raws: list[Grid], H: int, W: int, every: bool) -> Grid:
    """Jiang 2021: max over layers of up(M / max M), in shallow ones of up(tanh(2 M / max M))."""
    out = zeros(H, W)
    for raw in raws:
        top = max(0.0, *(value for row in raw for value in row)) or 1.0
        shallow = every or (len(raw) * 8 >= H and len(raw[0]) * 8 >= W)
        share = [[max(value, 0.0) / top for value in row] for row in raw]
        share = [[math.tanh(2 * value) for value in row] for row in share] if shallow else share
        up = resize(share, H, W)
        out = [[max(a, b) for a, b in zip(*rows, strict=True)] for rows in zip(out, up, strict=True)]
    return out


def finished(grid: Grid) -> Tensor:
    return torch.tensor(scale(grid), dtype=torch.float64)
