"""Boxes and where they overlap. Corners x0 y0 x1 y1 in pixels; the far edges are exclusive unless said otherwise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastcam import ops

NOTHING = (0.0, 0.0, -1.0, -1.0)  # holds no pixel and overlaps nothing


def pad_boxes(boxes: Sequence[Tensor | Sequence[Sequence[float]]] | Tensor, images: int) -> Tensor:
    """Boxes of a batch as one tensor; images with fewer are filled up with boxes that hold nothing.

    Args:
        boxes: B tensors (n, 4), or (B, N, 4), or (B, 4) for one box an image.
        images: B.

    Returns:
        (B, N, 4) float32, N at least 1.

    Raises:
        ValueError: another shape, or a number of images that does not fit.

    >>> pad_boxes([[[0, 0, 2, 3]], []], 2).shape
    torch.Size([2, 1, 4])
    """
    if isinstance(boxes, Tensor) and boxes.dim() == 2:
        boxes = boxes[:, None]
    rows = [
        torch.as_tensor(one, dtype=torch.float32).reshape(-1, 4) if len(one) else torch.zeros(0, 4) for one in boxes
    ]
    if len(rows) != images:
        raise ValueError(f"boxes of {len(rows)} images for a batch of {images}; give one tensor (n, 4) an image")
    padded = torch.tensor(NOTHING).repeat(images, max(1, *(len(row) for row in rows)), 1)
    for out, row in zip(padded, rows, strict=True):
        out[: len(row)] = row
    return padded


def one_at_least(boxes: Tensor) -> Tensor:
    """Boxes (B, N, 4) with a box that holds nothing where N is 0."""
    return boxes if boxes.shape[1] else boxes.new_tensor(NOTHING).repeat(len(boxes), 1, 1)


def box_iou(a: Tensor, b: Tensor, plus_one: bool = False) -> Tensor:
    """|a ∩ b| / |a ∪ b| of boxes.

    Args:
        a: (..., 4)
        b: (..., 4), broadcast with a.
        plus_one: the corners are pixels of the boxes, whose sides are x1 - x0 + 1.

    Returns:
        (...) float64, 0 where a box holds nothing.

    >>> box_iou(torch.tensor([0, 0, 2, 2]), torch.tensor([1, 0, 3, 2]))
    tensor(0.3333, dtype=torch.float64)
    """
    a, b = a.double(), b.double()
    extra = 1.0 if plus_one else 0.0
    side = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2]) + extra).clamp_min(0)
    inter = side.prod(-1)
    union = sum((box[..., 2:] - box[..., :2] + extra).clamp_min(0).prod(-1) for box in (a, b)) - inter
    return (inter / torch.where(union > 0, union, 1)).masked_fill(~(union > 0), 0)


def has_box(boxes: Tensor) -> Tensor:
    """Which images have a box that can hold something. (B, N, 4) -> (B,) bool"""
    return ((boxes[..., 2] >= boxes[..., 0]) & (boxes[..., 3] >= boxes[..., 1])).any(1)


def quantized(maps: Tensor) -> Tensor:
    """Maps cut to 8 bits: floor(255 m), as a WSOL evaluation stores them."""
    return (maps * 255).floor()


def levels(maps: Tensor, count: int, quantize: bool) -> tuple[Tensor, Tensor, bool]:
    """Maps and thresholds for `ops.component_boxes`.

    Args:
        maps: (B, H, W) in [0, 1]
        count: thresholds, equally spaced in [0, 1).
        quantize: cut maps and thresholds to 8 bits.

    Returns:
        Maps, thresholds (T,) or (B, T), and whether those are relative to each map's maximum.
    """
    shares = torch.arange(count, dtype=torch.float64) / count
    if not quantize:
        return maps, shares.float(), True
    eight = quantized(maps)
    tops = eight.flatten(1).amax(1).double()
    return eight, (shares * tops[:, None].cpu()).floor().float().to(maps.device), False


def _corners(found: Tensor, boxes: Tensor, maps: Tensor, plus_one: bool) -> tuple[Tensor, Tensor]:
    """Boxes of pixels and given boxes on equal terms: exclusive far edges, or both as WSOL evaluations cut them."""
    found = found.double()
    found[..., 2:] += 1
    boxes = one_at_least(boxes).to(found)
    if plus_one:
        last = found.new_tensor([maps.shape[-1] - 1, maps.shape[-2] - 1])
        found[..., 2:] = torch.minimum(found[..., 2:], last)
        boxes = boxes.trunc()
    return found, boxes


def max_box_iou(
    maps: Tensor,
    boxes: Tensor,
    thresholds: Tensor,
    connectivity: int = 8,
    relative: bool = True,
    plus_one: bool = False,
) -> Tensor:
    """IoU of the box around the largest component above each threshold with the best of an image's boxes.

    Args:
        maps: (B, H, W)
        boxes: (B, N, 4)
        thresholds: (T,) or (B, T), see `ops.component_boxes`.
        connectivity: 4 or 8.
        relative: whether thresholds are shares of the maximum.
        plus_one: compare inclusive corners, see `box_iou`.

    Returns:
        (B, T) float64. Source: eq. 7 of the survey; threshold and largest component after Zhou 2016.
    """
    found, areas = ops.component_boxes(maps, thresholds, connectivity, relative)
    found, boxes = _corners(found, boxes, maps, plus_one)
    iou = box_iou(found[:, :, None], boxes[:, None], plus_one).amax(-1)
    return iou.masked_fill(areas == 0, 0)


def max_component_iou(
    maps: Tensor,
    boxes: Tensor,
    thresholds: Tensor,
    connectivity: int = 8,
    relative: bool = True,
    plus_one: bool = False,
) -> Tensor:
    """The best IoU of any component's box above each threshold with any of an image's boxes.

    Args and Returns as for `max_box_iou`. Source: Choe 2020, MaxBoxAccV2.
    """
    found, _, owners = ops.components(maps, thresholds, connectivity, relative)
    found, boxes = _corners(found, boxes, maps, plus_one)
    best = torch.zeros(len(maps), thresholds.shape[-1], dtype=torch.float64, device=maps.device)
    if len(found):
        iou = box_iou(found[:, None], boxes[owners[:, 0]], plus_one).amax(-1)
        flat = owners[:, 0] * best.shape[1] + owners[:, 1]
        best.view(-1).scatter_reduce_(0, flat, iou, "amax")
    return best
