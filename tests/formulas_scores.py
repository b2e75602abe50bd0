"""The methods that ask for scores only, in loops: masks on the image, channels and cells of the layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.formulas import (
    Grid,
    Halves,
    Target,
    activations_of,
    combine,
    extent,
    ratio,
    resize,
    scale,
    score,
    score_of,
    zeros,
)


def softmax(values: list[float]) -> list[float]:
    top = max(values)
    powers = [math.exp(value - top) for value in values]
    return [power / math.fsum(powers) for power in powers]


def image_scores(net: Halves, changed: list[Tensor], c: Target) -> list[float]:
    """y_c of changed images, each through the whole network."""
    x = torch.stack(changed)
    with torch.no_grad():
        return score_of(net.tail(net.head(x), x), c).tolist()


def image_probabilities(net: Halves, changed: list[Tensor], c: int) -> list[float]:
    x = torch.stack(changed)
    with torch.no_grad():
        return [softmax(row)[c] for row in net.tail(net.head(x), x).tolist()]


def masks_of(net: Halves, x: Tensor) -> tuple[list[Grid], list[Grid], list[bool]]:
    """A_k, up(A_k) at the image's size, and whether A_k is constant."""
    a = activations_of(net, x).tolist()
    up = [resize(grid, *x.shape[-2:]) for grid in a]
    return a, up, [extent(grid)[0] == extent(grid)[1] for grid in a]


def times(x: Tensor, mask: Grid, factor: float = 1.0) -> Tensor:
    return x * factor * torch.tensor(mask, dtype=torch.float64)


def scorecam(net: Halves, x: Tensor, c: Target, variant: str = "paper") -> Grid:
    """Wang et al. 2020, Algorithm 1: s_k = y_c(x ⊙ H_k), H_k = mm(up(A_k)), w = softmax_k(s - y_c(baseline)).

    The baseline leaves the softmax. "official": w_k = P_c(x ⊙ H_k), and a constant channel is skipped.
    """
    a, up, flat = masks_of(net, x)
    masked = [times(x, zeros(*x.shape[-2:]) if flat[k] else scale(grid)) for k, grid in enumerate(up)]
    if variant == "paper":
        return combine(softmax(image_scores(net, masked, c)), a)
    assert isinstance(c, int)
    probabilities = image_probabilities(net, masked, c)
    return combine([0.0 if flat[k] else p for k, p in enumerate(probabilities)], a)


def sscam(
    net: Halves,
    x: Tensor,
    c: Target,
    generator: torch.Generator,
    type: str = "activation",  # noqa: A002 - the method's own option
    variant: str = "paper",
    samples: int = 35,
    std: float = 2.0,
) -> Grid:
    """Naidu et al. 2020, SS-CAM (1) noise on the mask and (2) noise on the masked input.

    paper: w = softmax_k of mean_n y_c(x ⊙ (H_k + e)) or y_c(x ⊙ H_k + e), e ~ N(0, std).
    official: masks up(A_k) as they are for (1); e has standard deviation sigma², sigma = 2 / (max - min) of
    what it is added to; w_k = mean_n P_c, no softmax over channels, what is constant is skipped.
    """
    a, up, flat = masks_of(net, x)
    shape = x.shape[-2:] if type == "activation" else x.shape
    means: list[float] = [0.0] * len(a)
    constant: float | None = None
    for k in [*(k for k in range(len(a)) if not flat[k]), *(k for k in range(len(a)) if flat[k])]:
        if flat[k] and variant == "official":
            continue
        if flat[k] and constant is not None:
            means[k] = constant
            continue
        mask = up[k] if variant == "official" and type == "activation" else scale(up[k])
        mask = zeros(*x.shape[-2:]) if flat[k] else mask
        base = torch.tensor(mask, dtype=torch.float64) if type == "activation" else times(x, mask)
        spread = float(base.max() - base.min())
        sigma = std if variant == "paper" else ratio(2.0, spread) ** 2
        noise = torch.randn(samples, *shape, generator=generator).double() * sigma
        noisy = [x * (base + e) if type == "activation" else base + e for e in noise]
        scores = (image_scores if variant == "paper" else image_probabilities)(net, noisy, c)  # type: ignore[arg-type]
        means[k] = math.fsum(scores) / samples if variant == "paper" or spread != 0 else 0.0
        constant = means[k] if flat[k] else constant
    return combine(softmax(means) if variant == "paper" else means, a)


def iscam(net: Halves, x: Tensor, c: Target, schedule: str = "cumulative", samples: int = 10) -> Grid:
    """Naidu et al. 2020, IS-CAM: w = softmax_k of mean_i y_c(c_i x ⊙ H_k).

    cumulative: c_i = Σ_{j<=i} j/N, the sum over the path written out; linear: c_i = i/N, a plain Riemann sum.
    """
    a, up, flat = masks_of(net, x)
    weights = []
    for k, grid in enumerate(up):
        mask = zeros(*x.shape[-2:]) if flat[k] else scale(grid)
        factor, scaled = 0.0, []
        for i in range(1, samples + 1):
            factor = factor + i / samples if schedule == "cumulative" else i / samples
            scaled.append(times(x, mask, factor))
        weights.append(math.fsum(image_scores(net, scaled, c)) / samples)
    return combine(softmax(weights), a)


def ablationcam(net: Halves, x: Tensor, c: Target, divide: str = "score") -> Grid:
    """Desai & Ramaswamy 2020, eq. 5: w_k = (y - y^(k)) / y, where y^(k) is the score with A_k = 0."""
    a = activations_of(net, x)
    (y,) = score(net, a[None], x, c)
    below = {"score": y, "magnitude": abs(y), "none": 1.0}[divide] or 1.0
    weights = []
    for k in range(len(a)):
        ablated = a.clone()
        ablated[k] = 0.0
        (without,) = score(net, ablated[None], x, c)
        weights.append((y - without) / below)
    return combine(weights, a.tolist())


def reciprocam(net: Halves, x: Tensor, c: Target, kernel: str = "point", answer: str = "probability") -> Grid:
    """Byun & Lee 2024, eqs. 1-4: the score when only the features around one cell are left, for each cell.

    point: A at the cell. gaussian: the cell's own vector on the 3 x 3 cells around it, times the kernel
    1/16 [[1,2,1],[2,4,2],[1,2,1]]. neighbors: each neighbor's own vector times it. It is cut at the border.
    """
    a = activations_of(net, x)
    _, h, w = a.shape
    out = zeros(h, w)
    for i in range(h):
        for j in range(w):
            kept = torch.zeros_like(a)
            for di in (-1, 0, 1):
                for dj in (-1, 0, 1):
                    u, v = i + di, j + dj
                    if not (0 <= u < h and 0 <= v < w) or (kernel == "point" and (di or dj)):
                        continue
                    share = 1.0 if kernel == "point" else 2.0 ** -(2 + abs(di) + abs(dj))
                    kept[:, u, v] = share * (a[:, u, v] if kernel == "neighbors" else a[:, i, j])
            with torch.no_grad():
                scores = net.tail(kept[None], x[None])
            if answer == "probability" and not callable(c):
                out[i][j] = softmax(scores[0].tolist())[c]
            else:
                out[i][j] = float(score_of(scores, c)[0])
    return out
