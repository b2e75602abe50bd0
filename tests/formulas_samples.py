"""The methods that see many images, in loops: under noise, along a path from a baseline; and chance."""

from __future__ import annotations

import math

from torch import Tensor

from tests.formulas import (
    Grid,
    Halves,
    Target,
    activations_of,
    cells,
    combine,
    evidence,
    gradcampp_weights,
    relu,
    total,
    zeros,
)


def smoothgradcampp(
    net: Halves,
    x: Tensor,
    c: Target,
    noise: Tensor,
    mode: str = "derivatives",
    variant: str = "paper",
    eps: float = 0.0,
) -> Grid:
    """Omeiza et al. 2019, eqs. 8-11: D_p = mean_n g_n^p over the images x + e_n; noise e (samples, 3, H, W).

    derivatives: α = D₁ / (2 D₂ + Σ_ab A_ab D₃) with the clean A, w_k = Σ_ij α (D₁)⁺, map Σ_k w_k A_k.
    "corrected": D₂ above, the second derivative the formula of Grad-CAM++ has there. eps is added below.
    maps: the mean of the finished (ReLU) Grad-CAM++ maps of the noisy images.
    """
    seen = [evidence(net, x + e, c) for e in noise.double()]
    count = len(seen)
    a = activations_of(net, x).tolist()
    if mode == "maps":
        out = zeros(len(a[0]), len(a[0][0]))
        for noisy, gradient in seen:
            one = combine(gradcampp_weights(noisy, gradient), noisy)
            for i, j in cells(out):
                out[i][j] += relu(one[i][j]) / count
        return out
    weights = []
    for k, activation in enumerate(a):
        mass, weight = total(activation), 0.0
        for i, j in cells(activation):
            d1, d2, d3 = (math.fsum(g[k][i][j] ** p for _, g in seen) / count for p in (1, 2, 3))
            below = 2 * d2 + mass * d3 + eps
            weight += (d1 if variant == "paper" else d2) / (below if below != 0 else 1.0) * relu(d1)
        weights.append(weight)
    return combine(weights, a)


def path(samples: int, rule: str) -> list[tuple[float, float]]:
    """(position, weight) of each point between baseline 0 and image 1; the weights add up to one."""
    if rule == "trapezoid":
        inner = 1.0 / (samples - 1)
        return [(i * inner, inner / 2 if i in {0, samples - 1} else inner) for i in range(samples)]
    shift = {"left": 0.0, "midpoint": 0.5, "right": 1.0}[rule]
    return [((i + shift) / samples, 1.0 / samples) for i in range(samples)]


def integratedgradcam(
    net: Halves,
    x: Tensor,
    c: Target,
    base: Tensor | None = None,
    variant: str = "paper",
    samples: int = 50,
    rule: str = "left",
) -> Grid:
    """Sattarzadeh et al. 2021, eqs. 5-7: ∫ (Σ_k w_k(x_t) (A_k(x_t) - A_k(x_0)))⁺ dt, w the mean gradient.

    "official": the authors' code subtracts no A(x_0).
    """
    base = x * 0 if base is None else base.double()
    start = activations_of(net, base).tolist()
    out = zeros(len(start[0]), len(start[0][0]))
    for position, share in path(samples, rule):
        a, g = evidence(net, base + position * (x - base), c)
        one = zeros(len(out), len(out[0]))
        for k, activation in enumerate(a):
            weight = total(g[k]) / (len(out) * len(out[0]))
            for i, j in cells(one):
                one[i][j] += weight * (activation[i][j] - (start[k][i][j] if variant == "paper" else 0.0))
        for i, j in cells(out):
            out[i][j] += share * relu(one[i][j])
    return out


def randomcam(net: Halves, x: Tensor, c: Target, weights: Tensor) -> Grid:
    """A baseline that knows nothing: Σ_k w_k A_k with the given weights, drawn from U(-1, 1)."""
    return combine(weights.tolist(), activations_of(net, x).tolist())
