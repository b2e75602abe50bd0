"""The methods that change the image and look at the scores alone, in loops.

A network is one function in float64, `net`: images (n, 3, H, W) -> scores (n, classes). A formula sees one image x
(3, H, W) and one target c, a class index or a function scores (n,) -> score.
Random draws are float32 from one `torch.Generator().manual_seed(seed)` on the CPU, in this order:
    rise        torch.rand(samples, cells, cells) < p, torch.randint(cell height, (samples,)) first rows of the crops,
                torch.randint(cell width, (samples,)) their first columns; the same for every image
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from tests.formulas import (
    Grid,
    Halves,
    Target,
    combine,
    evidence,
    relu,
    resize,
    scale,
    score_of,
    total,
    zeros,
)
from tests.formulas_scores import softmax

Net = Callable[[Tensor], Tensor]


def scores(net: Net, changed: list[Tensor], c: Target, probability: bool) -> list[float]:
    """y_c, or the softmax probability of class c, of each changed image."""
    with torch.no_grad():
        logits = net(torch.stack(changed))
    if probability and not callable(c):
        return [softmax(row)[c] for row in logits.tolist()]
    return score_of(logits, c).tolist()


def starts(pixels: int, size: int, stride: int) -> list[int]:
    """Patches one after another, until one reaches the end; it may go beyond."""
    found = [0]
    while found[-1] + size < pixels:
        found.append(found[-1] + stride)
    return found


def occlusion(
    net: Net,
    x: Tensor,
    c: Target,
    size: tuple[int, int],
    stride: tuple[int, int],
    value: Tensor | float = 0.0,
    probability: bool = False,
) -> tuple[Grid, list[int], list[int]]:
    """Zeiler and Fergus 2014, sec. 4.2: y - y_p for every position p, and the first rows and columns of the patches."""
    tops, lefts = starts(x.shape[1], size[0], stride[0]), starts(x.shape[2], size[1], stride[1])
    value = torch.as_tensor(value, dtype=torch.float64).expand_as(x) if not isinstance(value, Tensor) else value
    changed = [x.double()]
    for top, left in product(tops, lefts):
        one = x.double().clone()
        for i, j in product(range(x.shape[1]), range(x.shape[2])):
            if top <= i < top + size[0] and left <= j < left + size[1]:
                one[:, i, j] = value[:, i, j]
        changed.append(one)
    y, *found = scores(net, changed, c, probability)
    drops = [y - s for s in found]
    return [drops[r * len(lefts) : (r + 1) * len(lefts)] for r in range(len(tops))], tops, lefts


def mean_of_covering(drops: Grid, tops: list[int], lefts: list[int], size: tuple[int, int], H: int, W: int) -> Grid:
    """At each pixel the mean of the drops of the patches over it."""
    out = zeros(H, W)
    for i, j in product(range(H), range(W)):
        rows = [r for r, top in enumerate(tops) if top <= i < top + size[0]]
        columns = [k for k, left in enumerate(lefts) if left <= j < left + size[1]]
        over = [drops[r][k] for r, k in product(rows, columns)]
        out[i][j] = math.fsum(over) / len(over)
    return out


def at_centers(drops: Grid, tops: list[int], lefts: list[int], size: tuple[int, int], H: int, W: int) -> Grid:
    """The drops stand at the patches' centers; linear in between, and beyond the outer ones as there."""

    def taps(pixel: int, first: list[int], patch: int) -> tuple[int, int, float]:
        centers = [one + (patch - 1) / 2 for one in first]
        if pixel <= centers[0]:
            return 0, 0, 0.0
        for k in range(len(first) - 1):
            if pixel <= centers[k + 1]:
                return k, k + 1, (pixel - centers[k]) / (centers[k + 1] - centers[k])
        return len(first) - 1, len(first) - 1, 0.0

    out = zeros(H, W)
    for i, j in product(range(H), range(W)):
        top, bottom, v = taps(i, tops, size[0])
        left, right, u = taps(j, lefts, size[1])
        upper = (1 - u) * drops[top][left] + u * drops[top][right]
        lower = (1 - u) * drops[bottom][left] + u * drops[bottom][right]
        out[i][j] = (1 - v) * upper + v * lower
    return out


