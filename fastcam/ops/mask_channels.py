"""One channel off at a time: the batches that Ablation-CAM classifies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcam.ops import arguments, native
from fastcam.ops.dispatch import Op


@Op
def mask_channels(activations: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
    """A with channel k set to zero, for k in [start, stop).

    Row b·(stop - start) + (k - start) of the output.

    Args:
        activations: (B, C, h, w).
        start: First channel.
        stop: One past the last channel.
        out: (B·(stop - start), C, h, w) to write to, contiguous or channels-last, any float dtype;
            by default new, in the dtype and layout of the activations.

    Returns:
        (B·(stop - start), C, h, w).
    """
    batch, count = activations.shape[0], stop - start
    out = arguments.allocate(out, (batch * count, *activations.shape[1:]), activations)
    rows = out.unflatten(0, (batch, count))
    rows.copy_(activations[:, None].expand_as(rows))
    rows[:, :, start:stop].diagonal(dim1=1, dim2=2).zero_()
    return out


@mask_channels.arguments
def _arguments(
    activations: Tensor, start: int, stop: int, out: Tensor | None = None
) -> tuple[Tensor, int, int, Tensor | None]:
    arguments.tensor("activations", activations, "B C h w")
    batch, channels, h, w = activations.shape
    arguments.span(start, stop, channels, "activations' channels")
    arguments.output(out, (batch * (stop - start), channels, h, w), activations)
    return activations, start, stop, out


@mask_channels.twin("triton", needs=lambda *_: None)
def _triton(*args: Any) -> Tensor:
    from fastcam.ops.triton.mask_channels import mask_channels as launch

    return launch(*args)


@mask_channels.twin("cpu", needs=lambda *_: None)
def _cpu(activations: Tensor, start: int, stop: int, out: Tensor | None) -> Tensor:
    batch, channels, h, w = activations.shape
    out = arguments.allocate(out, (batch * (stop - start), channels, h, w), activations)
    layout = arguments.layout(out)
    activations = activations.to(out.dtype).contiguous(memory_format=layout)
    native.call(
        "mask_channels",
        activations.data_ptr(),
        out.data_ptr(),
        batch,
        channels,
        h * w,
        start,
        stop,
        out.element_size(),
        layout == torch.channels_last,
    )
    return out
