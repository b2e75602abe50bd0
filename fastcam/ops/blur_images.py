"""The blurred image from which RISE's insertion starts."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from fastcam.ops import arguments, native
from fastcam.ops.dispatch import Op


@Op
def blur_images(images: Tensor, size: int = 11, sigma: float = 5.0) -> Tensor:
    """Convolution with RISE's kernel, zero outside of the image.

    The kernel is what `scipy.ndimage.gaussian_filter` with its defaults makes of a size × size impulse: a product of
    two 1-D factors (`factor`), sum 1, flatter than a cut Gaussian (RISE's evaluation, arXiv:1806.07421).

    Args:
        images: (N, C, H, W), any float dtype; computed in float32 (float64 stays float64).
        size: Side of the kernel in pixels, odd.
        sigma: Standard deviation in pixels.

    Returns:
        (N, C, H, W) in the dtype of the images.
    """
    taps = factor(size, sigma)
    padded = pad(images.to(arguments.working(images)), (size // 2,) * 4)
    return weigh(weigh(padded, taps, 3), taps, 2).to(images.dtype)


def weigh(x: Tensor, taps: tuple[float, ...], axis: int) -> Tensor:
    """Weighted sum of shifted slices; a convolution may round to TF32 or to autocast's dtype."""
    length = x.shape[axis] - len(taps) + 1
    out = taps[0] * x.narrow(axis, 0, length)
    for i, tap in enumerate(taps[1:], 1):
        out = out + tap * x.narrow(axis, i, length)
    return out


@functools.lru_cache(maxsize=64)
def factor(size: int, sigma: float) -> tuple[float, ...]:
    """The kernel's 1-D factor: a Gaussian cut at 4 sigma around an impulse, whose tails fold back at both ends.

    Args:
        size: Length, odd.
        sigma: Standard deviation.

    Returns:
        `size` weights with sum 1, what `scipy.ndimage.gaussian_filter1d` (mode="reflect") gives for the impulse.
    """
    radius = int(4 * sigma + 0.5)
    weights = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(-radius, radius + 1)]
    taps = [0.0] * size
    for offset, weight in enumerate(weights, size // 2 - radius):
        place = offset % (2 * size)  # … c b a | a b c | c b a …: a period of twice the size
        taps[min(place, 2 * size - 1 - place)] += weight
    total = math.fsum(weights)
    # Both halves alike to the last digit: they were summed in different orders.
    return tuple((a + b) / (2 * total) for a, b in zip(taps, reversed(taps), strict=True))


@blur_images.arguments
def _arguments(images: Tensor, size: int = 11, sigma: float = 5.0) -> tuple[Tensor, int, float]:
    arguments.tensor("images", images, "N C H W")
    if not isinstance(size, int) or size < 1 or size % 2 == 0:
        raise ValueError(f"size must be an odd number of pixels, got {size!r}; RISE's is 11")
    if not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma must be a positive number of pixels, got {sigma}")
    return images, size, float(sigma)


def _needs(images: Tensor, size: int, sigma: float) -> str | None:
    return "float64 is computed by the reference" if images.dtype == torch.float64 else None


@blur_images.twin("triton", needs=_needs)
def _triton(*args: Any) -> Tensor:
    from fastcam.ops.triton.blur_images import blur_images as launch

    return launch(*args)


@blur_images.twin("cpu", needs=_needs)
def _cpu(images: Tensor, size: int, sigma: float) -> Tensor:
    layout = arguments.layout(images)
    images = images.contiguous(memory_format=layout)
    out = torch.empty_like(images, memory_format=layout)
    taps = torch.tensor(factor(size, sigma), dtype=torch.float32)
    native.call(
        "blur_images",
        images.data_ptr(),
        taps.data_ptr(),
        out.data_ptr(),
        *images.shape,
        size,
        native.TYPES[images.dtype],
        layout == torch.channels_last,
    )
    return out
