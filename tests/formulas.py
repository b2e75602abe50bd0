"""Every method again, straight from its paper: plain loops in float64, with nothing of fastcam inside.

A network is given as its two halves around the explained layer, both in float64:
    head: images (B, 3, H, W) -> activations A (B, C, h, w)
    tail: A (N, C, h, w), the images they came from (N, 3, H, W) -> scores (N, n)
`explain` loops over the images; a formula sees one image x (3, H, W) and one target c, a class index or a
function scores (n,) -> score, and returns the signed map (h, w) before it is clipped, resized and scaled.
Autograd is asked for dy/dA only. The families are in this file (activations, gradients), `formulas_scores.py`
(masks and ablations), `formulas_samples.py` (noise, path) and `formulas_rescale.py` (DeepLIFT).

Random draws are float32 from one `torch.Generator().manual_seed(seed)` on the CPU, in this order:
    sscam            for each image, for each channel that is not constant, then once for its constant ones
                     where they are scored: torch.randn(samples, *shape), shape (H, W) for type "activation"
                     and (3, H, W) for "input"; times the standard deviation
    smoothgradcampp  for each sample: torch.randn(B, 3, H, W); times spread * (max x - min x) of each image
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

Grid = list[list[float]]
Target = int | Callable[[Tensor], Tensor]


class Halves(NamedTuple):
    """A network cut at the explained layer; `weight` (n, C) is its classifier where `cam` is asked."""

    head: Callable[[Tensor], Tensor]
    tail: Callable[[Tensor, Tensor], Tensor]
    weight: Tensor | None = None


def zeros(h: int, w: int) -> Grid:
    return [[0.0] * w for _ in range(h)]


def cells(grid: Grid) -> Iterator[tuple[int, int]]:
    return product(range(len(grid)), range(len(grid[0])))


def total(grid: Grid) -> float:
    return math.fsum(value for row in grid for value in row)


def relu(value: float) -> float:
    return max(value, 0.0)


def ratio(numerator: float, denominator: float) -> float:
    """0/0 and x/0 are 0."""
    return numerator / denominator if denominator != 0 else 0.0


def combine(weights: list[float], maps: list[Grid]) -> Grid:
    """L_ij = Σ_k w_k A_kij, the form of every CAM (Zhou et al. 2016, eq. 2)."""
    out = zeros(len(maps[0]), len(maps[0][0]))
    for weight, grid in zip(weights, maps, strict=True):
        for i, j in cells(grid):
            out[i][j] += weight * grid[i][j]
    return out


def resize(grid: Grid, H: int, W: int) -> Grid:
    """Bilinear with half-pixel centers: output row i reads row (i + 1/2) h/H - 1/2, kept within the map."""

    def taps(out: int, size: int, of: int) -> tuple[int, int, float]:
        at = min(max((out + 0.5) * size / of - 0.5, 0.0), size - 1.0)
        low = int(at)
        return low, min(low + 1, size - 1), at - low

    result = zeros(H, W)
    for i, j in cells(result):
        top, bottom, v = taps(i, len(grid), H)
        left, right, u = taps(j, len(grid[0]), W)
        upper = (1 - u) * grid[top][left] + u * grid[top][right]
        lower = (1 - u) * grid[bottom][left] + u * grid[bottom][right]
        result[i][j] = (1 - v) * upper + v * lower
    return result


def extent(grid: Grid) -> tuple[float, float]:
    return min(min(row) for row in grid), max(max(row) for row in grid)


def scale(grid: Grid) -> Grid:
    """(m - min) / (max - min); a constant map is all zero."""
    low, high = extent(grid)
    return [[ratio(value - low, high - low) for value in row] for row in grid]


def finish(raw: Tensor, size: tuple[int, int], clip: str = "before") -> Tensor:
    """The map a user sees (..., H, W) from raw (..., h, w): ReLU before, after or never; resize; min-max."""
    maps = []
    for grid in raw.double().reshape(-1, *raw.shape[-2:]).tolist():
        out = [[relu(value) for value in row] for row in grid] if clip == "before" else grid
        out = resize(out, *size)
        out = [[relu(value) for value in row] for row in out] if clip == "after" else out
        maps.append(scale(out))
    return torch.tensor(maps, dtype=torch.float64).reshape(*raw.shape[:-2], *size)


def score_of(scores: Tensor, c: Target) -> Tensor:
    """y_c: one score of each row of (N, n)."""
    return torch.stack([c(row) for row in scores]) if callable(c) else scores[:, c]


def score(net: Halves, activations: Tensor, x: Tensor, c: Target) -> list[float]:
    """y_c of the tail on activations (N, C, h, w) of one image."""
    with torch.no_grad():
        return score_of(net.tail(activations, x.expand(len(activations), *x.shape)), c).tolist()


def activations_of(net: Halves, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net.head(x[None])[0]


def evidence(net: Halves, x: Tensor, c: Target) -> tuple[list[Grid], list[Grid]]:
    """A and g = dy_c/dA, each C grids."""
    a = activations_of(net, x).clone().requires_grad_()
    with torch.enable_grad():
        y = score_of(net.tail(a[None].clone(), x[None]), c)[0]
        (g,) = torch.autograd.grad(y, a)
    return a.tolist(), g.tolist()


def cam(net: Halves, x: Tensor, c: int) -> Grid:
    """Zhou et al. 2016, eq. 2: Σ_k W_ck A_k; the bias and a ReLU have no part in it."""
    assert net.weight is not None
    return combine(net.weight[c].tolist(), activations_of(net, x).tolist())


def gradcam(net: Halves, x: Tensor, c: Target) -> Grid:
    """Selvaraju et al. 2017, eq. 1: α_k = (1/Z) Σ_ij ∂y/∂A_kij."""
    a, g = evidence(net, x, c)
    return combine([total(grid) / (len(grid) * len(grid[0])) for grid in g], a)


def gradcampp_weights(a: list[Grid], g: list[Grid], variant: str = "paper", eps: float = 0.0) -> list[float]:
    """Chattopadhay et al. 2018, eqs. 10, 19: w_k = Σ_ij α_kij (g)⁺, α = g² / (2 g² + Σ_ab A_kab g³).

    For Y = exp(y) the exponential leaves α and is a common factor of w. "official": the authors' code divides
    α by its own sum over the cells of positive gradient.
    """
    weights = []
    for activation, gradient in zip(a, g, strict=True):
        mass = total(activation)
        alpha = zeros(len(activation), len(activation[0]))
        for i, j in cells(alpha):
            slope = gradient[i][j]
            below = 2 * slope**2 + mass * slope**3 + eps
            alpha[i][j] = slope**2 / (below if below != 0 else 1.0)
        if variant == "official":
            norm = math.fsum(alpha[i][j] for i, j in cells(alpha) if gradient[i][j] > 0)
            alpha = [[value / (norm if norm != 0 else 1.0) for value in row] for row in alpha]
        weights.append(math.fsum(alpha[i][j] * relu(gradient[i][j]) for i, j in cells(alpha)))
    return weights


def gradcampp(net: Halves, x: Tensor, c: Target, variant: str = "paper", eps: float = 0.0) -> Grid:
    a, g = evidence(net, x, c)
    return combine(gradcampp_weights(a, g, variant, eps), a)


def xgradcam(net: Halves, x: Tensor, c: Target, eps: float = 0.0) -> Grid:
    """Fu et al. 2020, eq. 8: w_k = Σ_ij (A_kij / Σ_ab A_kab) g_kij."""
    a, g = evidence(net, x, c)
    weights = []
    for activation, gradient in zip(a, g, strict=True):
        above = math.fsum(activation[i][j] * gradient[i][j] for i, j in cells(activation))
        weights.append(ratio(above, total(activation) + eps))
    return combine(weights, a)


def elementwise(net: Halves, x: Tensor, c: Target, term: Callable[[float, float], float]) -> Grid:
    """L_ij = Σ_k term(A_kij, g_kij)."""
    a, g = evidence(net, x, c)
    out = zeros(len(a[0]), len(a[0][0]))
    for activation, gradient in zip(a, g, strict=True):
        for i, j in cells(out):
            out[i][j] += term(activation[i][j], gradient[i][j])
    return out


def layercam(net: Halves, x: Tensor, c: Target) -> Grid:
    """Jiang et al. 2021, eqs. 5-7: Σ_k (g)⁺ A."""
    return elementwise(net, x, c, lambda a, g: relu(g) * a)


def hirescam(net: Halves, x: Tensor, c: Target) -> Grid:
    """Draelos & Carin 2020, eq. 3: Σ_k g ⊙ A."""
    return elementwise(net, x, c, lambda a, g: g * a)


def gradcamelementwise(net: Halves, x: Tensor, c: Target) -> Grid:
    """Σ_k (g ⊙ A)⁺, as in pytorch-grad-cam."""
    return elementwise(net, x, c, lambda a, g: relu(g * a))


def first_component(maps: list[Grid], centered: bool) -> Grid:
    """O v₁: the cells of O (Z, C) projected on its first right singular vector, with <O v₁, Σ_k O_k> >= 0.

    v₁ leads OᵀO, so it spans the columns of (OᵀO)^(2^n): the matrix is squared until one direction is left.
    """
    h, w, C = len(maps[0]), len(maps[0][0]), len(maps)
    rows = [[grid[i][j] for grid in maps] for i in range(h) for j in range(w)]
    sums = [math.fsum(row) for row in rows]
    if centered:
        means = [total(grid) / (h * w) for grid in maps]
        rows = [[value - mean for value, mean in zip(row, means, strict=True)] for row in rows]
    o = torch.tensor(rows, dtype=torch.float64)
    power = o.T @ o
    if power.abs().max() == 0:
        return zeros(h, w)
    for _ in range(40):
        power = power / power.abs().max()
        power = power @ power
    v = power[:, max(range(C), key=lambda k: float(power[k, k]))]
    v = v / math.sqrt(float(v @ v))
    projected = [math.fsum(r * float(s) for r, s in zip(row, v, strict=True)) for row in rows]
    sign = math.fsum(p * s for p, s in zip(projected, sums, strict=True)) or max(projected, key=abs)
    flip = -1.0 if sign < 0 else 1.0
    return [[flip * projected[i * w + j] for j in range(w)] for i in range(h)]


def eigencam(net: Halves, x: Tensor, c: Target, centered: bool = False) -> Grid:
    """Muhammad & Yeasin 2020, eqs. 2-3: the activations projected on their first principal component."""
    return first_component(activations_of(net, x).tolist(), centered)


def eigengradcam(net: Halves, x: Tensor, c: Target, centered: bool = True) -> Grid:
    """Eigen-CAM of g ⊙ A (pytorch-grad-cam, which centers)."""
    a, g = evidence(net, x, c)
    maps = [[[p * q for p, q in zip(*rows, strict=True)] for rows in zip(*pair, strict=True)]
            for pair in zip(a, g, strict=True)]  # fmt: skip
    return first_component(maps, centered)


def explain(formula: Callable[..., Grid], net: Halves, images: Tensor, targets: list[Target], **options) -> Tensor:
    """The raw maps (B, h, w) of one formula."""
    x = images.double()
    maps = [formula(net, image, c, **options) for image, c in zip(x, targets, strict=True)]
    return torch.tensor(maps, dtype=torch.float64)
