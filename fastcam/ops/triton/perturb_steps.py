"""perturb_steps: others where ranks < counts[s], images elsewhere; one program PIXELS pixels of one output row.

Moved: the output once, images and ranks from the caches. Floor: N · S · C · H · W values over the bandwidth.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcam.ops import arguments

PIXELS = 1024


@triton.jit
def kernel(
    images, others, ranks, counts, out, steps, height, width, h, w,
    image_n, image_c, image_y, image_x, other_n, other_c, other_y, other_x, rank_n, rank_y, rank_x,
    C: tl.constexpr, COLORS: tl.constexpr, LAST: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """One tile of one row; images and others by their strides, so that nothing is copied first."""
    row = tl.program_id(0).to(tl.int64)
    n = row // steps
    count = tl.load(counts + row % steps)
    pixel = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    ok = pixel < height * width
    y, x = pixel // width, pixel % width
    rank = tl.load(ranks + n * rank_n + (y * h // height) * rank_y + (x * w // width) * rank_x, mask=ok, other=0)
    changed = (rank < count)[:, None]
    color = tl.arange(0, COLORS)[None, :]
    written = ok[:, None] & (color < C)
    image = images + n * image_n + color * image_c + y[:, None] * image_y + x[:, None] * image_x
    other = others + n * other_n + color * other_c + y[:, None] * other_y + x[:, None] * other_x
    kept = tl.load(image, mask=written & ~changed, other=0.0).to(out.dtype.element_ty)
    new = tl.load(other, mask=written & changed, other=0.0).to(out.dtype.element_ty)
    place = pixel[:, None] * C + color if LAST else color * (height * width) + pixel[:, None]
    tl.store(out + row * C * height * width + place, tl.where(changed, new, kept), mask=written)


def perturb_steps(images: Tensor, others: Tensor, ranks: Tensor, counts: Tensor, out: Tensor | None) -> Tensor:
    """See `fastcam.ops.perturb_steps`."""
    batch, channels, height, width = images.shape
    out = arguments.allocate(out, (batch * len(counts), channels, height, width), images)
    # A rank is an int32: a larger count changes every pixel just as well.
    steps = counts.clamp_max(torch.iinfo(torch.int32).max).to(torch.int32).to(images.device, non_blocking=True)
    kernel[batch * len(counts), triton.cdiv(height * width, PIXELS)](
        images, others, ranks, steps, out, len(counts), height, width, *ranks.shape[1:],
        *images.stride(), *others.stride(), *ranks.stride(),
        C=channels, COLORS=triton.next_power_of_2(channels), LAST=not out.is_contiguous(), PIXELS=PIXELS,
    )  # fmt: skip
    return out
