"""blur_images: out = images * (taps × taps), zero outside; one program VALUES values of one plane, one launch an axis.

The kernel is a product of two 1-D factors. A neighbor along an axis is `step` values away in memory, whatever the
layout: 1 and W in planes (H, W), C and C · W channels-last, where all channels are one plane. The blurred rows stay
float32 between the launches, and are rounded once. Moved: the image and the output once, the rows in float32 written
and read. Floor: N · C · H · W values in and out over the bandwidth.
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcam.ops import arguments
from fastcam.ops.blur_images import factor

VALUES = 1024


@triton.jit
def kernel(images, taps, out, tiles, plane, step, length, RADIUS: tl.constexpr, VALUES: tl.constexpr):
    """One tile of one plane, along one axis; the taps are symmetric, so each weighs a sum of two values."""
    program = tl.program_id(0).to(tl.int64)
    start = program // tiles * plane
    place = (program % tiles).to(tl.int32) * VALUES + tl.arange(0, VALUES)
    ok = place < plane
    at = place // step % length
    value = images + start + place
    blurred = tl.load(taps + RADIUS) * tl.load(value, mask=ok, other=0.0).to(tl.float32)
    for i in range(1, RADIUS + 1):
        low = tl.load(value - i * step, mask=ok & (at >= i), other=0.0).to(tl.float32)
        high = tl.load(value + i * step, mask=ok & (at + i < length), other=0.0).to(tl.float32)
        blurred += tl.load(taps + RADIUS - i) * (low + high)
    tl.store(out + start + place, blurred.to(out.dtype.element_ty), mask=ok)


@functools.lru_cache(maxsize=64)
def taps_of(size: int, sigma: float, device: torch.device) -> Tensor:
    """The kernel's 1-D factor (size,) float32 on a device, copied there once."""
    with torch.inference_mode(False):
        return torch.tensor(factor(size, sigma), dtype=torch.float32).to(device)


def blur_images(images: Tensor, size: int, sigma: float) -> Tensor:
    """See `fastcam.ops.blur_images`."""
    channels, height, width = images.shape[1:]
    layout = arguments.layout(images)
    images = images.contiguous(memory_format=layout)
    rows = torch.empty_like(images, dtype=torch.float32, memory_format=layout)
    out = torch.empty_like(images, memory_format=layout)
    step = channels if layout == torch.channels_last else 1
    plane = height * width * step
    tiles, taps = triton.cdiv(plane, VALUES), taps_of(size, sigma, images.device)
    grid = (images.numel() // plane * tiles,)
    kernel[grid](images, taps, rows, tiles, plane, step, width, RADIUS=size // 2, VALUES=VALUES)
    kernel[grid](rows, taps, out, tiles, plane, step * width, height, RADIUS=size // 2, VALUES=VALUES)
    return out
