"""resize_normalize: (up(m) - min) / (max - min) of each map, one program a tile of pixels.

Every program finds the extremes of its whole map first, from at most 2h · 2w points. Moved: the output once, a map from
the caches. Floor: N · H · W float32 values over the bandwidth.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcam.ops.triton.resample import POINTS, axis, blend, extremes_of_pixels

PIXELS = 1024


@triton.jit
def kernel(
    maps, out, low_y, t_y, ends_y, rows, low_x, t_x, ends_x, columns, h, w, height, width,
    CLIP: tl.constexpr, PIXELS: tl.constexpr, POINTS: tl.constexpr,
):  # fmt: skip
    """One tile of one map."""
    n = tl.program_id(0).to(tl.int64)
    cells = maps + n * h * w
    # Moved to start at zero unless a ReLU still has to see the sign: a small range on an offset then loses no digits.
    if CLIP == "after":
        origin = 0.0
    elif CLIP == "before":
        origin = tl.maximum(tl.load(cells).to(tl.float32), 0.0)
    else:
        origin = tl.load(cells).to(tl.float32)
    low, high = extremes_of_pixels(
        cells, origin, low_y, t_y, ends_y, rows, low_x, t_x, ends_x, columns, h, w, CLIP == "before", CLIP == "after",
        POINTS,
    )  # fmt: skip
    flat = low == high
    pixel = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    ok = pixel < height * width
    y, x = pixel // width, pixel % width
    value = blend(cells, origin, 0.0, 1.0, low_y, t_y, low_x, t_x, y, x, h, w, ok, CLIP == "before", False)
    if CLIP == "after":
        value = tl.maximum(value, 0.0, propagate_nan=tl.PropagateNan.ALL)
    value = tl.where(flat, 0.0, (value - low) / tl.where(flat, 1.0, high - low))
    # Rounding alone leaves [0, 1].
    value = tl.minimum(tl.maximum(value, 0.0, propagate_nan=tl.PropagateNan.ALL), 1.0, tl.PropagateNan.ALL)
    tl.store(out + n * height * width + pixel, value, mask=ok)


def resize_normalize(maps: Tensor, size: tuple[int, int], clip: str) -> Tensor:
    """See `fastcam.ops.resize_normalize`."""
    maps = maps.contiguous()
    (height, width), (count, h, w) = size, maps.shape
    out = torch.empty((count, height, width), device=maps.device)
    low_y, t_y, ends_y = axis(h, height, False, maps.device)
    low_x, t_x, ends_x = axis(w, width, False, maps.device)
    kernel[count, triton.cdiv(height * width, PIXELS)](
        maps, out, low_y, t_y, ends_y, len(ends_y), low_x, t_x, ends_x, len(ends_x), h, w, height, width,
        CLIP=clip, PIXELS=PIXELS, POINTS=POINTS,
    )  # fmt: skip
    return out
