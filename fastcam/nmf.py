"""Non-negative matrix factorization V = W H: from the singular vectors, row by row, the same on every run."""

from __future__ import annotations

import torch
from torch import Tensor

OVERSAMPLED = 10  # directions beyond the components that the search for singular vectors carries along
POWERS = 7  # times it goes through V and back; each shrinks what smaller singular values leave behind


def factor(v: Tensor, components: int, steps: int, tolerance: float) -> tuple[Tensor, Tensor, float, int]:
    """W, H = argmin |V - W H|², W and H not negative, one row after the other at its best: HALS, Cichocki 2009, alg. 2.

    Args:
        v: (N, C), not negative.
        components: K, at most N and C.
        steps: updates of both factors, at most.
        tolerance: stop once a step lowers |V - W H| by no more than this share of it.

    Returns:
        W (N, K), each column at most 1; H (K, C); |V - W H| / |V|; and the steps taken. The components are in the
        order of |W_k| |H_k|, the largest first.
    """
    total = float(v.square().sum(dtype=torch.float64))
    w, h = start(v, components)
    error, taken = total, 0
    while taken < steps and total > 0:
        update(w, h @ v.T, h @ h.T)
        mixed, gram = w @ v, w @ w.T
        update(h, mixed, gram)
        after = total - 2 * dot(h, mixed) + dot(gram, h @ h.T)
        before, error, taken = error, max(after, 0.0), taken + 1
        if before**0.5 - error**0.5 <= tolerance * before**0.5:
            break
    peaks = w.amax(1, keepdim=True)
    w, h = w / peaks.masked_fill(peaks == 0, 1), h * peaks
    order = (w.norm(dim=1) * h.norm(dim=1)).argsort(descending=True, stable=True)
    w, h = w[order].T, h[order]
    # From the residual itself: as a difference of squares, which is enough to stop by, it loses half the digits.
    return w, h, float((v - w @ h).norm()) / total**0.5 if total > 0 else 0.0, taken


def dot(a: Tensor, b: Tensor) -> float:
    """The sum of the products, in float64."""
    return float((a.double() * b.double()).sum())


def update(rows: Tensor, mixed: Tensor, gram: Tensor) -> None:
    """R_k = max(0, R_k + (M_k - G_k R) / G_kk), in place; a component that the other factor lacks stays.

    Args:
        rows: R (K, n)
        mixed: M (K, n), the other factor times V.
        gram: G (K, K), the other factor's inner products.
    """
    for k in torch.nonzero(gram.diagonal() > 0)[:, 0].tolist():
        rows[k] = (rows[k] + (mixed[k] - gram[k] @ rows) / gram[k, k]).clamp_min(0)


def start(v: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """NNDSVD: of each pair of singular vectors the heavier of its two signs, Boutsidis 2008, fig. 1.

    Args:
        v: (N, C)
        components: K

    Returns:
        W (K, N) and H (K, C).
    """
    u, s, t = singular(v, components)
    w, h = [], []
    for k in range(components):
        sides = [(u[:, k].clamp_min(0), t[k].clamp_min(0)), ((-u[:, k]).clamp_min(0), (-t[k]).clamp_min(0))]
        if k == 0:  # the first pair has one sign, up to rounding
            sides = [(u[:, 0].abs(), t[0].abs())]
        weights = [float(one.norm() * other.norm()) for one, other in sides]
        one, other = sides[weights.index(max(weights))]
        scale = (s[k] * max(weights)).sqrt()
        w.append(scale * one / one.norm().clamp_min(torch.finfo(v.dtype).tiny))
        h.append(scale * other / other.norm().clamp_min(torch.finfo(v.dtype).tiny))
    return torch.stack(w), torch.stack(h)


def singular(v: Tensor, components: int) -> tuple[Tensor, Tensor, Tensor]:
    """The largest singular values and their vectors, from a seeded random subspace: Halko 2011, alg. 4.4.

    Args:
        v: (N, C)
        components: K

    Returns:
        U (N, K), s (K,), V' (K, C).
    """
    width = min(components + OVERSAMPLED, *v.shape)
    draw = torch.randn(v.shape[1], width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q = torch.linalg.qr(v @ draw.to(v)).Q
    for _ in range(POWERS):
        q = torch.linalg.qr(v @ torch.linalg.qr(v.T @ q).Q).Q
    u, s, t = torch.linalg.svd(q.T @ v, full_matrices=False)
    return (q @ u)[:, :components], s[:components], t[:components]
