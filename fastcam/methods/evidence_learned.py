"""What a method asks of a model that has learned to explain itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Learned:
    """`e` (B, 1, C, h, w): what the model's importance branch gives for the activations of the layer it reads."""

    at: ClassVar[str] = "input"  # the model has its own layer, none is chosen
    grad: ClassVar[bool] = False
    needs: ClassVar[str] = "the importance branch of a trained fastcam.LFI"
    cost: ClassVar[str] = "1 F"
    ranks: ClassVar[tuple[int, ...]] = (2,)
