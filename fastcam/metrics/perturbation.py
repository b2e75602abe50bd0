"""How the score falls and rises as pixels go and come in the order of the map: Deletion, Insertion, ROAD."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .fields import SCORE
from .mean import Mean
from .registry import metric

POINTS = 101  # of a mean curve, over the share of pixels changed


def auc(scores: Tensor) -> Tensor:
    """(Σ s - s_0/2 - s_n/2) / n: the area under a curve over equal steps, by trapezoids.

    Args:
        scores: (B, n + 1)

    Returns:
        (B,) float64. Source: Petsiuk 2018 (RISE, arXiv:1806.07421) and its code.

    >>> auc(torch.tensor([[1.0, 0.5, 0.0]]))
    tensor([0.5000], dtype=torch.float64)
    """
    s = scores.double()
    return (s.sum(1) - s[:, 0] / 2 - s[:, -1] / 2) / (s.shape[1] - 1)


def pixel_counts(size: tuple[int, int], steps: int | None = None) -> list[int]:
    """How many pixels have changed at each point of a curve, the first (none) and the last (all) included.

    Args:
        size: (H, W)
        steps: about so many steps of ceil(HW / steps) pixels, or None for W pixels a step (RISE); the last one is
            shorter where it must be.

    >>> pixel_counts((2, 3)), pixel_counts((2, 3), 4)
    ([0, 3, 6], [0, 2, 4, 6])
    """
    pixels = size[0] * size[1]
    return [*range(0, pixels, size[1] if steps is None else math.ceil(pixels / steps)), pixels]


def area(scores: Tensor, shares: Tensor) -> Tensor:
    """Σ (s_k + s_{k+1}) / 2 · (x_{k+1} - x_k): the area under a curve at any points, by trapezoids.

    Args:
        scores: (B, n + 1)
        shares: (n + 1,) x, rising.

    Returns:
        (B,) float64; `auc` where x_k = k / n.
    """
    return torch.trapezoid(scores.double(), shares.to(scores.device, torch.float64))


def resample(curves: Tensor, points: int = POINTS) -> Tensor:
    """Curves at equally spaced points, by linear interpolation. (B, n + 1) -> (B, points)"""
    n = curves.shape[1] - 1
    at = torch.linspace(0, n, points, dtype=torch.float64, device=curves.device)
    left = at.floor().clamp_max(n - 1).long()
    share = at - left
    return curves.double()[:, left] * (1 - share) + curves.double()[:, left + 1] * share


class Area(Mean):
    """Mean area under score curves; after `compute`, `details` holds the mean curve over the share of pixels.

    Args:
        **kwargs: of `torchmetrics.Metric`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(1 + POINTS, **kwargs)

    def update(self, curves: Tensor, shares: Tensor | None = None) -> None:  # type: ignore[override]
        """Add score curves (B, n + 1), at equal steps or at `shares` (n + 1,)."""
        areas = auc(curves) if shares is None else area(curves, shares)
        self.add(torch.cat([areas[:, None], resample(curves)], 1))

    def compute(self) -> Tensor:
        """A scalar."""
        mean = self.mean()
        self.details = {f"{self.name}_curve": mean[1:]}
        return mean[0]


@metric(
    "deletion",
    ("deletion_curve", "curve_shares"),
    formula="area under the score as pixels go, the map's highest first",
    direction="down",
    paper="Petsiuk 2018, arXiv:1806.07421",
    cost="n - 1 F, n = rows of the image",
    reads=(*SCORE, "upsample", "grid", "steps", "patch", "auc", "deletion_end"),
)
class Deletion(Area):
    """Mean area under deletion curves; `update(curves)` takes (B, n + 1)."""


@metric(
    "insertion",
    ("insertion_curve", "curve_shares"),
    formula="area under the score as pixels come, the map's highest first",
    direction="up",
    paper="Petsiuk 2018, arXiv:1806.07421",
    cost="n F, n = rows of the image",
    reads=(*SCORE, "upsample", "grid", "steps", "patch", "auc", "insertion_start", "insertion_first"),
)
class Insertion(Area):
    """Mean area under insertion curves; `update(curves)` takes (B, n + 1)."""


@metric(
    "road",
    ("before", "road_most", "road_least"),
    formula="mean of (score without the least - score without the most relevant pixels) / 2, imputed",
    direction="up",
    range="-0.5 to 0.5",
    paper="Rong 2022, arXiv:2202.00449",
    cost="2 P F, P percentiles",
    reads=(*SCORE, "upsample", "road_percentiles", "road_noise"),
)
class ROAD(Mean):
    """Remove and debias; `update(before, most, least)` takes (B,), and (B, P) at each share of removed pixels.

    `details` holds the mean changes of the score with the most (`road_morf`, lower is better) and the least
    relevant pixels removed (`road_lerf`, higher is better), and the mean scores at each share.

    Args:
        percentiles: P, how many shares there are.
        **kwargs: of `torchmetrics.Metric`.
    """

    def __init__(self, percentiles: int = 9, **kwargs: Any) -> None:
        super().__init__(3 + 2 * percentiles, **kwargs)
        self.percentiles = percentiles

    def update(self, before: Tensor, most: Tensor, least: Tensor) -> None:  # type: ignore[override]
        """Add a batch."""
        s, most, least = before.double(), most.double(), least.double()
        own = torch.stack([road(most, least), most.mean(1) - s, least.mean(1) - s], 1)
        self.add(torch.cat([own, most, least], 1))

    def compute(self) -> Tensor:
        """A scalar."""
        mean, last = self.mean(), 3 + self.percentiles
        self.details = {
            "road_morf": mean[1],
            "road_lerf": mean[2],
            "road_morf_curve": mean[3:last],
            "road_lerf_curve": mean[last:],
        }
        return mean[0]


def road(most: Tensor, least: Tensor) -> Tensor:
    """(mean score without the least relevant pixels - mean score without the most relevant ones) / 2.

    Args:
        most: (B, P) scores with the most relevant pixels imputed, at P shares.
        least: (B, P) the same for the least relevant.

    Returns:
        (B,) float64. Source: Rong 2022 for the two curves; their half difference is common usage.

    >>> road(torch.tensor([[0.2, 0.0]]), torch.tensor([[0.9, 0.7]]))
    tensor([0.3500], dtype=torch.float64)
    """
    return (least.double().mean(1) - most.double().mean(1)) / 2
