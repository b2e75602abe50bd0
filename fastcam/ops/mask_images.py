"""Images under their own activation maps: the batches that Score-CAM and its kin classify."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastcam.ops import arguments, native
from fastcam.ops.dispatch import Op
from fastcam.ops.resize_normalize import is_flat, min_max, resize

NORMALIZE = ("after", "before", "never")
BLOCK = 8  # channels whose full-size masks the reference holds at a time


@Op
def mask_images(
    activations: Tensor,
    images: Tensor,
    start: int,
    stop: int,
    out: Tensor | None = None,
    normalize: str = "after",
    align_corners: bool = False,
) -> tuple[Tensor, Tensor]:
    """images[b] · up(norm(A[b, k])) for k in [start, stop): up is bilinear, norm is min-max.

    Row b·(stop - start) + (k - start) of the output. Computed in float32 (float64 stays float64) and
    rounded once.
    A NaN makes its whole normalized mask NaN.

    Args:
        activations: (B, K, h, w).
        images: (B, C, H, W).
        start: First channel.
        stop: One past the last channel.
        out: (B·(stop - start), C, H, W) to write to, contiguous or channels-last, any float dtype;
            by default new, in the dtype and layout of the images.
        normalize: "after" or "before" the upsampling, or "never".
        align_corners: As in `torch.nn.functional.interpolate`.

    Returns:
        The masked images, and (B, stop - start) bool: the maximum of the mask equals its minimum (before the
        upsampling for "before"). A normalized mask is then zero.
    """
    batch, size = images.shape[0], (images.shape[2], images.shape[3])
    count = stop - start
    out = arguments.allocate(out, (batch * count, *images.shape[1:]), images)
    rows = out.unflatten(0, (batch, count))
    dtype = arguments.working(activations, images)
    pictures = images.to(dtype)[:, None]
    constants = []
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        a = activations[:, first:last].to(dtype)
        constant = is_flat(a)
        if normalize == "before":
            masks = resize(min_max(a, constant)[0], size, align_corners)
        else:
            masks = resize(a, size, align_corners)
            normalized, constant = min_max(masks, constant)
            masks = normalized if normalize == "after" else masks
        rows[:, first - start : last - start] = pictures * masks[:, :, None]
        constants.append(constant[..., 0, 0])
    return out, torch.cat(constants, 1)


@mask_images.arguments
def _arguments(
    activations: Tensor,
    images: Tensor,
    start: int,
    stop: int,
    out: Tensor | None = None,
    normalize: str = "after",
    align_corners: bool = False,
) -> tuple[Tensor, Tensor, int, int, Tensor | None, str, bool]:
    arguments.tensor("activations", activations, "B K h w")
    arguments.tensor("images", images, "B C H W", activations)
    arguments.same("images' batch", images.shape[0], activations.shape[0], "activations")
    arguments.span(start, stop, activations.shape[1], "activations' channels")
    arguments.choice("normalize", normalize, NORMALIZE)
    arguments.output(out, (images.shape[0] * (stop - start), *images.shape[1:]), images)
    return activations, images, start, stop, out, normalize, align_corners


def _needs(
    activations: Tensor,
    images: Tensor,
    start: int,
    stop: int,
    out: Tensor | None,
    normalize: str,
    align_corners: bool,
) -> str | None:
    for tensor in (activations, images) if out is None else (activations, images, out):
        if tensor.dtype not in native.TYPES:
            return "float64 is computed by the reference"
    return None


@mask_images.twin("cuda", needs=_needs)
def _cuda(activations: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    return _compiled(partial(native.launch, activations.device), activations, *args)


@mask_images.twin("triton", needs=_needs)
def _triton(*args: Any) -> tuple[Tensor, Tensor]:
    from fastcam.ops.triton.mask_images import mask_images as launch

    return launch(*args)


@mask_images.twin("cpu", needs=_needs)
def _cpu(*args: Any) -> tuple[Tensor, Tensor]:
    return _compiled(native.call, *args)


def _compiled(
    run: Callable[..., None],
    activations: Tensor,
    images: Tensor,
    start: int,
    stop: int,
    out: Tensor | None,
    normalize: str,
    align_corners: bool,
) -> tuple[Tensor, Tensor]:
    batch, channels, height, width = images.shape
    count = stop - start
    out = arguments.allocate(out, (batch * count, channels, height, width), images)
    layout = arguments.layout(out)
    # Images and maps are small beside the output: the kernel knows them as float32 only.
    images = images.to(torch.float32).contiguous(memory_format=layout)
    maps = activations[:, start:stop]
    h, w = maps.shape[2:]
    if maps.dtype != torch.float32 or maps.stride()[1:] != (h * w, w, 1):
        maps = maps.to(torch.float32).contiguous()
    constant = torch.empty((batch, count), dtype=torch.bool, device=images.device)
    run(
        "mask_images",
        maps.data_ptr(),
        images.data_ptr(),
        out.data_ptr(),
        constant.data_ptr(),
        maps.stride(0),
        batch,
        count,
        h,
        w,
        channels,
        height,
        width,
        native.TYPES[out.dtype],
        layout == torch.channels_last,
        NORMALIZE.index(normalize),
        align_corners,
    )
    return out, constant
