"""weighted_sum: out[b, t, p] = Σ_c weights[b, t, c] · A[b, c, p].

One program a tile of positions and a chunk of channels. A is read in place by its strides; the lanes of a tile keep
float32 sums of their own, by plain multiplication and addition, which no setting rounds to TF32. Where there is more
than one chunk, torch adds up their sums: in a fixed order, so the same bits in every run. Moved: the activations once,
the rest is small. Floor: B · C · h · w values over the bandwidth.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

CHUNK = 256  # channels of a program, as in the CPU kernel: it divides the work of a single image among programs
POSITIONS = 64
SUMS = 4096  # of a program: targets · channels at a time · positions


@triton.jit
def kernel(
    activations, weights, out, chunks, tiles, targets, channels, h, w,
    stride_b, stride_c, stride_y, stride_x, weight_b, weight_t, weight_c, out_chunk,
    CHUNK: tl.constexpr, TARGETS: tl.constexpr, CHANNELS: tl.constexpr, POSITIONS: tl.constexpr,
):  # fmt: skip
    """One tile of one image, summed over one chunk of its channels, for all targets."""
    program = tl.program_id(0).to(tl.int64)
    b = program // (chunks * tiles)
    chunk = program // tiles % chunks
    position = (program % tiles).to(tl.int32) * POSITIONS + tl.arange(0, POSITIONS)
    target = tl.arange(0, TARGETS)
    inside = position < h * w
    place = (position // w) * stride_y + (position % w) * stride_x
    a = activations + b * stride_b + chunk * CHUNK * stride_c
    f = weights + b * weight_b + chunk * CHUNK * weight_c
    sums = tl.zeros((TARGETS, CHANNELS, POSITIONS), tl.float32)
    left = (channels - chunk * CHUNK).to(tl.int32)
    for first in range(0, CHUNK, CHANNELS):
        c = first + tl.arange(0, CHANNELS)
        some = c < left
        values = tl.load(
            a + c[:, None] * stride_c + place[None, :], mask=some[:, None] & inside[None, :], other=0.0
        ).to(tl.float32)  # fmt: skip
        factors = tl.load(
            f + target[:, None] * weight_t + c[None, :] * weight_c,
            mask=(target < targets)[:, None] & some[None, :], other=0.0,
        ).to(tl.float32)  # fmt: skip
        sums += factors[:, :, None] * values[None, :, :]
    row = out + chunk * out_chunk + (b * targets + target[:, None]) * h * w + position[None, :]
    tl.store(row, tl.sum(sums, 1), mask=(target < targets)[:, None] & inside[None, :])


def weighted_sum(activations: Tensor, weights: Tensor) -> Tensor:
    """See `fastcam.ops.weighted_sum`."""
    batch, targets, channels = weights.shape
    h, w = activations.shape[2:]
    rows, chunks, tiles = triton.next_power_of_2(targets), triton.cdiv(channels, CHUNK), triton.cdiv(h * w, POSITIONS)
    out = torch.empty((chunks, batch, targets, h, w), device=activations.device)
    kernel[(batch * chunks * tiles,)](
        activations, weights, out, chunks, tiles, targets, channels, h, w,
        *activations.stride(), *weights.stride(), out.stride(0),
        CHUNK=CHUNK, TARGETS=rows, CHANNELS=SUMS // (rows * POSITIONS), POSITIONS=POSITIONS,
    )  # fmt: skip
    return out[0] if chunks == 1 else out.sum(0)
