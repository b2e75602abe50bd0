"""overlay: round((1 - alpha) · image + alpha · colormap[round(255 · map)]); one program VALUES bytes of the output.

The bytes of the reference: every product and sum is rounded by itself, so the launch forbids fused multiply-adds.
Moved: images and output once, the map once, the colormap from the caches. Floor: B · H · W · (3 + 4 + 3) bytes over
the bandwidth for a float32 map.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

VALUES = 1024
# Added and subtracted, it rounds 0 <= v < 2^22 to the nearest integer, ties to even.
ROUND = tl.constexpr(12582912.0)


@triton.jit
def kernel(images, maps, colormap, out, count, keep, share, VALUES: tl.constexpr):
    """One tile of bytes, over the pixels of all images."""
    start = tl.program_id(0).to(tl.int64) * VALUES
    byte = tl.arange(0, VALUES)
    ok = byte < count - start
    # In 32 bits from the tile's first pixel on, as a division in 64 bits is slow.
    place = (start % 3).to(tl.int32) + byte
    m = tl.load(maps + start // 3 + place // 3, mask=ok, other=0.0).to(tl.float32)
    m = tl.where(m > 0, m, 0.0)  # NaN is 0
    level = (tl.where(m < 1, m, 1.0) * 255.0 + ROUND) - ROUND
    color = tl.load(colormap + level.to(tl.int32) * 3 + place % 3, mask=ok, other=0).to(tl.float32)
    image = tl.load(images + start + byte, mask=ok, other=0).to(tl.float32)
    mixed = ((keep * image + share * color) + ROUND) - ROUND
    tl.store(out + start + byte, mixed.to(tl.int32).to(tl.uint8), mask=ok)


def overlay(images: Tensor, maps: Tensor, colormap: Tensor, alpha: float) -> Tensor:
    """See `fastcam.ops.overlay`."""
    images, maps, colormap = images.contiguous(), maps.contiguous(), colormap.contiguous()
    out = torch.empty_like(images)
    kernel[(triton.cdiv(out.numel(), VALUES),)](
        images, maps, colormap, out, out.numel(), 1 - alpha, alpha, VALUES=VALUES, enable_fp_fusion=False
    )
    return out
