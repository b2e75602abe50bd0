"""Does the score follow the map? Images under their maps, and images under the inverse."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .fields import MAP, SCORE
from .mean import Mean
from .registry import metric


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """Part / whole in float64, 0 where whole is 0, NaN where either is."""
    part, whole = part.double(), whole.double()
    return (part / whole.masked_fill(whole == 0, 1)).masked_fill((whole == 0) & ~part.isnan(), 0)


def average_drop(before: Tensor, after: Tensor, drop: str = "relative") -> Tensor:
    """max(0, s - s') / s: how much of the score the image loses under its map.

    Args:
        before: (B,) scores of the images.
        after: (B,) scores of the images under their maps.
        drop: "relative"; "absolute" leaves the division out; "guarded" divides by s + 1e-7.

    Returns:
        (B,) float64, 0 where s is 0. Source: Chattopadhyay 2018, eq. in section V.

    >>> average_drop(torch.tensor([0.8, 0.5]), torch.tensor([0.2, 0.6]))
    tensor([0.7500, 0.0000], dtype=torch.float64)
    """
    lost = (before.double() - after.double()).clamp_min(0)
    if drop == "absolute":
        return lost
    return _share(lost, before.double() + 1e-7 if drop == "guarded" else before)


def increase_in_confidence(before: Tensor, after: Tensor) -> Tensor:
    """1 where s' > s: the image scores higher under its map.

    Args:
        before: (B,) scores of the images.
        after: (B,) scores of the images under their maps.

    Returns:
        (B,) float64, 0 or 1. Source: Chattopadhyay 2018.

    >>> increase_in_confidence(torch.tensor([0.8, 0.5]), torch.tensor([0.2, 0.6]))
    tensor([0., 1.], dtype=torch.float64)
    """
    return (after > before).double().masked_fill(before.isnan() | after.isnan(), torch.nan)


def average_gain(before: Tensor, after: Tensor) -> Tensor:
    """max(0, s' - s) / (1 - s): how much of the missing probability the image gains under its map.

    Args:
        before: (B,) probabilities of the images.
        after: (B,) probabilities of the images under their maps.

    Returns:
        (B,) float64, 0 where s is 1. Source: Zhang 2023 (Opti-CAM, arXiv:2301.07002).

    >>> average_gain(torch.tensor([0.8, 0.5]), torch.tensor([0.2, 0.75]))
    tensor([0.0000, 0.5000], dtype=torch.float64)
    """
    return _share((after.double() - before.double()).clamp_min(0), 1 - before.double())


def win_rate(drop: Tensor, others: Tensor) -> Tensor:
    """1 where no other method's drop is as small: max(0, s - s')/s < the smallest of the others'.

    Args:
        drop: (B,) drops of this method.
        others: (M, B) drops of the other methods, or (B,) of the one other.

    Returns:
        (B,) float64, 0 or 1; a tie is nobody's. With one other method: Chattopadhyay 2018's "win".

    >>> win_rate(torch.tensor([0.1, 0.3]), torch.tensor([0.2, 0.3]))
    tensor([1., 0.], dtype=torch.float64)
    """
    best = others.reshape(-1, drop.shape[0]).amin(0)
    return (drop < best).double().masked_fill(drop.isnan() | best.isnan(), torch.nan)


def average_drop_in_deletion(before: Tensor, after: Tensor) -> Tensor:
    """(s - s') / s for the image under 1 - map: how much of the score the map's region holds.

    Args:
        before: (B,) scores of the images.
        after: (B,) scores of the images under the inverse of their maps.

    Returns:
        (B,) float64, not clipped, 0 where s is 0. Source: Jung and Oh 2021 (LIFT-CAM, arXiv:2102.05228).

    >>> average_drop_in_deletion(torch.tensor([0.8]), torch.tensor([0.2]))
    tensor([0.7500], dtype=torch.float64)
    """
    return _share(before.double() - after.double(), before)


@metric(
    "average_drop",
    ("before", "after"),
    formula="mean of max(0, s - s') / s, s' under the map",
    direction="down",
    paper="Chattopadhyay 2018, arXiv:1710.11063",
    cost="1 F, shared",
    reads=(*SCORE, *MAP, "masking", "drop"),
)
class AverageDrop(Mean):
    """Mean of `average_drop`; `update(before, after)` takes (B,) scores.

    Args:
        drop: see `average_drop`.
        **kwargs: of `torchmetrics.Metric`.
    """

    def __init__(self, drop: str = "relative", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.drop = drop

    def values(self, before: Tensor, after: Tensor) -> Tensor:
        """(B,)"""
        return average_drop(before, after, self.drop)


@metric(
    "increase_in_confidence",
    ("before", "after"),
    formula="share of images with s' > s, s' under the map",
    direction="up",
    paper="Chattopadhyay 2018, arXiv:1710.11063",
    cost="1 F, shared",
    reads=(*SCORE, *MAP, "masking"),
)
class IncreaseInConfidence(Mean):
    """Mean of `increase_in_confidence`; `update(before, after)` takes (B,) scores."""

    def values(self, before: Tensor, after: Tensor) -> Tensor:
        """(B,)"""
        return increase_in_confidence(before, after)


@metric(
    "average_gain",
    ("probability_before", "probability_after"),
    formula="mean of max(0, s' - s) / (1 - s), s' under the map",
    direction="up",
    paper="Zhang 2023, arXiv:2301.07002",
    cost="1 F, shared",
    reads=("classes", *MAP, "masking"),
)
class AverageGain(Mean):
    """Mean of `average_gain`; `update(before, after)` takes (B,) probabilities."""

    def values(self, before: Tensor, after: Tensor) -> Tensor:
        """(B,)"""
        return average_gain(before, after)


@metric(
    "win_rate",
    ("drop", "other_drops"),
    formula="share of images on which no other method drops as little",
    direction="up",
    paper="Chattopadhyay 2018, arXiv:1710.11063",
    cost="1 F, shared",
    reads=(*SCORE, *MAP, "masking"),
)
class WinRate(Mean):
    """Mean of `win_rate`; `update(drop, others)` takes (B,) and (M, B) drops."""

    def values(self, drop: Tensor, others: Tensor) -> Tensor:
        """(B,)"""
        return win_rate(drop, others)


@metric(
    "average_drop_in_deletion",
    ("before", "after_inverse"),
    formula="mean of (s - s') / s, s' under 1 - map",
    direction="up",
    range="up to 1",
    paper="Jung and Oh 2021, arXiv:2102.05228",
    cost="1 F",
    reads=(*SCORE, *MAP, "masking"),
)
class AverageDropInDeletion(Mean):
    """Mean of `average_drop_in_deletion`; `update(before, after)` takes (B,) scores."""

    def values(self, before: Tensor, after: Tensor) -> Tensor:
        """(B,)"""
        return average_drop_in_deletion(before, after)
