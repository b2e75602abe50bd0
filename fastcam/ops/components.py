"""All connected components above thresholds, not only the largest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastcam.ops import arguments, native
from fastcam.ops.component_boxes import check, dense, needs, regions
from fastcam.ops.dispatch import Op

GUESS = 8  # components per image and threshold that the kernel finds room for at its first try


@Op
def components(
    maps: Tensor,
    thresholds: Tensor | Sequence[float],
    connectivity: int = 8,
    relative: bool = True,
    min_area: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    """Box and area of every connected component of {map > t · max(map)} with at least `min_area` pixels.

    Thresholds, their products and NaN are as in `component_boxes`. On noise there are about as many components as
    pixels at every threshold; `min_area` keeps such results small.

    Args:
        maps: (B, H, W).
        thresholds: (T,) or (B, T), in any order; T at most 65535.
        connectivity: 8 (diagonal neighbors are connected) or 4.
        relative: Whether thresholds are fractions of each map's maximum, or else values.
        min_area: Pixels, at least 1.

    Returns:
        Boxes (M, 4) int32, inclusive corners x0 y0 x1 y1, areas (M,) int32, and owners (M, 2) int64: image and
        threshold. Sorted by image, threshold, then first pixel in row-major order.

    Raises:
        TypeError: maps or thresholds are no floating numbers.
        ValueError: As in `component_boxes`, or min_area below 1.
    """
    boxes, areas, owners = [], [], []
    thresholds = torch.as_tensor(thresholds, dtype=arguments.working(maps), device=maps.device)
    for image, span, found in regions(maps, thresholds, connectivity, relative):
        threshold, first = (found.areas >= min_area).nonzero(as_tuple=True)
        boxes.append(found.boxes[threshold, first])
        areas.append(found.areas[threshold, first])
        owners.append(torch.stack([torch.full_like(threshold, image), threshold + span.start], 1))
    return torch.cat(boxes), torch.cat(areas), torch.cat(owners)


@components.arguments
def _arguments(
    maps: Tensor,
    thresholds: Tensor | Sequence[float],
    connectivity: int = 8,
    relative: bool = True,
    min_area: int = 1,
) -> tuple[Tensor, Tensor, int, bool, int]:
    if min_area < 1:
        raise ValueError(f"min_area must be at least 1 pixel, got {min_area}")
    return *check(maps, thresholds, connectivity, relative), min_area


@components.twin("cpu", needs=needs)
def _cpu(
    maps: Tensor, thresholds: Tensor, connectivity: int, relative: bool, min_area: int
) -> tuple[Tensor, Tensor, Tensor]:
    maps, thresholds, stride = dense(maps, thresholds)
    count = torch.zeros(1, dtype=torch.int64)
    capacity = GUESS * maps.shape[0] * thresholds.shape[-1]
    while True:
        boxes = torch.empty((capacity, 4), dtype=torch.int32)
        areas = torch.empty(capacity, dtype=torch.int32)
        owners = torch.empty((capacity, 2), dtype=torch.int64)
        native.call(
            "components",
            maps.data_ptr(),
            thresholds.data_ptr(),
            boxes.data_ptr(),
            areas.data_ptr(),
            owners.data_ptr(),
            count.data_ptr(),
            capacity,
            stride,
            *maps.shape,
            thresholds.shape[-1],
            min_area,
            connectivity,
            relative,
        )
        found = int(count)
        if found <= capacity:
            return boxes[:found], areas[:found], owners[:found]
        capacity = found
