"""Images that turn into others, pixel by pixel: the batches that insertion and deletion classify."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastcam.ops import arguments, native
from fastcam.ops.dispatch import Op


@Op
def perturb_steps(
    images: Tensor, others: Tensor, ranks: Tensor, counts: Tensor | Sequence[int], out: Tensor | None = None
) -> Tensor:
    """others[n] where ranks[n] < counts[s], images[n] elsewhere: row n·S + s of the output.

    A pixel (y, x) has the rank of cell (y·h // H, x·w // W), so ranks of pixels and of patches are one case, and
    counts may be any steps in any order. Deletion turns the image into a baseline, insertion a baseline into the image
    (Petsiuk et al., RISE, arXiv:1806.07421). Values are chosen, never computed: rounded once to the dtype of `out`.

    Args:
        images: (N, C, H, W).
        others: (N, C, H, W); a constant may be expanded from (N, C, 1, 1) or (1, C, 1, 1) and is then not copied.
        ranks: (N, h, w) int32 with h <= H and w <= W, not necessarily a permutation.
        counts: (S,) integers of at least 0, on the CPU.
        out: (N·S, C, H, W) to write to, contiguous or channels-last, any float dtype; by default new, in the dtype and
            layout of the images.

    Returns:
        (N·S, C, H, W).
    """
    batch, _, height, width = images.shape
    counts = torch.as_tensor(counts).tolist()
    out = arguments.allocate(out, (batch * len(counts), *images.shape[1:]), images)
    h, w = ranks.shape[1:]
    y, x = (torch.arange(n, device=ranks.device) * cells // n for n, cells in ((height, h), (width, w)))
    pixels = ranks[:, y][:, :, x][:, None]
    rows = out.unflatten(0, (batch, len(counts)))
    for step, count in enumerate(counts):
        rows[:, step] = torch.where(pixels < count, others, images)
    return out


@perturb_steps.arguments
def _arguments(
    images: Tensor, others: Tensor, ranks: Tensor, counts: Tensor | Sequence[int], out: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    arguments.tensor("images", images, "N C H W")
    arguments.tensor("others", others, "N C H W", images)
    if others.shape != images.shape:
        raise ValueError(
            f"others has shape {tuple(others.shape)}, expected that of images, {tuple(images.shape)}; use .expand()"
        )
    if not isinstance(ranks, Tensor) or ranks.dtype != torch.int32:
        raise TypeError(f"ranks must be an int32 tensor (N h w), got {getattr(ranks, 'dtype', type(ranks))}")
    arguments.shape("ranks", ranks, "N h w", images)
    arguments.same("ranks' batch", ranks.shape[0], images.shape[0], "images")
    if ranks.shape[1] > images.shape[2] or ranks.shape[2] > images.shape[3]:
        raise ValueError(
            f"ranks has {tuple(ranks.shape[1:])} cells, more than the pixels {tuple(images.shape[2:])}; "
            "rank a map of at most the images' size"
        )
    steps = _counts(counts)
    arguments.output(out, (images.shape[0] * len(steps), *images.shape[1:]), images)
    return images, others, ranks, steps, out


def _counts(counts: Tensor | Sequence[int]) -> Tensor:
    try:
        steps = torch.as_tensor(counts)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"counts must be integers (S), got {counts!r}") from None
    if steps.dim() != 1 or not len(steps):
        raise ValueError(f"counts must be one axis (S) of at least one step, got shape {tuple(steps.shape)}")
    if steps.is_floating_point() or steps.is_complex() or steps.dtype == torch.bool:
        raise TypeError(f"counts must be integers (numbers of cells), got {steps.dtype}; use .round().long()")
    if steps.device.type != "cpu":
        raise ValueError(f"counts is on {steps.device}, expected cpu; move it with .cpu()")
    if (least := min(steps.tolist())) < 0:
        raise ValueError(f"counts must be at least 0, got {least}")
    return steps.to(torch.int64).contiguous()


@perturb_steps.twin("triton", needs=lambda *_: None)
def _triton(*args: Any) -> Tensor:
    from fastcam.ops.triton.perturb_steps import perturb_steps as launch

    return launch(*args)


@perturb_steps.twin("cpu", needs=lambda *_: None)
def _cpu(images: Tensor, others: Tensor, ranks: Tensor, counts: Tensor, out: Tensor | None) -> Tensor:
    batch, channels, height, width = images.shape
    h, w = ranks.shape[1:]
    out = arguments.allocate(out, (batch * len(counts), channels, height, width), images)
    images, others = _cast(images, out.dtype), _cast(others, out.dtype)
    if ranks.stride()[1:] != (w, 1):
        ranks = ranks.contiguous()
    native.call(
        "perturb_steps",
        images.data_ptr(),
        images.stride(),
        others.data_ptr(),
        others.stride(),
        ranks.data_ptr(),
        counts.data_ptr(),
        out.data_ptr(),
        ranks.stride(0),
        batch,
        len(counts),
        channels,
        height,
        width,
        h,
        w,
        out.element_size(),
        arguments.layout(out) == torch.channels_last,
    )
    return out


def _cast(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """In another dtype, what is repeated only once: `.to` alone would write out an expanded tensor."""
    if pixels.dtype == dtype:
        return pixels
    once = pixels[tuple(slice(0, 1 if stride == 0 else None) for stride in pixels.stride())]
    return once.to(dtype).expand(pixels.shape)
