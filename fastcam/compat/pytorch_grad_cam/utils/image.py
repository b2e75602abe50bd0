"""Pictures in and out: normalization, scaled maps, heat maps over pictures. Arrays and tensors alike, no OpenCV."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastcam.compat import strict_compat as strictness
from fastcam.compat.pytorch_grad_cam.arrays import as_given, to_tensor
from fastcam.compat.pytorch_grad_cam.resizing import resized
from fastcam.compat.pytorch_grad_cam.utils.colormaps import JET, table
from fastcam.compat.pytorch_grad_cam.utils.concepts import create_labels_legend, show_factorization_on_image

__all__ = [
    "create_labels_legend",
    "deprocess_image",
    "preprocess_image",
    "scale_accross_batch_and_channels",
    "scale_cam_image",
    "show_cam_on_image",
    "show_factorization_on_image",
]

HALVES = (0.5, 0.5, 0.5)
EPS = 1e-7  # pytorch-grad-cam's, beside the largest value


def preprocess_image(img: Any, mean: Sequence[float] = HALVES, std: Sequence[float] = HALVES) -> Tensor:
    """A picture as a batch of one: (img - mean) / std, bytes divided by 255 first.

    Args:
        img: (H, W, C) or (H, W), uint8, or float in [0, 1].
        mean: of each channel, or one for all.
        std: of each channel, or one for all.

    Returns:
        (1, C, H, W), float32, or float64 of a float64 picture.

    Raises:
        TypeError: a picture of other integers.
        ValueError: another shape, as many means as there are not channels, or a std of 0.
    """
    picture = to_tensor(img, "img")
    if picture.dim() not in (2, 3) or picture.numel() == 0:
        raise ValueError(f"img has shape {tuple(picture.shape)}; expected (H, W, C) or (H, W)")
    if picture.dtype == torch.uint8:
        picture = picture.to(torch.get_default_dtype()) / 255
    if not picture.is_floating_point():
        raise TypeError(f"img is of {picture.dtype}; give uint8, or floats in [0, 1]")
    channels = (picture[..., None] if picture.dim() == 2 else picture).permute(2, 0, 1)
    shift, scale = (
        torch.as_tensor(v, dtype=channels.dtype, device=channels.device).view(-1, 1, 1) for v in (mean, std)
    )
    for name, values in (("mean", shift), ("std", scale)):
        if len(values) not in (1, len(channels)):
            raise ValueError(f"{len(values)} values of {name} for {len(channels)} channels; give one each, or one")
    if (scale == 0).any():
        raise ValueError(f"std={tuple(std)} holds a 0, by which nothing can be divided")
    return (channels.contiguous() - shift).div_(scale)[None]


def deprocess_image(img: Any) -> Any:
    """A picture of any values, such as gradients: 0.1 (img - mean) / (std + 1e-5) + 0.5, cut to [0, 1].

    Args:
        img: any shape.

    Returns:
        uint8, of the same shape.
    """
    if isinstance(img, Tensor):
        values = img.detach() if img.dtype == torch.float64 else img.detach().float()
        centered = values - values.mean()
        scaled = centered / (centered.std(correction=0) + 1e-5) * 0.1 + 0.5
        return (scaled.clamp(0, 1) * 255).to(torch.uint8)
    values = np.asarray(img)
    centered = values - values.mean()
    scaled = centered / (centered.std() + 1e-5) * 0.1 + 0.5
    return np.uint8(scaled.clip(0, 1) * 255)


def show_cam_on_image(
    img: Any, mask: Any, use_rgb: bool = False, colormap: int = JET, image_weight: float = 0.5
) -> Any:
    """The heat map over the picture, (1 - w) colors[255 mask] + w img, divided by its largest value.

    Args:
        img: (H, W, 3) float in [0, 1], or (H, W, 1).
        mask: (H, W) in [0, 1].
        use_rgb: colors in RGB, for a picture in RGB; else in BGR.
        colormap: the number of an OpenCV color map; 0 to 11 need no OpenCV.
        image_weight: w, in [0, 1].

    Returns:
        (H, W, 3) uint8, an array; or a tensor on the mask's device where the picture is one.

    Raises:
        ValueError: values or shapes other than these.
    """
    picture, levels = to_tensor(img, "img"), to_tensor(mask, "mask")
    levels = levels[..., 0] if levels.dim() == 3 and levels.shape[2] == 1 else levels
    if levels.dim() != 2 or picture.dim() != 3 or picture.shape[:2] != levels.shape or picture.shape[2] not in (1, 3):
        raise ValueError(
            f"img has shape {tuple(picture.shape)} and mask {tuple(levels.shape)}; expected (H, W, 3) and (H, W), one "
            "picture and one map of the same size"
        )
    if picture.max() > 1:
        raise ValueError(f"the picture's values go up to {float(picture.max()):g}; expected floats in [0, 1]")
    if not 0 <= image_weight <= 1:
        raise ValueError(f"image_weight is {image_weight}; expected a number from 0 to 1")
    levels = levels * 255
    low, high = (float(end) for end in levels.aminmax())
    if not (low > -1 and high < 256):  # NaN fails this too
        raise ValueError(f"the mask's values go from {low / 255:g} to {high / 255:g}; expected [0, 1]")
    colors = (1 - image_weight) * heat(colormap, use_rgb).to(levels.device)
    heated = colors.index_select(0, levels.int().flatten()).view(*levels.shape, 3)
    mixed = image_weight * picture.to(levels.device)
    mixed = mixed.add_(heated) if mixed.dtype == heated.dtype and mixed.shape == heated.shape else mixed + heated
    top = mixed.max()
    # Black under black would be 0 / 0.
    return as_given(mixed.div_(torch.where(top > 0, top, 1)).mul_(255).to(torch.uint8), img)


@cache
def heat(colormap: int, rgb: bool) -> Tensor:
    """The colors of an OpenCV color map, (256, 3) float32 in [0, 1], not to be written to."""
    colors = torch.from_numpy(table(colormap).copy())
    return (colors if rgb else colors.flip(1)).float() / 255


def scale_cam_image(cam: Any, target_size: Sequence[int] | None = None, *, strict_compat: bool | None = None) -> Any:
    """Each map to [0, 1], (m - min) / (1e-7 + max of that), then resized linearly.

    Args:
        cam: (B, H, W), (B, D, H, W) or (B, L), or a list of maps of different sizes, which `target_size` makes one.
        target_size: (W, H), (W, H, D) or (L,): the axes in reverse, as OpenCV counts them; None keeps the size.
        strict_compat: resize volumes by cubic splines as pytorch-grad-cam does, which leave [0, 1].

    Returns:
        (B, ...) float32.
    """
    if isinstance(cam, (list, tuple)) and len({tuple(one.shape) for one in cam}) > 1:
        if target_size is None:
            raise ValueError("maps of different sizes need a target_size to become one batch")
        scaled = [to_tensor(scale_cam_image(one[None], target_size, strict_compat=strict_compat), "cam") for one in cam]
        return as_given(torch.cat(scaled), cam)
    maps = to_tensor(cam, "cam")
    if maps.dim() < 2 or maps.numel() == 0:
        raise ValueError(f"cam has shape {tuple(maps.shape)}; expected a batch of maps such as (B, H, W)")
    maps = maps if maps.dtype in (torch.float32, torch.float64) else maps.float()
    axes = tuple(range(1, maps.dim()))
    maps = maps - maps.amin(axes, keepdim=True)
    maps = maps / (EPS + maps.amax(axes, keepdim=True))
    if target_size is not None:
        strict = strictness() if strict_compat is None else strict_compat
        maps = resized(maps, tuple(target_size)[::-1], cubic=strict)
    return as_given(maps.float(), cam)


def scale_accross_batch_and_channels(tensor: Any, target_size: Sequence[int]) -> Any:
    """`scale_cam_image` of every channel of every image on its own.

    Args:
        tensor: (B, C, h, w)
        target_size: (W, H)

    Returns:
        (B, C, H, W) float32.
    """
    maps = to_tensor(tensor, "tensor")
    scaled = scale_cam_image(maps.flatten(0, 1), target_size)
    return as_given(scaled.unflatten(0, maps.shape[:2]), tensor)
