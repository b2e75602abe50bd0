"""The maps of several layers in one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .explanation import finish
from .model.outputs import widen

FUSIONS = ("mean", "max", "product", "tanhmax", "tanhmax_all")
GAMMA = 2.0
SHALLOW = 8  # VGG16's first three stages have a cell for 2, 4 and 8 pixels


def fuse(how: str, maps: Sequence[Tensor], raws: Sequence[Tensor]) -> Tensor:
    """Several layers' maps in one, scaled to [0, 1] again.

    "mean", "max" and "product" are of the finished maps. "tanhmax" is LayerCAM's (Jiang 2021): the largest of
    M / max M, in which shallow layers are tanh(2 M / max M), so that their many small values count. The paper does so
    with the first three stages of VGG16; here a layer is shallow whose cells are of 8 pixels or less. "tanhmax_all"
    does it with every layer, as torchcam.

    Args:
        how: one of `FUSIONS`.
        maps: of each layer, (B, T, H, W) in [0, 1].
        raws: the same at the layers' sizes, (B, T, h, w), signed.

    Returns:
        (B, T, H, W) in [0, 1].
    """
    size = tuple(maps[0].shape[2:])
    if how.startswith("tanhmax"):
        fused = torch.stack([_share(raw, size, how == "tanhmax_all") for raw in raws]).amax(0)
    elif how == "product":
        fused = torch.stack(list(maps)).prod(0)
    else:
        stacked = torch.stack(list(maps))
        fused = stacked.mean(0) if how == "mean" else stacked.amax(0)
    return finish(fused, size, "never")


def resized(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Linear in each axis, half-pixel centers. (B, T, ...)"""
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    return interpolate(maps, size, mode=mode, align_corners=False)


def _share(raw: Tensor, size: tuple[int, ...], every: bool) -> Tensor:
    """M / max M, or its tanh, at the images' size."""
    m = widen(raw).relu()
    top = m.flatten(2).amax(2).view(*m.shape[:2], *[1] * len(size))
    m = m / torch.where(top > 0, top, 1)
    shallow = all(cells * SHALLOW >= length for cells, length in zip(m.shape[2:], size, strict=True))
    return resized((GAMMA * m).tanh() if every or shallow else m, size)
