"""Which masks to score when not all can be, and what the others would have scored: `budget` of Score-CAM.

The choice, the estimate and its constants are this package's own; they come from comparing finished maps with those
of all masks on ImageNet pictures, see `python -m bench budget`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

REACH = 2.0  # correlation length, in root mean square distances of two masks; maps hardly change from 1 to 4
NUGGET = 1e-3  # of the variance: what neighboring masks do not share


def choose(masks: Tensor, weights: Tensor, count: int) -> Tensor:
    """Farthest-point choice: next is argmax_k w_k · min over the chosen c of |H_k - H_c|, first the largest weight.

    Nothing is waited for: all stays on the device.

    Args:
        masks: (K, Z) as they differ, no two alike.
        weights: (K,) not negative; how much the map depends on each.
        count: how many, 1 to K.

    Returns:
        (count,) in rising order.
    """
    squares = masks.square().sum(1)
    near = torch.full_like(squares, torch.inf)
    taken = torch.zeros_like(squares, dtype=torch.bool)
    at, chosen = weights.argmax(keepdim=True), []
    for _ in range(count):
        chosen.append(at)
        taken = taken.index_fill(0, at, True)
        dots = masks @ masks.index_select(0, at)[0]
        near = torch.minimum(near, (squares + squares.index_select(0, at) - 2 * dots).clamp(min=0))
        at = torch.where(taken, -1.0, near.sqrt() * weights).argmax(keepdim=True)
    return torch.cat(chosen).sort().values


def estimate(masks: Tensor, chosen: Tensor, scores: Tensor) -> Tensor:
    """Kriging: ŝ_k = m + k(H_k, H_c) (k(H_c, H_c) + nugget)⁻¹ (s_c - m), m the mean of the s_c.

    k is Matérn's covariance of smoothness 3/2, (1 + √3 r) exp(-√3 r), with r in correlation lengths.
    Source: Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, eqs. 2.25 and 4.17.

    Args:
        masks: (K, Z) all of them.
        chosen: (n,) those that were scored.
        scores: (T, n) their scores.

    Returns:
        (T, K): their scores as they are, and estimates of the others.
    """
    every = masks.double()
    few, known = every[chosen], scores.double()
    spread = 2 * (every.square().sum(1).mean() - every.mean(0).square().sum())
    length = REACH * spread.clamp(min=torch.finfo(torch.float64).tiny).sqrt()

    def covariance(one: Tensor, other: Tensor) -> Tensor:
        r = math.sqrt(3) / length * torch.cdist(one, other)
        return (1 + r) * (-r).exp()

    within = covariance(few, few)
    within.diagonal().add_(NUGGET)
    # Positive definite by the nugget; the checked form would wait for a GPU.
    factor, _ = torch.linalg.cholesky_ex(within)
    mean = known.mean(1, keepdim=True)
    solved = torch.cholesky_solve((known - mean).T, factor)
    guessed = mean + (covariance(every, few) @ solved).T
    return guessed.to(scores.dtype).index_copy(1, chosen, scores)