def mirror(index: int, size: int) -> int:
    """An index beyond the ends of 0 .. size - 1, mirrored about the outermost ones."""
    index = index % (2 * (size - 1))
    return 2 * (size - 1) - index if index >= size else index


def rise_masks(H: int, W: int, samples: int, cells: int, p: float, seed: int = 0) -> list[Grid]:
    """Petsiuk et al. 2018, sec. 3.2: s x s grids upsampled to (s + 1) cells of ceil(H / s) pixels, and cropped."""
    g = torch.Generator().manual_seed(seed)
    grids = (torch.rand(samples, cells, cells, generator=g) < p).double().tolist()
    cell = (math.ceil(H / cells), math.ceil(W / cells))
    tops = torch.randint(cell[0], (samples,), generator=g).tolist()
    lefts = torch.randint(cell[1], (samples,), generator=g).tolist()

    def taps(pixel: int, size: int) -> tuple[int, int, float]:
        at = (pixel + 0.5) * cells / ((cells + 1) * size) - 0.5
        low = math.floor(at)
        return mirror(low, cells), mirror(low + 1, cells), at - low

    masks = []
    for grid, first_row, first_column in zip(grids, tops, lefts, strict=True):
        mask = zeros(H, W)
        for i, j in product(range(H), range(W)):
            top, bottom, v = taps(i + first_row, cell[0])
            left, right, u = taps(j + first_column, cell[1])
            upper = (1 - u) * grid[top][left] + u * grid[top][right]
            lower = (1 - u) * grid[bottom][left] + u * grid[bottom][right]
            mask[i][j] = (1 - v) * upper + v * lower
        masks.append(mask)
    return masks


def rise(net: Net, x: Tensor, c: Target, masks: list[Grid], p: float, probability: bool = True) -> Grid:
    """Petsiuk et al. 2018, eq. 6: 1 / (N p) Σ_i s(x * M_i) M_i."""
    found = scores(net, [x.double() * torch.tensor(m, dtype=torch.float64) for m in masks], c, probability)
    out = zeros(*x.shape[1:])
    for score, mask in zip(found, masks, strict=True):
        for i, j in product(range(len(out)), range(len(out[0]))):
            out[i][j] += score * mask[i][j] / (len(masks) * p)
    return out


def blur(x: Tensor, kernel: int, sigma: float) -> Tensor:
    """A Gaussian of kernel x kernel taps, mirrored about the outermost pixels."""
    reach = kernel // 2
    taps = [math.exp(-0.5 * (t / sigma) ** 2) for t in range(-reach, reach + 1)]
    taps = [tap / math.fsum(taps) for tap in taps]
    out = torch.zeros_like(x, dtype=torch.float64)
    H, W = x.shape[1:]
    for i, j in product(range(H), range(W)):
        for (a, u), (b, v) in product(enumerate(taps), enumerate(taps)):
            out[:, i, j] += u * v * x[:, mirror(i + a - reach, H), mirror(j + b - reach, W)].double()
    return out


def groupcam(
    net: Halves,
    x: Tensor,
    c: Target,
    hidden: Tensor,
    groups: int,
    denoise: float = 0.0,
    probability: bool = True,
) -> Grid:
    """Zhang et al. 2021: Σ_l (s_l - s_0)⁺ M_l, M_l = (Σ_(k in l) w_k A_k)⁺, H_l shows the image."""
    a, g = evidence(net, x, c)
    h, w, size = len(a[0]), len(a[0][0]), math.ceil(len(a) / groups)
    weights = [total(grid) / (h * w) for grid in g]
    maps = []
    for first in range(0, len(a), size):
        one = combine(weights[first : first + size], a[first : first + size])
        maps.append([[relu(value) for value in row] for row in one])
    if denoise:
        values = sorted(value for grid in maps for row in grid for value in row)
        at = denoise / 100 * (len(values) - 1)
        low = int(at)
        least = values[low] + (at - low) * (values[min(low + 1, len(values) - 1)] - values[low])
        maps = [[[value if value > least else 0.0 for value in row] for row in grid] for grid in maps]
    changed = [hidden]
    for grid in maps:
        mask = torch.tensor(scale(resize(grid, *x.shape[1:])), dtype=torch.float64)
        changed.append(x.double() * mask + hidden * (1 - mask))
    base, *found = scores(lambda images: net.tail(net.head(images), images), changed, c, probability)
    return combine([relu(one - base) for one in found], maps)
