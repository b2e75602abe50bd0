"""torchcam's arithmetic of maps: min-max with a constant below, sizes of several layers, their maximum."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

EPS = 1e-8  # torchcam's, under every division


def widen(tensor: Tensor) -> Tensor:
    """At least float32: `EPS` is zero in float16."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


@torch.no_grad()
def min_max(cams: Tensor, spatial_dims: int | None = None, eps: float = EPS) -> Tensor:
    """(m - min m) / (max m - min m + eps) of each map, in float32 at least, in the dtype given.

    Args:
        cams: (N, *space), or with more axes before the last `spatial_dims`.
        spatial_dims: how many axes a map has; None is all but the first.
        eps: keeps a constant map zero.
    """
    axes = tuple(range(-(cams.dim() - 1 if spatial_dims is None else spatial_dims), 0))
    wide = widen(cams)
    wide = wide - wide.amin(axes, keepdim=True)
    return wide.div_(wide.amax(axes, keepdim=True) + eps).to(cams.dtype)


def resized(cam: Tensor, size: tuple[int, ...]) -> Tensor:
    """Linear in each axis, with half-pixel centers. (N, *space) -> (N, *size)"""
    if len(size) != cam.dim() - 1:
        raise ValueError(f"a target shape of {tuple(size)} for maps of shape {tuple(cam.shape[1:])}; give as many axes")
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    return interpolate(widen(cam)[:, None], size, mode=mode, align_corners=False)[:, 0].to(cam.dtype)


def largest(cams: list[Tensor]) -> tuple[int, ...]:
    """The largest size in each axis."""
    return tuple(max(sizes) for sizes in zip(*(cam.shape[1:] for cam in cams), strict=True))


def require_cams(cams: Any) -> None:
    """Raise where this is no list of maps.

    Raises:
        TypeError: no list of tensors.
        ValueError: an empty one.
    """
    if not isinstance(cams, list) or not all(isinstance(cam, Tensor) for cam in cams):
        raise TypeError(f"cams must be the list of tensors that an extractor gives, not a {type(cams).__name__}")
    if not cams:
        raise ValueError("cams is an empty list; give the maps of one layer at least")


def as_pictures(tensor: Tensor) -> Tensor:
    """(N, C, *space) as (N, C, rows, columns): what fastcam's formulas of methods take."""
    if tensor.dim() < 3:
        raise ValueError(f"the target layer gives {tuple(tensor.shape)}, which has no cells; choose one before pooling")
    return tensor.reshape(*tensor.shape[:2], -1, tensor.shape[-1])
