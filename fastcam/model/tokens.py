"""Where the positions of a layer's output lie: (B, C, h, w), (B, h, w, C) or (B, prefix + h*w, C)."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from torch import Tensor

MOST_PREFIX_TOKENS = 16  # class, distillation and register tokens; the largest in timm is 9


@dataclass(frozen=True)
class Layout:
    """How to see a layer's output as maps.

    Attributes:
        kind: "maps" (B, C, h, w), "last" (B, h, w, C) or "tokens" (B, prefix + h*w, C).
        size: (h, w), in cells.
        prefix: tokens before the grid (class, distillation, registers).
    """

    kind: str
    size: tuple[int, int]
    prefix: int = 0

    def maps(self, output: Tensor) -> Tensor:
        """The output as maps, a view.

        Args:
            output: as the layer gives it.

        Returns:
            (B, C, h, w)
        """
        if self.kind == "maps":
            return output
        if self.kind == "last":
            return output.permute(0, 3, 1, 2)
        return output[:, self.prefix :].transpose(1, 2).unflatten(2, self.size)

    def positions(self, maps: Tensor) -> Tensor:
        """The inverse of `maps` without prefix tokens: what a position-wise module takes.

        Args:
            maps: (B, C, h, w)

        Returns:
            (B, C, h, w), (B, h, w, C) or (B, h*w, C)
        """
        if self.kind == "maps":
            return maps
        if self.kind == "last":
            return maps.permute(0, 2, 3, 1)
        return maps.flatten(2).transpose(1, 2)

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
def find_layout(shape: tuple[int, ...], image_size: tuple[int, int]) -> Layout | None:
    """The layout of an output of this shape, or None where it holds no map of more than one cell.

    A grid keeps the picture's aspect ratio, which tells (B, C, h, w) from (B, h, w, C) and finds the number
    of prefix tokens without asking the model.

    Args:
        shape: of the layer's output, batch first.
        image_size: (H, W) in pixels.

    Returns:
        The layout, or None.
    """
    height, width = image_size
    if len(shape) == 4:

        def mismatch(h: int, w: int) -> float:
            return abs(h - w * height / width) + (100.0 if h > height or w > width else 0.0)

        first, last = mismatch(shape[2], shape[3]), mismatch(shape[1], shape[2])
        layout = Layout("last", (shape[1], shape[2])) if last < first else Layout("maps", (shape[2], shape[3]))
        return layout if math.prod(layout.size) > 1 else None
    if len(shape) == 3:
        for prefix in range(min(MOST_PREFIX_TOKENS, shape[1])):
            cells = shape[1] - prefix
            h = round(math.sqrt(cells * height / width))
            if cells > 1 and h and cells % h == 0 and h * width == (cells // h) * height:
                return Layout("tokens", (h, cells // h), prefix)
    return None
