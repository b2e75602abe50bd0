"""Components, peaks, differences of classes and second derivatives, straight from their papers: see `formulas.py`."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tests import formulas
from tests.formulas import Grid, Halves, Target, activations_of, cells, combine, evidence, first_component, total

STEP = 1e-5  # of the difference that stands for the derivative of the gradient, in parts of A


def activationmap(net: Halves, x: Tensor, c: Target) -> Grid:
    """OpenVINO XAI: the mean of the channels."""
    a = activations_of(net, x).tolist()
    return combine([1 / len(a)] * len(a), a)


def fem(net: Halves, x: Tensor, c: Target, variant: str = "paper", k: float = 2.0) -> Grid:
    """Fuad et al. 2020: B_kij = [A_kij >= mu_k + K sigma_k], L = Σ_k mu_k B_k.

    "fraction": pytorch-grad-cam, L = Σ_k (share of cells above the threshold) A_k.
    """
    a = activations_of(net, x).tolist()
    out = formulas.zeros(len(a[0]), len(a[0][0]))
    for grid in a:
        values = [value for row in grid for value in row]
        same = min(values) == max(values)  # such a channel stands on its threshold
        mean = values[0] if same else math.fsum(values) / len(values)
        sigma = 0.0 if same else math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
        above = sum(value > mean + k * sigma for value in values) / len(values)
        for i, j in cells(out):
            if variant == "fraction":
                out[i][j] += above * grid[i][j]
            elif grid[i][j] >= mean + k * sigma:
                out[i][j] += mean
    return out


def kernel_of(p: list[float], q: list[float], kernel: str, gamma: float) -> float:
    """One entry of the kernel matrix, as scikit-learn defines them."""
    product = math.fsum(a * b for a, b in zip(p, q, strict=True))
    if kernel == "rbf":
        return math.exp(-gamma * math.fsum((a - b) ** 2 for a, b in zip(p, q, strict=True)))
    if kernel == "cosine":
        return product / math.sqrt(math.fsum(a * a for a in p) * math.fsum(b * b for b in q))
    return {"sigmoid": math.tanh(gamma * product + 1), "poly": (gamma * product + 1) ** 3, "linear": product}[kernel]


def kpcacam(net: Halves, x: Tensor, c: Target, kernel: str = "sigmoid", gamma: float | None = None) -> Grid:
    """Karmani et al. 2024: the first component of a kernel PCA of the cells, whose channels are centered first.

    The leading eigenvector of the centered kernel is what is left of a power of it; a shift makes its leading
    eigenvalue the largest in size as well, since a sigmoid has negative ones.
    """
    maps = activations_of(net, x).tolist()
    h, w = len(maps[0]), len(maps[0][0])
    means = [total(grid) / (h * w) for grid in maps]
    rows = [[grid[i][j] - mean for grid, mean in zip(maps, means, strict=True)] for i in range(h) for j in range(w)]
    sums = [math.fsum(grid[i][j] for grid in maps) for i in range(h) for j in range(w)]
    gamma = 1 / len(maps) if gamma is None else gamma
    matrix = [[kernel_of(p, q, kernel, gamma) for q in rows] for p in rows]
    n = len(rows)
    column = [math.fsum(row) / n for row in matrix]
    every = math.fsum(column) / n
    centered = torch.tensor(
        [[matrix[p][q] - column[p] - column[q] + every for q in range(n)] for p in range(n)], dtype=torch.float64
    )
    power = centered + float(centered.abs().sum(0).max()) * torch.eye(n, dtype=torch.float64)
    for _ in range(40):
        power = power / power.abs().max()
        power = power @ power
    v = power[:, max(range(n), key=lambda p: float(power[p, p]))]
    v = v / math.sqrt(float(v @ v))
    size = math.sqrt(max(float(v @ centered @ v), 0.0))
    projected = [size * float(value) for value in v]
    sign = math.fsum(p * s for p, s in zip(projected, sums, strict=True)) or max(projected, key=abs)
    flip = -1.0 if sign < 0 else 1.0
    return [[flip * projected[i * w + j] for j in range(w)] for i in range(h)]


def segeigencam(net: Halves, x: Tensor, c: Target) -> Grid:
    """Chung & Ying 2025, eqs. 10-13: O = |g| ⊙ A, centered, on its first direction; its larger side is positive."""
    a, g = evidence(net, x, c)
    maps = [[[p * abs(q) for p, q in zip(*rows, strict=True)] for rows in zip(*pair, strict=True)]
            for pair in zip(a, g, strict=True)]  # fmt: skip
    grid = first_component(maps, centered=True)
    values = [value for row in grid for value in row]
    flip = -1.0 if abs(min(values)) > abs(max(values)) else 1.0
    return [[flip * value for value in row] for row in grid]


BASES = {name: getattr(formulas, name) for name in ("gradcam", "gradcampp", "xgradcam", "layercam", "hirescam")}


def difference(
    net: Halves, x: Tensor, c: int, variant: str, alpha: float | None, references: int
) -> Callable[[Tensor], Tensor]:
    """The score of Finer-CAM, a function of the scores of one row."""
    with torch.no_grad():
        own = net.tail(net.head(x[None]), x[None])[0].tolist()
    others = sorted((d for d in range(len(own)) if d != c), key=lambda d: abs(own[d] - own[c]))[:references]

    def paper(row: Tensor) -> Tensor:
        share = 0.6 if alpha is None else alpha
        return row[c] - share * sum(row[d] for d in others) / len(others)

    def official(row: Tensor) -> Tensor:
        share = 1.0 if alpha is None else alpha
        p = [torch.exp(row[d]) / sum(torch.exp(value) for value in row) for d in others]
        above = sum(weight * (row[c] - share * row[d]) for weight, d in zip(p, others, strict=True))
        return above / (sum(p) + 1e-9)

    return paper if variant == "paper" else official


def finercam(
    net: Halves,
    x: Tensor,
    c: int,
    base: str = "gradcam",
    variant: str = "paper",
    alpha: float | None = None,
    references: int = 3,
) -> Grid:
    """Zhang et al. 2025: Grad-CAM, or another, of y_c - γ (1/T) Σ_t y_d_t. "official": weighed by probabilities."""
    return BASES[base](net, x, difference(net, x, c, variant, alpha, references))


def utility(c: int, score: str) -> Callable[[Tensor], Tensor]:
    """Cai 2025: ReST, y_c + log p_c; or y_c; or p_c."""

    def log_probability(row: Tensor) -> Tensor:
        return row[c] - torch.log(sum(torch.exp(value - row.max().detach()) for value in row)) - row.max().detach()

    return {
        "rest": lambda row: row[c] + log_probability(row),
        "logit": lambda row: row[c],
        "probability": lambda row: torch.exp(log_probability(row)),
    }[score]  # fmt: skip


def shapleycam(net: Halves, x: Tensor, c: Target, score: str = "rest") -> Grid:
    """Cai 2025: w_k = (1/Z) Σ_ij (g - H A / 2)_kij, H A the change of the gradient along A, as a difference."""
    s = c if callable(c) else utility(c, score)
    a, g = evidence(net, x, s)

    def gradient(scale: float) -> list[Grid]:
        moved = (activations_of(net, x) * scale).requires_grad_()
        with torch.enable_grad():
            (found,) = torch.autograd.grad(s(net.tail(moved[None].clone(), x[None])[0]), moved)
        return found.tolist()

    above, below = gradient(1 + STEP), gradient(1 - STEP)
    weights = []
    for k, grid in enumerate(g):
        h = (total(above[k]) - total(below[k])) / (2 * STEP)
        weights.append((total(grid) - h / 2) / (len(grid) * len(grid[0])))
    return combine(weights, a)
