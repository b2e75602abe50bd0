"""One cell of the activations at a time: the batches that Recipro-CAM classifies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcam.ops import arguments, native
from fastcam.ops.dispatch import Op

KERNELS = ("point", "gaussian", "neighbors")


@Op
def mask_cells(activations: Tensor, start: int, stop: int, out: Tensor | None = None, kernel: str = "point") -> Tensor:
    """A at one cell i = y·w + x in [start, stop) and its surroundings, zero elsewhere.

    Row b·(stop - start) + (i - start) of the output. G is 1/16 [[1,2,1],[2,4,2],[1,2,1]] centered on the
    cell and cropped at the border, not renormalized (Recipro-CAM, arXiv:2209.14074).

    Args:
        activations: (B, C, h, w).
        start: First cell.
        stop: One past the last cell, at most h·w.
        out: (B·(stop - start), C, h, w) to write to, contiguous or channels-last, any float dtype;
            by default new, in the dtype and layout of the activations.
        kernel: "point": A at the cell; "gaussian": the cell's own vector A[:, y, x] times G; "neighbors":
            each neighbor's own vector times G.

    Returns:
        (B·(stop - start), C, h, w).
    """
    batch, channels, h, w = activations.shape
    count = stop - start
    out = arguments.allocate(out, (batch * count, channels, h, w), activations)
    a = activations.to(arguments.working(activations))
    cells = torch.arange(start, stop, device=a.device)
    vertical, horizontal = (band(n, kernel, a)[i] for n, i in ((h, cells // w), (w, cells % w)))
    stencil = (vertical[:, :, None] * horizontal[:, None, :])[:, None]  # (count, 1, h, w)
    cell_vectors = a.flatten(2)[..., start:stop].transpose(1, 2)[..., None, None]
    own = cell_vectors if kernel == "gaussian" else a[:, None]
    # where, not a plain product: zero elsewhere also beside a NaN or an infinity
    out.unflatten(0, (batch, count)).copy_(torch.where(stencil > 0, own * stencil, 0))
    return out


def band(n: int, kernel: str, like: Tensor) -> Tensor:
    """(n, n): the identity, or the rows of a [1, 2, 1]/4 filter; G is the product of two of them."""
    eye = torch.eye(n, dtype=like.dtype, device=like.device)
    if kernel == "point":
        return eye
    beside = torch.ones(n - 1, dtype=like.dtype, device=like.device) / 4
    return eye / 2 + beside.diag(1) + beside.diag(-1)


@mask_cells.arguments
def _arguments(
    activations: Tensor, start: int, stop: int, out: Tensor | None = None, kernel: str = "point"
) -> tuple[Tensor, int, int, Tensor | None, str]:
    arguments.tensor("activations", activations, "B C h w")
    batch, channels, h, w = activations.shape
    arguments.span(start, stop, h * w, "activations' cells")
    arguments.choice("kernel", kernel, KERNELS)
    arguments.output(out, (batch * (stop - start), channels, h, w), activations)
    return activations, start, stop, out, kernel


def _needs(activations: Tensor, start: int, stop: int, out: Tensor | None, kernel: str) -> str | None:
    for tensor in (activations,) if out is None else (activations, out):
        if tensor.dtype not in native.TYPES:
            return "float64 is computed by the reference"
    return None


@mask_cells.twin("triton", needs=_needs)
def _triton(*args: Any) -> Tensor:
    from fastcam.ops.triton.mask_cells import mask_cells as launch

    return launch(*args)


@mask_cells.twin("cpu", needs=_needs)
def _cpu(activations: Tensor, start: int, stop: int, out: Tensor | None, kernel: str) -> Tensor:
    batch, channels, h, w = activations.shape
    out = arguments.allocate(out, (batch * (stop - start), channels, h, w), activations)
    activations = activations.to(torch.float32).contiguous()
    native.call(
        "mask_cells",
        activations.data_ptr(),
        out.data_ptr(),
        batch,
        channels,
        h,
        w,
        start,
        stop,
        native.TYPES[out.dtype],
        arguments.layout(out) == torch.channels_last,
        KERNELS.index(kernel),
    )
    return out
