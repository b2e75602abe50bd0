"""The heatmap over the picture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcam.ops import arguments, native
from fastcam.ops.dispatch import Op


@Op
def overlay(images: Tensor, maps: Tensor, colormap: Tensor, alpha: float = 0.5) -> Tensor:
    """round((1 - alpha) · image + alpha · colormap[round(255 · map)]), ties to even, in float32.

    Args:
        images: (B, H, W, 3) uint8.
        maps: (B, H, W) float; values outside [0, 1] are clipped, NaN counts as 0.
        colormap: (256, 3) uint8.
        alpha: Share of the heatmap, in [0, 1].

    Returns:
        (B, H, W, 3) uint8.
    """
    levels = maps.to(torch.float32).nan_to_num(0.0, 1.0, 0.0).clamp(0, 1) * 255
    colors = colormap.to(torch.float32)[levels.round().long()]
    return ((1 - alpha) * images.to(torch.float32) + alpha * colors).round().to(torch.uint8)


@overlay.arguments
def _arguments(
    images: Tensor, maps: Tensor, colormap: Tensor, alpha: float = 0.5
) -> tuple[Tensor, Tensor, Tensor, float]:
    arguments.tensor("maps", maps, "B H W")
    for name, value, axes in (("images", images, "B H W 3"), ("colormap", colormap, "256 3")):
        if not isinstance(value, Tensor) or value.dtype != torch.uint8:
            raise TypeError(f"{name} must be a uint8 tensor ({axes}), got {getattr(value, 'dtype', type(value))}")
        arguments.shape(name, value, axes, maps)
    if images.shape != (*maps.shape, 3):
        raise ValueError(f"images {tuple(images.shape)} must have the shape of maps {tuple(maps.shape)} and 3 colors")
    if colormap.shape != (256, 3):
        raise ValueError(f"colormap must have shape (256, 3), got {tuple(colormap.shape)}")
    return images, maps, colormap, arguments.fraction("alpha", alpha)


@overlay.twin("triton", needs=lambda *_: None)
def _triton(*args: Any) -> Tensor:
    from fastcam.ops.triton.overlay import overlay as launch

    return launch(*args)


@overlay.twin("cpu", needs=lambda *_: None)
def _cpu(images: Tensor, maps: Tensor, colormap: Tensor, alpha: float) -> Tensor:
    images, maps, colormap = images.contiguous(), maps.to(torch.float32).contiguous(), colormap.contiguous()
    out = torch.empty_like(images)
    native.call(
        "overlay",
        images.data_ptr(),
        maps.data_ptr(),
        colormap.data_ptr(),
        out.data_ptr(),
        maps.numel(),
        alpha,
    )
    return out
