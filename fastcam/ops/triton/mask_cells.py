"""mask_cells: A at one cell and its surroundings, zero elsewhere; one program a tile of one output row.

A tile is written whole, zeros included, so the output needs no clearing. Moved: the output once, A from the caches.
Floor: B · (stop - start) · C · h · w values over the bandwidth.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fastcam.ops import arguments

VALUES = 1024


@triton.jit
def kernel(
    activations, out, count, start, channels, h, w,
    stride_b, stride_c, stride_y, stride_x,
    KERNEL: tl.constexpr, LAST: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """One tile of one row: its values, and where each comes from."""
    row = tl.program_id(0).to(tl.int64)
    i = start + row % count
    cell_y, cell_x = i // w, i % w
    place = tl.program_id(1) * VALUES + tl.arange(0, VALUES)
    ok = place < channels * h * w
    c = place % channels if LAST else place // (h * w)
    at = place // channels if LAST else place % (h * w)
    y, x = at // w, at % w
    dy, dx = tl.abs(y - cell_y), tl.abs(x - cell_x)
    reach = 0 if KERNEL == "point" else 1
    near = ok & (dy <= reach) & (dx <= reach)
    from_y = tl.where(near, cell_y, y) if KERNEL == "gaussian" else y
    from_x = tl.where(near, cell_x, x) if KERNEL == "gaussian" else x
    source = activations + (row // count) * stride_b + c * stride_c + from_y * stride_y + from_x * stride_x
    value = tl.load(source, mask=near, other=0.0).to(tl.float32)
    if KERNEL != "point":
        value *= tl.where(dy == 0, 0.5, 0.25) * tl.where(dx == 0, 0.5, 0.25)
    tl.store(out + row * channels * h * w + place, value.to(out.dtype.element_ty), mask=ok)


def mask_cells(activations: Tensor, start: int, stop: int, out: Tensor | None, kind: str) -> Tensor:
    """See `fastcam.ops.mask_cells`."""
    batch, channels, h, w = activations.shape
    count = stop - start
    out = arguments.allocate(out, (batch * count, channels, h, w), activations)
    kernel[batch * count, triton.cdiv(channels * h * w, VALUES)](
        activations, out, count, start, channels, h, w, *activations.stride(),
        KERNEL=kind, LAST=not out.is_contiguous(), VALUES=VALUES,
    )  # fmt: skip
    return out
