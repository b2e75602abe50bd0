"""Boxes and masks of a stored picture, in the pixels of the model's input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastcam.datasets.sample import Sample
from fastcam.image import Placement, Preprocess, place


def fit_boxes(
    boxes: Sequence[Sequence[float]] | Tensor, size: tuple[int, int], settings: Preprocess | tuple[int, int]
) -> Tensor:
    """Boxes after the resize and crop of `image.preprocess`, cut at its borders.

    Resizing maps the edge x of a picture W pixels wide to x w / W; an edge between pixels stays one. A box of which
    nothing is left, or that was empty, is left out.

    Args:
        boxes: (n, 4) corners x0 y0 x1 y1 in pixels of the stored picture, x1 and y1 outside.
        size: (H, W) of the stored picture.
        settings: how the picture is resized and cropped, or the exact (h, w) it is resized to.

    Returns:
        (m, 4) float32, m at most n, in pixels of the model's input.

    Raises:
        ValueError: a picture that `image.preprocess` would refuse, or no corners.
    """
    corners = torch.as_tensor(boxes, dtype=torch.float64).reshape(-1, 4) if len(boxes) else torch.zeros(0, 4)
    placement = _place(size, settings)
    height, width = placement.resized
    x = corners[:, 0::2] * (width / size[1]) - placement.left
    y = corners[:, 1::2] * (height / size[0]) - placement.top
    x, y = x.clamp(0, placement.crop[1]), y.clamp(0, placement.crop[0])
    fitted = torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1).float()
    return fitted[(fitted[:, 2] > fitted[:, 0]) & (fitted[:, 3] > fitted[:, 1])]


def fit_mask(
    sample: Sample, size: tuple[int, int], settings: Preprocess | tuple[int, int], ignored: bool = False
) -> Tensor | None:
    """The mask of a sample after the resize and crop of `image.preprocess`.

    Args:
        sample: with outlines or mask pictures.
        size: (H, W) of the stored picture.
        settings: how the picture is resized and cropped, or the exact (h, w) it is resized to.
        ignored: the pixels that are neither object nor background instead.

    Returns:
        (h, w) bool, or None when the sample has none.

    Raises:
        ValueError: a picture that `image.preprocess` would refuse, or a damaged mask.
    """
    (height, width), crop, top, left = _place(size, settings)
    mask = sample.ignored(height, width) if ignored else sample.mask(height, width)
    return None if mask is None else mask[top : top + crop[0], left : left + crop[1]].contiguous()


def _place(size: tuple[int, int], settings: Preprocess | tuple[int, int]) -> Placement:
    return place(size, settings if isinstance(settings, Preprocess) else Preprocess(settings, None))
