"""Geometric transformations of images, and the inverses that take maps back; zero where the image was not seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad


@dataclass(frozen=True)
class Identity:
    """The image as it is."""

    def apply(self, images: Tensor) -> Tensor:
        """Unchanged."""
        return images

    def invert(self, maps: Tensor) -> Tensor:
        """Unchanged."""
        return maps


@dataclass(frozen=True)
class Flip:
    """Left for right, or up for down.

    Attributes:
        vertical: up for down.
    """

    vertical: bool = False

    def apply(self, images: Tensor) -> Tensor:
        """Flip."""
        return images.flip(-2 if self.vertical else -1)

    def invert(self, maps: Tensor) -> Tensor:
        """Flip back."""
        return self.apply(maps)


@dataclass(frozen=True)
class Rotate:
    """About the center, counterclockwise; the edge is mirrored into the corners that open.

    Attributes:
        degrees: of the angle.
    """

    degrees: float

    def _warped(self, x: Tensor, sign: float, padding: str) -> Tensor:
        angle, ratio = math.radians(sign * self.degrees), x.shape[-2] / x.shape[-1]
        cos, sin = math.cos(angle), math.sin(angle)
        return warp(x, [[cos, -sin * ratio], [sin / ratio, cos]], padding)

    def apply(self, images: Tensor) -> Tensor:
        """Rotate. Bilinear."""
        return self._warped(images, 1, "reflection")

    def invert(self, maps: Tensor) -> Tensor:
        """Rotate back."""
        return self._warped(maps, -1, "zeros")


@dataclass(frozen=True)
class Scale:
    """About the center; the edge is mirrored into what opens around a smaller image.

    Attributes:
        factor: above 1 the image grows, and its edge is cut off.
    """

    factor: float

    def __post_init__(self) -> None:
        """Check the factor."""
        if not (math.isfinite(self.factor) and self.factor > 0):
            raise ValueError(f"Scale({self.factor!r}): the factor must be a positive number")

    def apply(self, images: Tensor) -> Tensor:
        """Scale. Bilinear."""
        return warp(images, [[1 / self.factor, 0], [0, 1 / self.factor]], "reflection")

    def invert(self, maps: Tensor) -> Tensor:
        """Scale back."""
        return warp(maps, [[self.factor, 0], [0, self.factor]], "zeros")


@dataclass(frozen=True)
class Translate:
    """By whole pixels; the edge is mirrored into what opens.

    Attributes:
        right: as a share of the width.
        down: as a share of the height.
    """

    right: float = 0.0
    down: float = 0.0

    def __post_init__(self) -> None:
        """Check the shares."""
        if not (-1 < self.right < 1 and -1 < self.down < 1):
            raise ValueError(f"{self!r}: shares of the width and height must be between -1 and 1")

    def _pixels(self, x: Tensor) -> tuple[int, int]:
        return round(self.down * x.shape[-2]), round(self.right * x.shape[-1])

    def apply(self, images: Tensor) -> Tensor:
        """Move."""
        for axis, by in zip((-2, -1), self._pixels(images), strict=True):
            length = images.shape[axis]
            at = torch.arange(-by, length - by)
            at = torch.where(at < 0, -1 - at, torch.where(at >= length, 2 * length - 1 - at, at))
            images = images.index_select(axis, at.to(images.device))
        return images

    def invert(self, maps: Tensor) -> Tensor:
        """Move back."""
        down, right = self._pixels(maps)
        return pad(maps, (-right, right, -down, down))


def warp(x: Tensor, matrix: list[list[float]], padding: str) -> Tensor:
    """What stands at `matrix` p, for each position p from the center, in halves of the sides. (..., H, W)"""
    theta = torch.tensor([[*row, 0.0] for row in matrix], dtype=x.dtype, device=x.device)
    flat = x.reshape(1, -1, *x.shape[-2:])
    grid = affine_grid(theta[None], [1, 1, *x.shape[-2:]], align_corners=False)
    return grid_sample(flat, grid, padding_mode=padding, align_corners=False).view(x.shape)
