"""mask_images: out[b, k] = images[b] · up(norm(A[b, k])), one launch for all masks of all images.

A program writes PIXELS pixels of one masked image, all their colors, in the layout and the type of the output. It
first finds the extremes of its whole mask, from at most 2h · 2w points, so nothing of a mask is ever stored. Moved:
the output once, an image and a map from the caches. Floor: B · K · C · H · W values over the bandwidth.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcam.ops import arguments
from fastcam.ops.triton.resample import POINTS, axis, blend, extremes_of_cells, extremes_of_pixels

PIXELS = 1024


@triton.jit
def kernel(
    maps, images, out, constant,
    low_y, t_y, ends_y, rows, low_x, t_x, ends_x, columns,
    stride, count, h, w, height, width,
    NORMALIZE: tl.constexpr, C: tl.constexpr, COLORS: tl.constexpr, LAST: tl.constexpr,
    PIXELS: tl.constexpr, POINTS: tl.constexpr,
):  # fmt: skip
    """One tile of one masked image."""
    mask = tl.program_id(0).to(tl.int64)
    b = mask // count
    cells = maps + b * stride + (mask % count) * h * w
    # Starting at zero, a small range on a large offset loses no digits.
    origin = 0.0 if NORMALIZE == "never" else tl.load(cells).to(tl.float32)
    if NORMALIZE == "before":
        low, high = extremes_of_cells(cells, origin, h * w, False, POINTS)
    else:
        low, high = extremes_of_pixels(
            cells, origin, low_y, t_y, ends_y, rows, low_x, t_x, ends_x, columns, h, w, False, False, POINTS
        )
    flat = low == high
    span = tl.where(flat, 1.0, high - low)
    if tl.program_id(1) == 0:
        tl.store(constant + mask, flat)

    pixel = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    ok = pixel < height * width
    y, x = pixel // width, pixel % width
    value = blend(
        cells, origin, low, span, low_y, t_y, low_x, t_x, y, x, h, w, ok, False, NORMALIZE == "before"
    )  # fmt: skip
    if NORMALIZE == "after":
        value = (value - low) / span
    if NORMALIZE != "never":
        value = tl.where(flat, 0.0, value)

    color = tl.arange(0, COLORS)[None, :]
    place = pixel[:, None] * C + color if LAST else color * (height * width) + pixel[:, None]
    written = ok[:, None] & (color < C)
    size = C * height * width
    image = tl.load(images + b * size + place, mask=written, other=0.0).to(tl.float32)
    tl.store(out + mask * size + place, (image * value[:, None]).to(out.dtype.element_ty), mask=written)


def mask_images(
    activations: Tensor, images: Tensor, start: int, stop: int, out: Tensor | None, normalize: str, align_corners: bool
) -> tuple[Tensor, Tensor]:
    """See `fastcam.ops.mask_images`."""
    batch, channels, height, width = images.shape
    count, (h, w), device = stop - start, activations.shape[2:], images.device
    out = arguments.allocate(out, (batch * count, channels, height, width), images)
    layout = arguments.layout(out)
    images = images.contiguous(memory_format=layout)
    maps = activations[:, start:stop]
    if maps.stride()[1:] != (h * w, w, 1):
        maps = maps.contiguous()
    constant = torch.empty((batch, count), dtype=torch.bool, device=device)
    low_y, t_y, ends_y = axis(h, height, align_corners, device)
    low_x, t_x, ends_x = axis(w, width, align_corners, device)
    kernel[batch * count, triton.cdiv(height * width, PIXELS)](
        maps, images, out, constant,
        low_y, t_y, ends_y, len(ends_y), low_x, t_x, ends_x, len(ends_x),
        maps.stride(0), count, h, w, height, width,
        NORMALIZE=normalize, C=channels, COLORS=triton.next_power_of_2(channels),
        LAST=layout == torch.channels_last, PIXELS=PIXELS, POINTS=POINTS,
    )  # fmt: skip
    return out, constant
