"""What a call gives: the maps, and how signed maps of a layer become what a user sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .model.outputs import require_finite, widen
from .model.tally import Tally
from .ops.spaces import finish_maps


@dataclass(frozen=True)
class Explanation:
    """Maps and what they stand on.

    Attributes:
        maps: (B, H, W), or (B, T, H, W) for T targets an image; (B, L) of signals, (B, D, H, W) of volumes, with T
            likewise. float32 in [0, 1], on the images' device. A map that is the same everywhere is zero.
        raw: (B, h, w) or (B, T, h, w) signed and not normalized, at the layer's size, or (l,) or (d, h, w) in place of
            (h, w); a list of them for a list of layers.
        logits: what the model gave, (B, classes) for a classifier.
        target: (B,) or (B, T) classes that were explained, None for a callable.
        layer: names of the layers.
        method: name of the method.
        cost: what these maps took: images forwarded, tails, backwards and seconds; of a forward that methods
            share, each counts the whole.
        attributions: (B, C, H, W) or (B, T, C, H, W), signed, of methods that explain the image itself; else None.
    """

    maps: Tensor
    raw: Tensor | list[Tensor]
    logits: Any
    target: Tensor | None
    layer: list[str]
    method: str
    cost: Tally
    attributions: Tensor | None = None


def finish(raw: Tensor, size: tuple[int, ...], clip: str) -> Tensor:
    """Signed maps to the images' size and to [0, 1].

    Args:
        raw: (B, T, h, w), (B, T, l) or (B, T, d, h, w)
        size: (H, W), in pixels; (L,) or (D, H, W).
        clip: where negative values are cut: "before" resizing, "after" it, or "never".

    Returns:
        (B, T, *size) float32; a map that is the same everywhere is zero.

    Raises:
        ValueError: NaN or infinite values.
    """
    batch, targets, *shape = raw.shape
    require_finite(raw, "the map has", "check the model's weights, or choose another layer")
    seen = widen(raw).flatten(0, 1).flatten(1, -2) if len(shape) > 1 else widen(raw).flatten(0, 1).unsqueeze(1)
    return finish_maps(seen, tuple(shape), size, clip).unflatten(0, (batch, targets)).float()
