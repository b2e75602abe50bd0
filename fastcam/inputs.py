"""What a model is given, checked before it runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .model.outputs import describe, require_finite


def check_images(images: Any, model: nn.Module, precision: str) -> None:
    """Say what is wrong with images before the model does.

    Args:
        images: what a caller gave.
        model: that is to see them.
        precision: in which it runs.

    Raises:
        ValueError: a shape, device, number of channels or value that the model cannot take.
        TypeError: no floating-point tensor, or not of the weights' type.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        raise TypeError(
            f"images must be a floating-point tensor (B, C, H, W), got a {describe(images)}; preprocess them as "
            "the model was trained, e.g. (x / 255 - mean) / std"
        )
    if images.dim() != 4 or images.numel() == 0:
        mend = "add a batch axis: images[None]" if images.dim() == 3 else "give at least one image"
        raise ValueError(f"images must have shape (B, C, H, W), got {tuple(images.shape)}; {mend}")
    entry = next((m for m in model.modules() if any(p is not None for p in m._parameters.values())), None)
    weight = None if entry is None else next(p for p in entry._parameters.values() if p is not None)
    if weight is not None and weight.device != images.device:
        raise ValueError(f"images are on {images.device}, the model is on {weight.device}; move one of them")
    autocast = precision != "float32" or torch.is_autocast_enabled(images.device.type)
    if weight is not None and weight.is_floating_point() and weight.dtype != images.dtype and not autocast:
        raise TypeError(
            f"images are {images.dtype}, the model's weights {weight.dtype}; convert the images: "
            f"images.to({weight.dtype})"
        )
    if isinstance(entry, nn.Conv2d) and entry.groups == 1 and entry.in_channels != images.shape[1]:
        raise ValueError(
            f"images have {images.shape[1]} channels, the model's first convolution takes {entry.in_channels}; "
            "convert the pictures (gray or RGBA to RGB)"
        )
    require_finite(images, "images hold", "check how they were read and normalized")
