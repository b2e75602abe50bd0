"""What layers of transformers and detectors give, seen as maps (B, C, h, w)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def fasterrcnn_reshape_transform(x: Mapping[str, Tensor]) -> Tensor:
    """The magnitudes of a feature pyramid's levels, resized to the level "pool" and joined along the channels.

    Args:
        x: each level's maps (B, C, h, w) by name, one of them "pool".

    Raises:
        ValueError: anything else.
    """
    if not isinstance(x, Mapping) or "pool" not in x:
        found = f"keys {list(x)}" if isinstance(x, Mapping) else type(x).__name__
        raise ValueError(f"expected the levels of a feature pyramid by name, one of them 'pool', got {found}")
    size = x["pool"].shape[-2:]
    return torch.cat([interpolate(level.abs(), size, mode="bilinear") for level in x.values()], 1)


def swinT_reshape_transform(tensor: Tensor, height: int = 7, width: int = 7) -> Tensor:  # noqa: N802 - the peer's name
    """Tokens (B, height · width, C), row by row, as maps (B, C, height, width).

    Maps with their channels last, (B, h, w, C), as newer Swins give them, are taken as they are.

    Raises:
        ValueError: another number of tokens.
    """
    return tensor.permute(0, 3, 1, 2) if tensor.dim() == 4 else _maps(tensor, height, width, 0)


def vit_reshape_transform(tensor: Tensor, height: int = 14, width: int = 14) -> Tensor:
    """Tokens (B, 1 + height · width, C), the class token first, as maps (B, C, height, width).

    Raises:
        ValueError: another number of tokens.
    """
    return _maps(tensor, height, width, 1)


def _maps(tokens: Tensor, height: int, width: int, before: int) -> Tensor:
    if tokens.dim() != 3 or tokens.shape[1] != before + height * width:
        first = f"{before} + " if before else ""
        raise ValueError(
            f"the layer gives {tuple(tokens.shape)}, expected (B, {first}{height} * {width}, C); give the grid of the "
            "model's tokens, such as lambda tokens: vit_reshape_transform(tokens, height=16, width=16)"
        )
    return tokens[:, before:].unflatten(1, (height, width)).permute(0, 3, 1, 2)
