"""The edges of a picture, as a map that knows nothing of the model: a baseline."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from fastcam.compat.pytorch_grad_cam.arrays import as_given, to_tensor

BITS = 15  # behind the point of OpenCV's weights of red, green and blue, which add up to one
WEIGHTS = (9798, 19235, 3735)


def sobel_cam(img: Any) -> Any:
    """(|dx| + |dy|) / 2 of the gray picture, by 3 x 3 Sobel kernels, each cut at 255; borders mirrored.

    Args:
        img: (H, W, 3) in RGB, uint8, or float in 0 to 255.

    Returns:
        (H, W) uint8.

    Raises:
        ValueError: another shape.
    """
    picture = to_tensor(img, "img")
    if picture.dim() != 3 or picture.shape[2] != 3 or min(picture.shape[:2]) < 2:
        raise ValueError(f"img has shape {tuple(picture.shape)}; expected (H, W, 3) in RGB, two pixels a side at least")
    gray = pad(to_gray(picture).double()[None], (1, 1, 1, 1), mode="reflect")[0]
    across = gray[:, 2:] - gray[:, :-2]
    down = gray[2:] - gray[:-2]
    dx = across[:-2] + 2 * across[1:-1] + across[2:]
    dy = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    mean = sum((one.abs().round().clamp_max(255) for one in (dx, dy)), torch.zeros_like(dx)) / 2
    return as_given(mean.round().to(torch.uint8), img)


def to_gray(picture: Tensor) -> Tensor:
    """0.299 red + 0.587 green + 0.114 blue; of bytes a byte, rounded as OpenCV's fixed-point weights make it."""
    if picture.dtype == torch.uint8:
        weights = torch.tensor(WEIGHTS, device=picture.device)
        return ((picture.long() * weights).sum(2) + (1 << (BITS - 1))) >> BITS
    return (picture * torch.tensor([0.299, 0.587, 0.114]).to(picture)).sum(2)
