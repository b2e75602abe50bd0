"""What a model is given, checked before it runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .model.outputs import describe, require_finite

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)  # of three, four and five axes
AXES = {3: "signals (B, C, L)", 4: "(B, C, H, W)", 5: "volumes (B, C, D, H, W)"}


def check_images(images: Any, model: nn.Module, precision: str, alone: bool = True) -> None:
    """Say what is wrong with images before the model does.

    Args:
        images: what a caller gave.
        model: that is to see them.
        precision: in which it runs.
        alone: whether it sees nothing else; what it joins images with may have the channels that they lack.

    Raises:
        ValueError: a shape, device, number of channels or value that the model cannot take.
        TypeError: no floating-point tensor, or not of the weights' type.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        raise TypeError(
            f"images must be a floating-point tensor (B, C, H, W), got a {describe(images)}; preprocess them as "
            "the model was trained, e.g. (x / 255 - mean) / std"
        )
    _check_axes(images, model)
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
    if alone and isinstance(entry, CONVOLUTIONS) and entry.groups == 1 and entry.in_channels != images.shape[1]:
        raise ValueError(
            f"images have {images.shape[1]} channels, the model's first convolution takes {entry.in_channels}; "
            "convert the pictures (gray or RGBA to RGB)"
        )
    require_finite(images, "images hold", "check how they were read and normalized")


def check_rank(images: Tensor, method: str, ranks: tuple[int, ...]) -> None:
    """Say that a method is for pictures only, or for whatever it is for.

    Args:
        images: of a shape that the model can take.
        method: its name.
        ranks: numbers of spatial axes that it can explain.

    Raises:
        ValueError: images of another rank.
    """
    if images.dim() - 2 not in ranks:
        allowed = " or ".join(AXES[rank + 2] if rank != 2 else "pictures (B, C, H, W)" for rank in ranks)
        raise ValueError(
            f"{method} explains {allowed}, got {tuple(images.shape)}; gradcam, layercam and scorecam, among others, "
            "explain signals and volumes too"
        )


def _check_axes(images: Tensor, model: nn.Module) -> None:
    """Three axes may be a signal, and a picture without its batch: the model's first convolution decides."""
    first = next((m for m in model.modules() if isinstance(m, CONVOLUTIONS)), None)
    takes = next((axes for axes, kind in enumerate(CONVOLUTIONS, 3) if isinstance(first, kind)), None)
    got, shape = images.dim(), tuple(images.shape)
    # A network of pictures may have a Conv1d in front, across channels; nothing else takes one rank for another.
    fits = got in AXES if takes is None or (got, takes) == (4, 3) else got == takes
    if fits and images.numel():
        return
    expected = AXES[4] + ", or signals (B, C, L) or volumes (B, C, D, H, W)" if takes is None else AXES[takes]
    why = "" if takes in (None, 4) else f", as this model's {type(first).__name__} takes"
    mend = "give at least one image"
    if not fits:
        lacks = got == (takes or 4) - 1
        mend = "add a batch axis: images[None]" if lacks else "give what the model's first convolution takes"
    raise ValueError(f"images must have shape {expected}{why}, got {shape}; {mend}")
