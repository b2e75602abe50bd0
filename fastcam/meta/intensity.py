"""Transformations of pixel values in [0, 1], all in torch and each image by itself; maps stay where they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

LUMA = (0.299, 0.587, 0.114)  # Rec. 601, as OpenCV and Pillow
LEVELS = 256


@dataclass(frozen=True)
class Intensity:
    """Base of those that change values only."""

    pixels: ClassVar[bool] = True  # `apply` takes values in [0, 1] and gives such

    def invert(self, maps: Tensor) -> Tensor:
        """Unchanged."""
        return maps


@dataclass(frozen=True)
class Contrast(Intensity):
    """mean + factor (x - mean), the mean that of the image's luma.

    Attributes:
        factor: at least 0.
    """

    factor: float

    def __post_init__(self) -> None:
        """Check the factor."""
        _not_negative(self, self.factor)

    def apply(self, images: Tensor) -> Tensor:
        """Change."""
        mean = luma(images).mean((-2, -1), keepdim=True)
        return (mean + self.factor * (images - mean)).clamp(0, 1)


@dataclass(frozen=True)
class Brightness(Intensity):
    """factor x.

    Attributes:
        factor: at least 0.
    """

    factor: float

    def __post_init__(self) -> None:
        """Check the factor."""
        _not_negative(self, self.factor)

    def apply(self, images: Tensor) -> Tensor:
        """Change."""
        return (self.factor * images).clamp(0, 1)


@dataclass(frozen=True)
class Gamma(Intensity):
    """x ** gamma.

    Attributes:
        gamma: at least 0.
    """

    gamma: float

    def __post_init__(self) -> None:
        """Check the exponent."""
        _not_negative(self, self.gamma)

    def apply(self, images: Tensor) -> Tensor:
        """Change."""
        return images.clamp(0, 1) ** self.gamma


@dataclass(frozen=True)
class Equalize(Intensity):
    """The luma's histogram made flat, as scikit-image's `equalize_hist`; the change is added to every channel."""

    def apply(self, images: Tensor) -> Tensor:
        """Change."""
        y = luma(images)
        return (images + torch.stack([_equalized(one) for one in y]) - y).clamp(0, 1)


def _equalized(y: Tensor) -> Tensor:
    """cdf(y), linear between the centers of 256 bins from the least to the largest value."""
    low, high = float(y.min()), float(y.max())
    if high <= low:
        return y
    width = (high - low) / LEVELS
    bins = ((y.flatten() - low) / width).floor().clamp(0, LEVELS - 1).long()
    cdf = torch.bincount(bins, minlength=LEVELS).cumsum(0).to(y) / y.numel()
    at = ((y - low) / width - 0.5).clamp(0, LEVELS - 1)
    below = at.floor().long().clamp(0, LEVELS - 2)
    return cdf[below] + (at - below) * (cdf[below + 1] - cdf[below])


@dataclass(frozen=True)
class Clahe(Intensity):
    """The luma equalized tile by tile with clipped histograms, as OpenCV's CLAHE on 256 levels does.

    Attributes:
        clip: largest count of a level, in counts of a flat histogram.
        tiles: along each axis.
    """

    clip: float = 2.0
    tiles: int = 8

    def __post_init__(self) -> None:
        """Check the options."""
        if not self.clip > 0 or not isinstance(self.tiles, int) or self.tiles < 1:
            raise ValueError(f"{self!r}: clip must be above 0, and tiles a positive int")

    def apply(self, images: Tensor) -> Tensor:
        """Change."""
        y = luma(images)
        levels = (y * (LEVELS - 1)).round()
        return (images + torch.stack([self._of(one[0])[None] for one in levels]) / (LEVELS - 1) - y).clamp(0, 1)

    def _of(self, levels: Tensor) -> Tensor:
        """(H, W) levels in, levels out."""
        tiles, (height, width) = self.tiles, levels.shape
        # OpenCV lengthens both axes where one of them is no multiple, also the one that is.
        longer = tiles if height % tiles or width % tiles else 0
        rows, columns = ((n + longer) // tiles for n in (height, width))
        whole = levels.long()[mirror(height, 0, rows * tiles - height, levels)]
        whole = whole[:, mirror(width, 0, columns * tiles - width, levels)]
        cells = whole.view(tiles, rows, tiles, columns).transpose(1, 2).reshape(tiles * tiles, -1)
        area = cells.shape[1]
        counts = torch.zeros(len(cells), LEVELS, dtype=torch.long, device=levels.device)
        counts.scatter_add_(1, cells, torch.ones_like(cells))
        limit = max(int(self.clip * area / LEVELS), 1)
        excess = (counts - limit).clamp_min(0).sum(1, keepdim=True)
        counts = counts.clamp_max(limit) + excess // LEVELS
        rest = excess % LEVELS  # one more for so many levels, evenly spread
        step = (LEVELS // rest.clamp_min(1)).clamp_min(1)
        level = torch.arange(LEVELS, device=levels.device)
        counts = counts + ((level % step == 0) & (level // step < rest))
        table = (counts.cumsum(1) * ((LEVELS - 1) / area)).round().clamp(0, LEVELS - 1).float()
        return self._between(levels.long(), table.view(tiles, tiles, LEVELS), rows, columns)

    def _between(self, levels: Tensor, table: Tensor, rows: int, columns: int) -> Tensor:
        """Bilinear between what the tables of the four nearest tiles give."""
        near = []
        for length, side in zip(levels.shape, (rows, columns), strict=True):
            at = torch.arange(length, device=levels.device, dtype=torch.float32) / side - 0.5
            low = at.floor()
            near.append((low.long().clamp_min(0), (low.long() + 1).clamp_max(self.tiles - 1), at - low))
        (top, bottom, v), (left, right, u) = near
        v = v[:, None]

        def of(row: Tensor, column: Tensor) -> Tensor:
            return table[row[:, None], column[None], levels]

        upper = of(top, left) * (1 - u) + of(top, right) * u
        lower = of(bottom, left) * (1 - u) + of(bottom, right) * u
        return (upper * (1 - v) + lower * v).round()


@dataclass(frozen=True)
class Bilateral(Intensity):
    """Means of near pixels of like color, as OpenCV's bilateralFilter: colors differ by the sum over channels.

    Attributes:
        radius: of the disk of pixels.
        color: standard deviation of the Gaussian over differences of color.
        space: the same over distances, in pixels.
    """

    radius: int = 3
    color: float = 0.2
    space: float = 3.0

    def __post_init__(self) -> None:
        """Check the options."""
        if not isinstance(self.radius, int) or self.radius < 1 or not (self.color > 0 and self.space > 0):
            raise ValueError(f"{self!r}: radius must be a positive int, color and space above 0")

    def apply(self, images: Tensor) -> Tensor:
        """Change."""
        radius, (height, width) = self.radius, images.shape[-2:]
        around = images.index_select(-2, mirror(height, radius, radius, images))
        around = around.index_select(-1, mirror(width, radius, radius, images))
        total, weights = torch.zeros_like(images), torch.zeros_like(images[:, :1])
        for dy in range(-radius, radius + 1):
            for dx in range(-radius, radius + 1):
                if math.hypot(dy, dx) > radius:
                    continue
                near = around[..., radius + dy : radius + dy + height, radius + dx : radius + dx + width]
                apart = (near - images).abs().sum(1, keepdim=True)
                weight = (-0.5 * (dy * dy + dx * dx) / self.space**2 - 0.5 * (apart / self.color) ** 2).exp()
                total, weights = total + weight * near, weights + weight
        return total / weights


@dataclass(frozen=True)
class Median(Intensity):
    """The median of size x size pixels, channel by channel; the edge pixels are repeated.

    Attributes:
        size: odd.
    """

    size: int = 3

    def __post_init__(self) -> None:
        """Check the size."""
        if not isinstance(self.size, int) or self.size < 1 or self.size % 2 == 0:
            raise ValueError(f"{self!r}: size must be a positive odd number of pixels")

    def apply(self, images: Tensor) -> Tensor:
        """Change."""
        half = self.size // 2
        around = pad(images, (half,) * 4, mode="replicate")
        return around.unfold(-2, self.size, 1).unfold(-2, self.size, 1).flatten(-2).median(-1).values


def luma(images: Tensor) -> Tensor:
    """0.299 R + 0.587 G + 0.114 B, and the channels' mean where there are not three. (B, 1, H, W)"""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    return sum(weight * images[:, c : c + 1] for c, weight in enumerate(LUMA))  # type: ignore[return-value]


def mirror(length: int, before: int, after: int, like: Tensor) -> Tensor:
    """Indices of an axis with so many more on both sides, mirrored without repeating the edge."""
    period = max(2 * (length - 1), 1)
    at = torch.arange(-before, length + after, device=like.device) % period
    return torch.where(at < length, at, period - at)


def _not_negative(transform: Intensity, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{transform!r}: {value!r} must be a number of at least 0")
