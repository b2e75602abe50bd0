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
    fitted, kept = _fitted(boxes, size, _place(size, settings))
    return fitted[kept]


def _rows(boxes: Sequence[Sequence[float]] | Tensor) -> Tensor:
    return torch.as_tensor(boxes, dtype=torch.float64).reshape(-1, 4) if len(boxes) else torch.zeros(0, 4).double()


def _fitted(
    boxes: Sequence[Sequence[float]] | Tensor, size: tuple[int, int], placement: Placement
) -> tuple[Tensor, Tensor]:
    """Boxes (n, 4) float32 cut at the borders of the crop, and which of them hold something (n,) bool."""
    corners = _rows(boxes)
    height, width = placement.resized
    x = corners[:, 0::2] * (width / size[1]) - placement.left
    y = corners[:, 1::2] * (height / size[0]) - placement.top
    x, y = x.clamp(0, placement.crop[1]), y.clamp(0, placement.crop[0])
    fitted = torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1).float()
    return fitted, (fitted[:, 2] > fitted[:, 0]) & (fitted[:, 3] > fitted[:, 1])


def fit_corners(
    boxes: Sequence[Sequence[float]] | Tensor, size: tuple[int, int], settings: Preprocess | tuple[int, int]
) -> Tensor:
    """The first and last pixels of boxes after the resize and crop, as WSOL evaluations have them.

    These scale a corner pixel x of a picture W pixels wide to int(x w / W), so the box 0 0 499 374 of the whole
    picture ends at pixel 223 of 224. Scaling the edge outside the box first, 500 to 224, would add a pixel.

    Args:
        boxes: as for `fit_boxes`, x1 and y1 outside.
        size: (H, W) of the stored picture.
        settings: how the picture is resized and cropped, or the exact (h, w) it is resized to.

    Returns:
        (m, 4) float32 whole numbers, of the boxes that `fit_boxes` keeps; x1 and y1 inside.

    Raises:
        ValueError: a picture that `image.preprocess` would refuse, or no corners.
    """
    placement = _place(size, settings)
    _, kept = _fitted(boxes, size, placement)
    stored = _rows(boxes)[kept]
    # Scaling as published, times w and then over W, or whole pixels would be missed by a rounding error.
    scaled = (stored - stored.new_tensor([0, 0, 1, 1])) * stored.new_tensor(placement.resized[::-1] * 2)
    scaled = scaled / stored.new_tensor(size[::-1] * 2)
    cut = (scaled - stored.new_tensor([placement.left, placement.top] * 2)).trunc()
    cut = torch.minimum(cut.clamp_min(0), cut.new_tensor(placement.crop[::-1] * 2) - 1)
    return torch.cat([cut[:, :2], torch.maximum(cut[:, :2], cut[:, 2:])], 1).float()


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
