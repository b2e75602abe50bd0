"""What a method asks of the network. Shapes: B images, T targets, C channels, K masks, (h, w) cells.

Every evidence says in words what it `needs` and its `cost`; `at`, where its maps lie: at a "layer", or at the "input",
where none is chosen; and `grad`, whether the forward is recorded for a backward from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .evidence_derivatives import Derivatives
from .evidence_inputs import Inputs
from .evidence_learned import Learned
from .evidence_perturbed import Perturbed
from .evidence_relevance import Relevance

Options = dict[str, Any]


@dataclass(frozen=True)
class Activations:
    """`a` (B, 1, C, h, w) and nothing else."""

    at: ClassVar[str] = "layer"
    grad: ClassVar[bool] = False
    needs: ClassVar[str] = "activations"
    cost: ClassVar[str] = "1 forward"


@dataclass(frozen=True)
class Classifier:
    """`w` (B, T, C, 1, 1): the rows of the linear layer that reads the pooled activations."""

    at: ClassVar[str] = "layer"
    grad: ClassVar[bool] = False
    needs: ClassVar[str] = "activations, and the weights of GAP + linear"
    cost: ClassVar[str] = "1 forward"


@dataclass(frozen=True)
class Gradients:
    """`g` = dS/dA (B, T, C, h, w), or (B, T, C, 1, 1) where it is the same at every cell: reduce with means.

    Attributes:
        noisy: options -> (samples, spread) of Gaussian noise on the images, or None for the images themselves.
        path: whether to average over the straight path from a baseline.
    """

    noisy: bool = False
    path: bool = False
    at: ClassVar[str] = "layer"
    grad: ClassVar[bool] = True
    needs: ClassVar[str] = "gradients at the layer"

    @property
    def cost(self) -> str:
        """In forwards F and backwards through the tail T."""
        if self.noisy or self.path:
            return "samples x (1 F + 1 tail backward); GAP + linear: samples x 1 F"
        return "1 F + 1 tail backward; GAP tail: 1 F"


@dataclass(frozen=True)
class InputScores:
    """`s` (B, T, K): mean scores of the image under K activation masks; `constant` (B, K) marks empty masks.

    Attributes:
        normalize: options -> "after" (masks scaled to [0, 1] at full size), "before" (at the layer's) or "never".
        probability: options -> whether a class score is its softmax probability.
        draw: (options, (C, H, W), generator) -> (N, ...) what distinguishes the N samples of a mask, or None.
        sample: (mask (1, H, W), image (C, H, W), draws (n, ...), options) -> (n, C, H, W), with `draw`.
    """

    normalize: Callable[[Options], str] = lambda options: options.get("normalize", "after")
    probability: Callable[[Options], bool] = lambda options: options.get("variant") == "official"
    draw: Callable[[Options, tuple[int, int, int], torch.Generator], Tensor] | None = None
    sample: Callable[[Tensor, Tensor, Tensor, Options], Tensor] | None = None
    at: ClassVar[str] = "layer"
    grad: ClassVar[bool] = False
    needs: ClassVar[str] = "scores of masked images"

    @property
    def cost(self) -> str:
        """In forwards F, for K distinct live channels or the budget, whichever is less."""
        return f"(1 + {'K' if self.draw is None else 'samples x K'}) F, K <= budget"


@dataclass(frozen=True)
class LayerScores:
    """`s` (B, T, K): scores of masked activations, and `y` (B, T): scores of the image itself.

    Attributes:
        over: "channels" (one of them off, K = C) or "cells" (one of them on, K = h*w).
    """

    over: str
    at: ClassVar[str] = "layer"
    grad: ClassVar[bool] = False
    needs: ClassVar[str] = "scores of masked activations"

    @property
    def cost(self) -> str:
        """In forwards F and forwards of the tail."""
        return f"1 F + {'C' if self.over == 'channels' else 'h*w'} tail forwards; GAP tail: 1 F"


@dataclass(frozen=True)
class Contributions:
    """`c` (B, T, C): DeepLIFT-Rescale contributions of each channel against zero, summed over cells."""

    at: ClassVar[str] = "layer"
    grad: ClassVar[bool] = False
    needs: ClassVar[str] = "contributions at the layer"
    cost: ClassVar[str] = "1 F + 2 tail forwards + 1 tail backward; GAP + linear: 1 F"


AtLayer = Activations | Classifier | Gradients | InputScores | LayerScores | Contributions
Evidence = AtLayer | Derivatives | Inputs | Learned | Perturbed | Relevance
