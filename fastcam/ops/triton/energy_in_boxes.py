"""energy_in_boxes: Σ of each map over the union of its boxes, and over all of it; one program a tile of pixels.

A program asks of each of its pixels whether any box holds it, and leaves two float64 sums, which torch adds up over the
tiles: no atomics, so the same bits in every run. Maps are read in place by their strides. Moved: the maps once, 16
bytes a tile. Floor: B · H · W values over the bandwidth.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

PIXELS = 2048


@triton.jit
def kernel(
    maps, boxes, out, tiles, programs, count, height, width, stride_b, stride_y, stride_x,
    INCLUSIVE: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """One tile of one map. Comparisons with NaN fail: such a box holds nothing."""
    program = tl.program_id(0).to(tl.int64)
    b = program // tiles
    pixel = (program % tiles).to(tl.int32) * PIXELS + tl.arange(0, PIXELS)
    ok = pixel < height * width
    y, x = pixel // width, pixel % width
    value = tl.load(maps + b * stride_b + y.to(tl.int64) * stride_y + x * stride_x, mask=ok, other=0.0).to(tl.float64)
    # As float32, which holds every coordinate below 2^24.
    y, x = y.to(tl.float32), x.to(tl.float32)
    covered = tl.zeros((PIXELS,), tl.int1)
    for n in range(count):
        corner = boxes + (b * count + n) * 4
        x0, y0 = tl.load(corner).to(tl.float32), tl.load(corner + 1).to(tl.float32)
        x1, y1 = tl.load(corner + 2).to(tl.float32), tl.load(corner + 3).to(tl.float32)
        below = (x <= x1) & (y <= y1) if INCLUSIVE else (x < x1) & (y < y1)
        covered |= (x0 <= x) & (y0 <= y) & below
    # A choice, not a product: infinity and NaN outside the boxes do not count.
    tl.store(out + program, tl.sum(tl.where(covered, value, 0.0)))
    tl.store(out + programs + program, tl.sum(value))


def energy_in_boxes(maps: Tensor, boxes: Tensor, edges: str) -> tuple[Tensor, Tensor]:
    """See `fastcam.ops.energy_in_boxes`."""
    batch, height, width = maps.shape
    tiles = triton.cdiv(height * width, PIXELS)
    out = torch.empty((2, batch, tiles), dtype=torch.float64, device=maps.device)
    kernel[(batch * tiles,)](
        maps, boxes.contiguous(), out, tiles, batch * tiles, boxes.shape[1], height, width, *maps.stride(),
        INCLUSIVE=edges == "inclusive", PIXELS=PIXELS,
    )  # fmt: skip
    inside, total = out.sum(2)
    return inside, total
