"""mask_channels: A with one channel off; one program a tile of one output row.

Moved: the output once, A from the caches. Floor: B · (stop - start) · C · h · w values over the bandwidth.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fastcam.ops import arguments

VALUES = 1024


@triton.jit
def kernel(activations, out, count, start, channels, cells, LAST: tl.constexpr, VALUES: tl.constexpr):
    """One tile of one row, in the layout that input and output share."""
    row = tl.program_id(0).to(tl.int64)
    off = start + row % count
    size = channels * cells
    place = tl.program_id(1) * VALUES + tl.arange(0, VALUES)
    ok = place < size
    c = place % channels if LAST else place // cells
    value = tl.load(activations + (row // count) * size + place, mask=ok & (c != off), other=0.0)
    tl.store(out + row * size + place, value.to(out.dtype.element_ty), mask=ok)


def mask_channels(activations: Tensor, start: int, stop: int, out: Tensor | None) -> Tensor:
    """See `fastcam.ops.mask_channels`."""
    batch, channels, h, w = activations.shape
    count = stop - start
    out = arguments.allocate(out, (batch * count, channels, h, w), activations)
    layout = arguments.layout(out)
    kernel[batch * count, triton.cdiv(channels * h * w, VALUES)](
        activations.contiguous(memory_format=layout), out, count, start, channels, h * w,
        LAST=not out.is_contiguous(), VALUES=VALUES,
    )  # fmt: skip
    return out
