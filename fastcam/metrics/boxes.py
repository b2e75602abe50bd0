"""Boxes and where they overlap. Corners x0 y0 x1 y1 in pixels; the far edges are exclusive unless said otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from fastcam import ops

NOTHING = (0.0, 0.0, -1.0, -1.0)  # holds no pixel and overlaps nothing
MOST = 1 << 17  # components held at a time: on noise there are millions over all thresholds, 100 bytes each
PAIRS = 1 << 16  # boxes compared at a time, 100 bytes each


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


def inclusive(boxes: Tensor) -> Tensor:
    """The first and last pixels of boxes whose far edges are exclusive, cut to whole ones. (..., 4) -> (..., 4)

    >>> inclusive(torch.tensor([0.0, 0.0, 224.0, 1.5]))
    tensor([  0.,   0., 223.,   0.])
    """
    near, far = boxes[..., :2], boxes[..., 2:]
    last = torch.where(far > near, torch.maximum(far - 1, near), far - 1)  # no box of less than a pixel is lost
    return torch.cat([near, last], -1).trunc()


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
    """Boxes of pixels and given boxes on equal terms: far edges exclusive, or the corners of WSOL evaluations.

    Those take x + w of a contour, the first column outside, for a last column unless the map ends there.
    """
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
        boxes: (B, N, 4), far edges exclusive; inclusive with plus_one, see `inclusive`.
        thresholds: (T,) or (B, T), see `ops.component_boxes`.
        connectivity: 4 or 8.
        relative: whether thresholds are shares of the maximum.
        plus_one: cut corners to whole pixels and compare them as WSOL evaluations do, see `box_iou`.

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
    best = torch.zeros(len(maps), thresholds.shape[-1], dtype=torch.float64, device=maps.device)
    boxes = one_at_least(boxes)
    step = max(1, PAIRS // boxes.shape[1])
    for images, span in _parts(maps, thresholds, connectivity, relative):
        some = thresholds[images, span] if thresholds.dim() == 2 else thresholds[span]
        found, _, owners = ops.components(maps[images], some, connectivity, relative)
        flat = (owners[:, 0] + images.start) * best.shape[1] + owners[:, 1] + span.start
        for start in range(0, len(found), step):
            rows = slice(start, start + step)
            corners, given = _corners(found[rows], boxes[images], maps, plus_one)
            iou = box_iou(corners[:, None], given[owners[rows, 0]], plus_one).amax(-1)
            best.view(-1).scatter_reduce_(0, flat[rows], iou, "amax")
    return best


def _parts(maps: Tensor, thresholds: Tensor, connectivity: int, relative: bool) -> Iterator[tuple[slice, slice]]:
    """Images and thresholds, as many at a time as have `MOST` components: all, or some thresholds of one image.

    A component holds a peak, so there are no more of them above a threshold than peaks.
    """
    batch, count = len(maps), thresholds.shape[-1]
    known = maps.float().nan_to_num(-torch.inf, torch.inf, -torch.inf)
    limits = thresholds.float().expand(batch, -1)
    limits = limits * known.flatten(1).amax(1)[:, None] if relative else limits
    above = []
    for one, peak, limit in zip(known, _peaks(known, connectivity), limits, strict=True):
        heights = one[peak].sort().values
        above.append((len(heights) - torch.searchsorted(heights, limit.contiguous(), right=True)).tolist())
    if sum(map(sum, above)) <= MOST:
        yield slice(0, batch), slice(0, count)
        return
    for image, own in enumerate(above):
        start, held = 0, 0
        for t, more in enumerate(own):
            if held and held + more > MOST:
                yield slice(image, image + 1), slice(start, t)
                start, held = t, 0
            held += more
        yield slice(image, image + 1), slice(start, count)


def _peaks(maps: Tensor, connectivity: int) -> Tensor:
    """Pixels above the neighbors before them and not below those after them: at least one a peak, plateaus too.

    Args:
        maps: (B, H, W) without NaN.
        connectivity: 4 or 8.

    Returns:
        (B, H, W) bool.
    """
    height, width = maps.shape[-2:]
    around = pad(maps, (1, 1, 1, 1), value=-torch.inf)
    found = torch.ones_like(maps, dtype=torch.bool)
    for y, x in ((y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1)):
        if connectivity == 8 or 1 in (y, x):
            near = around[:, y : y + height, x : x + width]
            found &= maps > near if (y, x) < (1, 1) else maps >= near
    return found
