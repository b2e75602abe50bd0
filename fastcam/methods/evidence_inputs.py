"""What methods ask that explain the image itself: its gradients, plain or under a rule; its contributions; its mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class InputGradients:
    """`x` (B, 1, C, H, W) and `g` = dS/dx (B, T, C, H, W); the formula gives attributions (B, T, C, H, W).

    Attributes:
        over: "" for the image itself; "noise" for noisy versions, with g (2, B, T, C, H, W) the mean and the variance
            of their gradients; "path" for the line from a baseline, with x less the baseline and the mean g.
        rule: what ReLUs do in the backward: None for their derivative, "deconvnet" or "guided".
    """

    over: str = ""
    rule: str | None = None
    at: ClassVar[str] = "input"
    grad: ClassVar[bool] = True

    @property
    def needs(self) -> str:
        """In words."""
        return "gradients at the image" + (f", ReLUs under the {self.rule} rule" if self.rule else "")

    @property
    def cost(self) -> str:
        """In forwards F and backwards through the whole network."""
        return "(1 + samples) F + samples backwards" if self.over else "1 F + 1 backward"


@dataclass(frozen=True)
class GuidedGradients:
    """`g` (B, T, C, H, W), gradients at the image with guided ReLUs, and the `cam` (B, T, 1, H, W) of a layer."""

    at: ClassVar[str] = "layer"
    grad: ClassVar[bool] = True
    needs: ClassVar[str] = "gradients at the layer, and at the image with guided ReLUs"
    cost: ClassVar[str] = "2 F + 1 backward + 1 tail backward; GAP tail: no tail backward"


@dataclass(frozen=True)
class InputContributions:
    """`dx` (B, 1, C, H, W), the images less a baseline, and `m` (B, T, C, H, W), DeepLIFT's multipliers."""

    at: ClassVar[str] = "input"
    grad: ClassVar[bool] = False
    needs: ClassVar[str] = "DeepLIFT multipliers at the image"
    cost: ClassVar[str] = "3 F + 1 backward"


@dataclass(frozen=True)
class BiasGradients:
    """`x`, `g` as in `InputGradients`, and `b` (B, T, H, W): the resized maps of the bias gradients, added up."""

    rule: ClassVar[str] = "biases"
    at: ClassVar[str] = "input"
    grad: ClassVar[bool] = True
    needs: ClassVar[str] = "gradients at the image and at every bias"
    cost: ClassVar[str] = "1 F + 1 backward"


@dataclass(frozen=True)
class PixelMask:
    """`x` (B, 1, C, H, W) and `kept` (B, T, C, H, W) in [0, 1]: the mask that a search ended with."""

    at: ClassVar[str] = "input"
    grad: ClassVar[bool] = False
    needs: ClassVar[str] = "scores of the masked image, and their gradients"
    cost: ClassVar[str] = "(1 + steps) F + steps backwards, for each target"


Inputs = InputGradients | GuidedGradients | InputContributions | BiasGradients | PixelMask
