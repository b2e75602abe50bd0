"""The order in which insertion and deletion take the pixels of a map."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from fastcam.ops import arguments, native
from fastcam.ops.dispatch import Op


@Op
def rank_pixels(maps: Tensor) -> Tensor:
    """Position of each pixel in falling order of value: 0 for the highest.

    Equal values keep the order of their flat indices (-0.0 equals 0.0), NaN ranks last.

    Args:
        maps: (N, h, w), any float dtype.

    Returns:
        (N, h, w) int32, each map a permutation of 0 … h·w - 1.
    """
    # Rising order of 0 - v: torch sorts NaN last, and 0 - (-0.0) is 0.0.
    order = (0 - maps.detach().flatten(1)).argsort(dim=1, stable=True)
    places = torch.arange(order.shape[1], dtype=torch.int32, device=maps.device).expand_as(order)
    return torch.empty_like(order, dtype=torch.int32).scatter_(1, order, places).view(maps.shape)


@rank_pixels.arguments
def _arguments(maps: Tensor) -> tuple[Tensor]:
    arguments.tensor("maps", maps, "N h w")
    if maps.shape[1] * maps.shape[2] >= 2**31:
        raise ValueError(f"maps has {maps.shape[1] * maps.shape[2]} pixels, at most {2**31 - 1} fit int32; resize it")
    return (maps,)


def _needs(maps: Tensor) -> str | None:
    return "float64 is sorted by the reference" if maps.dtype == torch.float64 else None


@rank_pixels.twin("cuda", needs=_needs)
def _cuda(maps: Tensor) -> Tensor:
    pixels = maps.shape[1] * maps.shape[2]
    blocks = native.blocks(maps.device, len(maps), 16 * pixels)
    scratch = torch.empty((blocks, 2, pixels), dtype=torch.int64, device=maps.device)
    return _compiled(partial(native.launch, maps.device), scratch.data_ptr(), blocks, maps)


@rank_pixels.twin("cpu", needs=_needs)
def _cpu(maps: Tensor) -> Tensor:
    return _compiled(native.call, 0, 0, maps)


def _compiled(run: Callable[..., None], scratch: int, blocks: int, maps: Tensor) -> Tensor:
    maps = maps.to(torch.float32).contiguous()  # exact: no two 16-bit values become equal
    ranks = torch.empty(maps.shape, dtype=torch.int32, device=maps.device)
    pixels = maps.shape[1] * maps.shape[2]
    run("rank_pixels", maps.data_ptr(), ranks.data_ptr(), scratch, blocks, len(maps), pixels)
    return ranks
