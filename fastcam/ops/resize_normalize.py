"""From raw maps to image-sized maps in [0, 1]."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fastcam.ops import arguments, native
from fastcam.ops.dispatch import Op

CLIPS = ("before", "after", "never")
HW = (-2, -1)


def resize(maps: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Bilinear interpolation without antialiasing: (B, K, h, w) -> (B, K, H, W)."""
    return interpolate(maps, size, mode="bilinear", align_corners=align_corners)


def min_max(maps: Tensor, flat: Tensor) -> tuple[Tensor, Tensor]:
    """(m - min) / (max - min) over the last two axes; zero where the maximum equals the minimum.

    Args:
        maps: (..., H, W).
        flat: (..., 1, 1) bool, maps known to be constant, whatever rounding in their resize says.

    Returns:
        The normalized maps (..., H, W), and which were constant (..., 1, 1).
    """
    low, high = maps.amin(HW, keepdim=True), maps.amax(HW, keepdim=True)
    constant = flat | (low == high)
    return ((maps - low) / (high - low).masked_fill(constant, 1)).masked_fill(constant, 0), constant


def is_flat(maps: Tensor) -> Tensor:
    """Which maps have one value only: (..., h, w) -> (..., 1, 1) bool."""
    return maps.amin(HW, keepdim=True) == maps.amax(HW, keepdim=True)


@Op
def resize_normalize(maps: Tensor, size: tuple[int, int], clip: str = "before") -> Tensor:
    """(m - min m) / (max m - min m) of each map after a bilinear resize (align_corners=False).

    A map whose maximum equals its minimum gives zeros. A NaN makes its whole map NaN.

    Args:
        maps: (N, h, w), any float dtype; computed in float32 (float64 stays float64).
        size: (H, W).
        clip: Where negative values become zero: "before" the resize, "after" it, or "never".

    Returns:
        (N, H, W) float32 in [0, 1].
    """
    maps = maps.to(arguments.working(maps))[None]
    if clip == "before":
        maps = maps.relu()
    resized = resize(maps, size)
    return min_max(resized.relu() if clip == "after" else resized, is_flat(maps))[0][0]


@resize_normalize.arguments
def _arguments(maps: Tensor, size: tuple[int, int], clip: str = "before") -> tuple[Tensor, tuple[int, int], str]:
    arguments.tensor("maps", maps, "N h w")
    arguments.choice("clip", clip, CLIPS)
    return maps, arguments.size("size", size), clip


def _needs(maps: Tensor, size: tuple[int, int], clip: str) -> str | None:
    return "float64 is computed by the reference" if maps.dtype == torch.float64 else None


@resize_normalize.twin("triton", needs=_needs)
def _triton(*args: Any) -> Tensor:
    from fastcam.ops.triton.resize_normalize import resize_normalize as launch

    return launch(*args)


@resize_normalize.twin("cpu", needs=_needs)
def _cpu(maps: Tensor, size: tuple[int, int], clip: str) -> Tensor:
    maps = maps.float().contiguous()
    out = torch.empty((len(maps), *size), device=maps.device)
    native.call("resize_normalize", maps.data_ptr(), out.data_ptr(), *maps.shape, *size, CLIPS.index(clip))
    return out
