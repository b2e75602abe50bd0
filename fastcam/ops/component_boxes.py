"""Boxes around what a map highlights: connected components above thresholds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from fastcam.ops import arguments, native
from fastcam.ops.dispatch import Op

PART = 1 << 18  # pixels of all thresholds together that the reference labels at a time: they stay in a cache
MOST_THRESHOLDS = 2**16 - 1  # levels of the kernel are at most 16 bits


@Op
def component_boxes(
    maps: Tensor, thresholds: Tensor | Sequence[float], connectivity: int = 8, relative: bool = True
) -> tuple[Tensor, Tensor]:
    """Box and area of the largest connected component of {map > t · max(map)}, for every threshold t at once.

    Of components with equally many pixels, the one whose first pixel in row-major order comes first. NaN
    pixels are in no component, and the maximum ignores them. Thresholds and products are rounded as NumPy
    rounds them in the dtype of the map, float32 (also for 16-bit maps) or float64, so that
    `m > numpy.float32(t) * m.max()` holds for the same pixels.

    The CPU twin makes one pass over the map, whatever the number of thresholds. It needs a few rows of memory per
    image and 28 bytes for each component that differs from all others: kilobytes on a smooth map, at most 28 bytes a
    pixel. The CUDA twin makes a pass for each threshold; its blocks need 8 bytes a pixel each, 256 MB at most in all.

    Args:
        maps: (B, H, W).
        thresholds: (T,) or (B, T), in any order; T at most 65535.
        connectivity: 8 (diagonal neighbors are connected) or 4.
        relative: Whether thresholds are fractions of each map's maximum, or else values.

    Returns:
        Boxes (B, T, 4) int32, corners x0 y0 x1 y1 that are pixels of the component ("inclusive"), and areas
        (B, T) int32 in pixels. Where no pixel is above the threshold: box 0 0 -1 -1, area 0.

    Raises:
        TypeError: maps or thresholds are no floating numbers.
        ValueError: Wrong shapes, a connectivity other than 4 and 8, or a map of 2**31 pixels or more.
    """
    thresholds = torch.as_tensor(thresholds, dtype=arguments.working(maps), device=maps.device)
    boxes = torch.zeros((maps.shape[0], thresholds.shape[-1], 4), dtype=torch.int32, device=maps.device)
    areas = boxes.new_zeros(boxes.shape[:2])
    boxes[..., 2:] = -1
    for image, span, found in regions(maps, thresholds, connectivity, relative):
        area, first = found.areas.max(1)
        box = found.boxes.gather(1, first[:, None, None].expand(-1, -1, 4))[:, 0]
        some = area > 0
        boxes[image, span] = torch.where(some[:, None], box, boxes[image, span])
        areas[image, span] = area
    return boxes, areas


class Regions(NamedTuple):
    """Components of one map, each kept at its first pixel, for t thresholds.

    Attributes:
        areas: (t, H·W) int32, zero at other pixels.
        boxes: (t, H·W, 4) int32.
    """

    areas: Tensor
    boxes: Tensor


def regions(
    maps: Tensor, thresholds: Tensor, connectivity: int, relative: bool
) -> Iterator[tuple[int, slice, Regions]]:
    """Every component: image, a span of thresholds, and what lies above them."""
    batch, height, width = maps.shape
    dtype = arguments.working(maps)
    maps, limits = maps.to(dtype), thresholds.to(dtype).expand(batch, -1)
    if relative:
        limits = limits * torch.where(maps.isnan(), -math.inf, maps).amax((1, 2))[:, None]
    step = max(1, PART // (height * width))
    for image in range(batch):
        for start in range(0, limits.shape[1], step):
            span = slice(start, min(start + step, limits.shape[1]))
            masks = maps[image] > limits[image, span, None, None]
            yield image, span, _measure(masks, first_pixels(masks, connectivity))


def first_pixels(masks: Tensor, connectivity: int) -> Tensor:
    """Flat index of the first pixel of each pixel's component; a pixel outside has its own.

    Every pixel takes the least index among its neighbors, then the one of the pixel with that index, until nothing
    changes.

    Args:
        masks: (t, H, W) bool.
        connectivity: 4 or 8.

    Returns:
        (t, H, W) int64.
    """
    # max_pool2d pads with -inf and knows no integers; float64 holds every index.
    own = torch.arange(masks[0].numel(), dtype=torch.float64, device=masks.device).view(masks.shape[1:])
    labels = torch.where(masks, -own, -math.inf)
    while True:
        if connectivity == 8:
            spread = max_pool2d(labels, 3, 1, 1)
        else:
            spread = torch.maximum(max_pool2d(labels, (3, 1), 1, (1, 0)), max_pool2d(labels, (1, 3), 1, (0, 1)))
        spread = torch.where(masks, spread, -math.inf)
        first = torch.where(masks, -spread, own).long()
        jumped = spread.flatten(1).gather(1, first.flatten(1)).view_as(labels)
        if torch.equal(jumped, labels):
            return first
        labels = jumped


def _measure(masks: Tensor, first: Tensor) -> Regions:
    count, height, width = masks.shape
    at = first.flatten(1)
    y, x = torch.meshgrid(
        *(torch.arange(n, dtype=torch.int32, device=masks.device) for n in (height, width)), indexing="ij"
    )
    zeros = torch.zeros_like(at, dtype=torch.int32)
    areas = zeros.scatter_add(1, at, masks.flatten(1).int())
    corners = [
        zeros.scatter_reduce(1, at, values.reshape(1, -1).expand(count, -1), reduce, include_self=False)
        for values, reduce in ((x, "amin"), (y, "amin"), (x, "amax"), (y, "amax"))
    ]
    return Regions(areas, torch.stack(corners, -1))


@component_boxes.arguments
def _arguments(
    maps: Tensor, thresholds: Tensor | Sequence[float], connectivity: int = 8, relative: bool = True
) -> tuple[Tensor, Tensor, int, bool]:
    return check(maps, thresholds, connectivity, relative)


def check(
    maps: Tensor, thresholds: Tensor | Sequence[float], connectivity: int, relative: bool
) -> tuple[Tensor, Tensor, int, bool]:
    """Check the arguments that all component ops share, and return them with thresholds as a tensor."""
    arguments.tensor("maps", maps, "B H W")
    if maps.shape[1] * maps.shape[2] >= 2**31:
        raise ValueError(f"maps of {tuple(maps.shape[1:])} have 2**31 pixels or more; resize them")
    if not isinstance(thresholds, Tensor):
        try:
            thresholds = torch.as_tensor(thresholds, dtype=arguments.working(maps), device=maps.device)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"thresholds must be floating numbers (T,) or (B, T), got {thresholds!r}") from None
    arguments.tensor("thresholds", thresholds, "T" if thresholds.dim() == 1 else "B T", maps)
    if thresholds.dim() == 2:
        arguments.same("thresholds' batch", thresholds.shape[0], maps.shape[0], "maps")
    if thresholds.shape[-1] > MOST_THRESHOLDS:
        raise ValueError(
            f"got {thresholds.shape[-1]} thresholds, expected at most {MOST_THRESHOLDS}; pass them in parts"
        )
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity={connectivity!r} is unknown, choose 4 or 8")
    # Integers have no gradient, so a map that requires one may run on any twin.
    return maps.detach(), thresholds.detach(), connectivity, relative


def needs(maps: Tensor, *_: object) -> str | None:
    """Why the compiled twins of the component ops cannot take these maps."""
    return None if maps.dtype in native.TYPES else "float64 is computed by the reference"


def dense(maps: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor, int]:
    """Both as contiguous float32, and the step from one image's thresholds to the next one's."""
    maps, thresholds = maps.to(torch.float32).contiguous(), thresholds.to(torch.float32).contiguous()
    return maps, thresholds, thresholds.shape[1] if thresholds.dim() == 2 else 0


@component_boxes.twin("cuda", needs=needs)
def _cuda(maps: Tensor, thresholds: Tensor, connectivity: int, relative: bool) -> tuple[Tensor, Tensor]:
    blocks = native.blocks(maps.device, maps.shape[0] * thresholds.shape[-1], 8 * maps.shape[1] * maps.shape[2])
    scratch = torch.empty((blocks, 2, *maps.shape[1:]), dtype=torch.int32, device=maps.device)
    launch = partial(native.launch, maps.device)
    return _compiled(launch, scratch.data_ptr(), blocks, maps, thresholds, connectivity, relative)


@component_boxes.twin("cpu", needs=needs)
def _cpu(maps: Tensor, thresholds: Tensor, connectivity: int, relative: bool) -> tuple[Tensor, Tensor]:
    return _compiled(native.call, 0, 0, maps, thresholds, connectivity, relative)


def _compiled(
    run: Callable[..., None],
    scratch: int,
    blocks: int,
    maps: Tensor,
    thresholds: Tensor,
    connectivity: int,
    relative: bool,
) -> tuple[Tensor, Tensor]:
    maps, thresholds, stride = dense(maps, thresholds)
    count = thresholds.shape[-1]
    boxes = torch.empty((maps.shape[0], count, 4), dtype=torch.int32, device=maps.device)
    areas = torch.empty((maps.shape[0], count), dtype=torch.int32, device=maps.device)
    run(
        "component_boxes",
        maps.data_ptr(),
        thresholds.data_ptr(),
        boxes.data_ptr(),
        areas.data_ptr(),
        scratch,
        blocks,
        stride,
        *maps.shape,
        count,
        connectivity,
        relative,
    )
    return boxes, areas
