"""How much of a map lies in boxes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcam.ops import arguments, native
from fastcam.ops.dispatch import Op

EDGES = ("exclusive", "inclusive")


@Op
def energy_in_boxes(maps: Tensor, boxes: Tensor, edges: str = "exclusive") -> tuple[Tensor, Tensor]:
    """Sum of each map over the union of its boxes, and over all of it, in float64.

    A pixel (y, x) is in a box where x0 <= x < x1 and y0 <= y < y1, or for "inclusive" edges x0 <= x <= x1 and
    y0 <= y <= y1. A box with x1 < x0, y1 < y0 or NaN holds nothing: fill with those where images have different
    numbers of boxes. NaN and infinity outside the boxes do not count inside. Boxes get no gradient.

    Args:
        maps: (B, H, W).
        boxes: (B, N, 4) float, corners x0 y0 x1 y1 in pixels of the maps, which may lie outside. N may be 0.
        edges: "exclusive" or "inclusive": whether x1 and y1 belong to the box.

    Returns:
        inside (B,) and total (B,), float64.

    Raises:
        TypeError: Not floating tensors.
        ValueError: Wrong shapes or an unknown edges.
    """
    height, width = maps.shape[1:]
    upper = torch.le if edges == "inclusive" else torch.lt
    x0, y0, x1, y1 = boxes.detach().double()[..., None].unbind(2)
    x, y = (torch.arange(n, dtype=torch.float64, device=maps.device) for n in (width, height))
    columns, rows = (x0 <= x) & upper(x, x1), (y0 <= y) & upper(y, y1)
    covered = torch.zeros_like(maps, dtype=torch.bool)
    for n in range(boxes.shape[1]):
        covered |= rows[:, n, :, None] & columns[:, n, None, :]
    values = maps.double()
    return torch.where(covered, values, 0.0).sum((1, 2)), values.sum((1, 2))


@energy_in_boxes.arguments
def _arguments(maps: Tensor, boxes: Tensor, edges: str = "exclusive") -> tuple[Tensor, Tensor, str]:
    arguments.tensor("maps", maps, "B H W")
    if not isinstance(boxes, Tensor) or boxes.dim() != 3 or boxes.shape[1] > 0:
        arguments.tensor("boxes", boxes, "B N 4", maps)
    arguments.same("boxes' batch", boxes.shape[0], maps.shape[0], "maps")
    arguments.same("boxes' last axis", boxes.shape[2], 4, "x0 y0 x1 y1")
    arguments.choice("edges", edges, EDGES)
    return maps, boxes, edges


def _needs(maps: Tensor, boxes: Tensor, edges: str) -> str | None:
    for tensor in (maps, boxes):
        if tensor.dtype not in native.TYPES:
            return "float64 is computed by the reference"
    return None


@energy_in_boxes.twin("triton", needs=_needs)
def _triton(*args: Any) -> tuple[Tensor, Tensor]:
    from fastcam.ops.triton.energy_in_boxes import energy_in_boxes as launch

    return launch(*args)


@energy_in_boxes.twin("cpu", needs=_needs)
def _cpu(maps: Tensor, boxes: Tensor, edges: str) -> tuple[Tensor, Tensor]:
    maps, boxes = maps.to(torch.float32).contiguous(), boxes.to(torch.float32).contiguous()
    inside = torch.empty(maps.shape[0], dtype=torch.float64)
    total = torch.empty_like(inside)
    native.call(
        "energy_in_boxes",
        maps.data_ptr(),
        boxes.data_ptr(),
        inside.data_ptr(),
        total.data_ptr(),
        *boxes.shape[:2],
        *maps.shape[1:],
        edges == "inclusive",
    )
    return inside, total
