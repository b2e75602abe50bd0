"""Mean maps: over noisy images, over the path from a baseline, over flipped and dimmed images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastcam.ask.sampled import baseline_like, quadrature
from fastcam.model.outputs import widen

from .base import Meta
from .call import Call, in_turn

RULES = ("midpoint", "left", "right", "trapezoid")


def require_samples(kind: str, samples: Any) -> None:
    """Raise unless there are so many."""
    if not isinstance(samples, int) or isinstance(samples, bool) or samples < 1:
        raise ValueError(f"{kind}: samples={samples!r} must be a positive int")


def mean_over(call: Call, version: Callable[[int], Tensor], shares: list[float]) -> Tensor:
    """Σ_n share_n m_n, m_n the maps of version n of all images. (B, T, H, W)

    Args:
        call: what was asked.
        version: n -> the images (B, C, H, W).
        shares: of each version in the mean.
    """
    batch, total = len(call.images), torch.zeros(())
    image = torch.arange(batch).repeat(len(shares))
    weights = torch.tensor(shares, dtype=torch.float64).repeat_interleave(batch)
    for seen in call.stream(image, in_turn(batch, version)):
        share = weights[seen.start : seen.start + len(seen.maps)].to(seen.maps)
        parts = seen.maps * share.view(-1, *[1] * (seen.maps.dim() - 1))
        if total.dim() == 0:
            total = parts.new_zeros((batch, *parts.shape[1:]))
        total = total.index_add(0, seen.image.to(parts.device), parts)
    return total


@dataclass(frozen=True)
class Smooth(Meta):
    """The mean map of images under Gaussian noise, as SmoothGrad does with gradients (Smilkov 2017).

    The finished maps are averaged, each in [0, 1], so this serves every method; the mean is scaled to [0, 1] again.
    All images of a batch get the same noise, so that an image's map does not depend on the others.

    Args:
        base: the method inside.
        samples: noisy images.
        spread: standard deviation, as a share of each image's max - min.
        seed: of the noise.

    Raises:
        ValueError: no positive number of samples, a negative spread.
    """

    _: KW_ONLY
    samples: int = 25
    spread: float = 0.15
    seed: int = 0

    formula: ClassVar[str] = "mean_n m(x + noise_n)"
    paper: ClassVar[str] = "after Smilkov 2017, arXiv:1706.03825"
    cost: ClassVar[str] = "1 F + samples x R"
    ranks: ClassVar[tuple[int, ...]] = (1, 2, 3)

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        require_samples("smooth", self.samples)
        if not (math.isfinite(self.spread) and self.spread >= 0):
            raise ValueError(f"smooth: spread={self.spread!r} must be at least 0, a share of each image's max - min")

    def combine(self, call: Call) -> Tensor:
        """Average."""
        x = widen(call.images)
        low, high = x.flatten(1).aminmax(dim=1)
        std = (self.spread * (high - low)).view(-1, *[1] * (x.dim() - 1))
        generator = torch.Generator().manual_seed(self.seed)

        def noisy(_: int) -> Tensor:
            return x + std * torch.randn(x.shape[1:], generator=generator).to(x)

        return mean_over(call, noisy, [1 / self.samples] * self.samples)


@dataclass(frozen=True)
class Integrated(Meta):
    """The mean map of the images on the straight path from a baseline, as Integrated Gradients do (Sundararajan 2017).

    The finished maps are averaged, each in [0, 1]; the mean is scaled to [0, 1] again.

    Args:
        base: the method inside.
        samples: points of the path.
        rule: where they lie: "midpoint", "left", "right" or "trapezoid".
        baseline: where the path starts: None for zeros, (C,), (C, H, W) or the images' shape.

    Raises:
        ValueError: no positive number of samples, an unknown rule.
    """

    _: KW_ONLY
    samples: int = 20
    rule: str = "midpoint"
    baseline: Any = None

    formula: ClassVar[str] = "mean_n m(x' + t_n (x - x'))"
    paper: ClassVar[str] = "after Sundararajan 2017, arXiv:1703.01365"
    cost: ClassVar[str] = "1 F + samples x R"
    ranks: ClassVar[tuple[int, ...]] = (1, 2, 3)

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        require_samples("integrated", self.samples)
        if self.rule not in RULES:
            raise ValueError(f"integrated: rule={self.rule!r} is not one of {', '.join(map(repr, RULES))}")

    def combine(self, call: Call) -> Tensor:
        """Average."""
        x, points = call.images, quadrature(self.rule, self.samples)
        start = baseline_like(x, self.baseline)
        return mean_over(call, lambda n: start + points[n][1] * (x - start), [share for share, _ in points])


@dataclass(frozen=True)
class AugSmooth(Meta):
    """The mean map of images flipped or not and times 0.9, 1 or 1.1, as pytorch-grad-cam's `aug_smooth` makes it.

    Args:
        base: the method inside.
        normalize: scale the mean to [0, 1] once more; pytorch-grad-cam leaves it as it is.
    """

    _: KW_ONLY
    normalize: bool = True

    formula: ClassVar[str] = "mean over flip, factor of flip(m(factor flip(x)))"
    paper: ClassVar[str] = "pytorch-grad-cam's aug_smooth (no paper)"
    cost: ClassVar[str] = "6 R"

    @property
    def rescales(self) -> bool:
        """As told."""
        return self.normalize

    def combine(self, call: Call) -> Tensor:
        """Average; the images as they are also tell the classes."""
        x, factors = call.images, (1.0, 0.9, 1.1)
        total = call.own_maps + mean_over(call, lambda n: factors[n + 1] * x, [1.0, 1.0])
        flipped = mean_over(call, lambda n: factors[n] * x.flip(-1), [1.0, 1.0, 1.0])
        return (total + flipped.flip(-1)) / 6
