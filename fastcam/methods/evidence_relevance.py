"""What methods ask that explain by layer-wise relevance propagation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class LayerRelevance:
    """`r` (B, T, C, h, w): the relevance at the layer, or its mean over cells (B, T, C, 1, 1): reduce with means."""

    at: ClassVar[str] = "layer"
    grad: ClassVar[bool] = False
    needs: ClassVar[str] = "relevance at the layer"
    cost: ClassVar[str] = "1 F + 1 tail forward + targets x 1 walk back; GAP + linear: 1 F"


@dataclass(frozen=True)
class InputRelevance:
    """`r` (B, T, C, H, W): the relevance of the image's own values."""

    at: ClassVar[str] = "input"
    grad: ClassVar[bool] = False
    needs: ClassVar[str] = "relevance at the image"
    cost: ClassVar[str] = "2 F + targets x 1 walk back"


Relevance = LayerRelevance | InputRelevance
