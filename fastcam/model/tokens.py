"""Where the positions of a layer's output lie: (B, C, h, w), (B, h, w, C) or (B, prefix + h*w, C).

Layers of signals and of volumes are seen as maps of pictures too, so that no formula needs to know: a signal of l
samples is a row (1, l), a volume has its depth in the rows, (d*h, w).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

from torch import Tensor, nn

from fastcam.ops.spaces import as_pictures

MOST_PREFIX_TOKENS = 16  # class, distillation and register tokens; the largest in timm is 9
FEATURES_LAST = (nn.Linear, nn.LayerNorm, nn.MultiheadAttention, nn.RNNBase)
FEATURES_LAST += (nn.TransformerEncoderLayer, nn.TransformerEncoder)


def cells_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """The (h, w) under which the positions of this shape are seen: (1, l), (h, w) or (d*h, w)."""
    return math.prod(shape[:-1]), shape[-1]


def spread(maps: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The inverse of seeing positions as a picture: (..., h, w) to (..., *shape), a view."""
    return maps.squeeze(-2) if len(shape) == 1 else maps.unflatten(-2, shape[:2]) if len(shape) == 3 else maps


def gives_features_last(module: nn.Module) -> bool:
    """Whether a module surely gives (B, l, C) of a signal, which its shape alone does not tell from (B, C, l)."""
    return isinstance(module, FEATURES_LAST) and not type(module).__name__.endswith(("1d", "2d", "3d"))


@dataclass(frozen=True)
class Layout:
    """How to see a layer's output as maps.

    Attributes:
        kind: "maps" (B, C, h, w), "last" (B, h, w, C) or "tokens" (B, prefix + h*w, C); of signals and volumes
            (B, C, *space) and (B, *space, C).
        size: (h, w), in cells.
        prefix: tokens before the grid (class, distillation, registers).
        space: (l,) of a signal's layer, (d, h, w) of a volume's; empty where it is `size` itself.
    """

    kind: str
    size: tuple[int, int]
    prefix: int = 0
    space: tuple[int, ...] = ()

    @classmethod
    def of(cls, kind: str, shape: tuple[int, ...]) -> Layout:
        """The layout of positions of this shape, without prefix tokens."""
        return cls(kind, cells_of(shape), 0, () if len(shape) == 2 else shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes of the positions: (l,), (h, w) or (d, h, w)."""
        return self.space or self.size

    def maps(self, output: Tensor) -> Tensor:
        """The output as maps, a view.

        Args:
            output: as the layer gives it.

        Returns:
            (B, C, h, w)
        """
        if self.kind == "maps":
            return as_pictures(output)
        if self.kind == "last":
            return as_pictures(output.movedim(-1, 1))
        return output[:, self.prefix :].transpose(1, 2).unflatten(2, self.size)

    def positions(self, maps: Tensor) -> Tensor:
        """The inverse of `maps` without prefix tokens: what a position-wise module takes.

        Args:
            maps: (B, C, h, w)

        Returns:
            (B, C, h, w), (B, h, w, C) or (B, h*w, C); (B, C, *space) and (B, *space, C).
        """
        if self.kind == "maps":
            return self.spread(maps)
        if self.kind == "last":
            return self.spread(maps).movedim(1, -1)
        return maps.flatten(2).transpose(1, 2)

    def from_positions(self, positions: Tensor) -> Tensor:
        """What a position-wise module gave, as maps (B, C, h, w)."""
        return replace(self, prefix=0).maps(positions)

    def spread(self, maps: Tensor) -> Tensor:
        """Maps (..., h, w) in the shape of the positions: (..., l), (..., h, w) or (..., d, h, w)."""
        return spread(maps, self.shape)

    def output(self, maps: Tensor, like: Tensor) -> Tensor:
        """The layer's output with its grid replaced by `maps`; prefix tokens stay those of `like`.

        Args:
            maps: (n, C, h, w)
            like: an output of the layer for n images, or for one that serves all n.

        Returns:
            n outputs in the layer's own layout and dtype.
        """
        positions = self.positions(maps).to(like.dtype)
        if not self.prefix:
            return positions
        out = positions.new_empty(len(maps), like.shape[1], like.shape[2])
        out[:, : self.prefix] = like[:, : self.prefix]
        out[:, self.prefix :] = positions
        return out


@functools.lru_cache(maxsize=4096)  # a network gives few shapes, many times
def find_layout(shape: tuple[int, ...], image_size: tuple[int, ...], last: bool = False) -> Layout | None:
    """The layout of an output of this shape, or None where it holds no map of more than one cell.

    A grid keeps the picture's aspect ratio, which tells (B, C, h, w) from (B, h, w, C) and finds the number
    of prefix tokens without asking the model. Three axes are tokens of a picture, and positions of a signal.

    Args:
        shape: of the layer's output, batch first.
        image_size: (H, W) in pixels; (L,) of signals, (D, H, W) of volumes.
        last: whether features are known to stand last, see `gives_features_last`; of signals only.

    Returns:
        The layout, or None.
    """
    rank = len(image_size)
    if rank == 1:
        layout = _of_signals(shape, image_size[0], last) if len(shape) == 3 else None
        return layout if layout is not None and layout.size[1] > 1 else None
    height, width = image_size[-2:]
    if len(shape) == rank + 2:

        def mismatch(axes: tuple[int, ...]) -> float:
            larger = any(n > most for n, most in zip(axes, image_size, strict=True))
            return abs(axes[-2] - axes[-1] * height / width) + (100.0 if larger else 0.0)

        kind, axes = ("last", shape[1:-1]) if mismatch(shape[1:-1]) < mismatch(shape[2:]) else ("maps", shape[2:])
        return Layout.of(kind, axes) if math.prod(axes) > 1 else None
    if len(shape) == 3 and rank == 2:
        for prefix in range(min(MOST_PREFIX_TOKENS, shape[1])):
            cells = shape[1] - prefix
            h = round(math.sqrt(cells * height / width))
            if cells > 1 and h and cells % h == 0 and h * width == (cells // h) * height:
                return Layout("tokens", (h, cells // h), prefix)
    return None


def _of_signals(shape: tuple[int, ...], samples: int, last: bool) -> Layout:
    """(B, l, C) where that is known, or where the other axis is too long for the signal; else (B, C, l)."""
    last = last or (shape[2] > samples >= shape[1])
    return Layout.of("last", shape[1:2]) if last else Layout.of("maps", shape[2:])
