"""RefineCAM: maps of several layers, multiplied."""

from __future__ import annotations

import copy
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fastcam.explanation import finish
from fastcam.fusion import resized
from fastcam.model.layers import SCALES

from .base import Meta
from .call import Call

VARIANTS = ("image", "layer")


@dataclass(frozen=True)
class Refine(Meta):
    """Π_l m_l, the product of the maps of several layers in [0, 1] (RefineCAM, 2026).

    The layers are `CAM`'s; None is the last map of each resolution, where both libraries that have the method ask for a
    list. All of them share one forward.

    Args:
        base: the method inside.
        variant: "image", the product of maps at the images' size as pytorch-grad-cam makes it, or "layer": at the size
            of the largest map, as torchcam does.

    Raises:
        ValueError: an unknown variant; a method that is at no layer, or joins several by itself.
    """

    base: str | Meta = "gradcampp"
    _: KW_ONLY
    variant: str = "image"

    formula: ClassVar[str] = "prod_l m_l"
    paper: ClassVar[str] = "RefineCAM 2026, arXiv:2605.14641"
    cost: ClassVar[str] = "1 R at several layers"
    ranks: ClassVar[tuple[int, ...]] = (1, 2, 3)

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        if self.variant not in VARIANTS:
            raise ValueError(f"refine: variant={self.variant!r} is not one of {', '.join(map(repr, VARIANTS))}")
        if isinstance(self.base, Meta):
            raise ValueError(
                f"refine multiplies maps of layers, {self.base.name} gives one for all; take refine inside"
            )

    def combine(self, call: Call) -> Tensor:
        """Multiply."""
        cam, size = copy.copy(call.cam), tuple(call.images.shape[2:])
        if cam.method.evidence.at != "layer":
            raise ValueError(
                f"refine multiplies maps of layers, and {cam.method.name} has one map for all; take a method of one "
                "layer, such as gradcampp"
            )
        cam.layer = SCALES if cam.layer is None else cam.layer
        clip = cam.method.clip(cam.options)
        found = cam.explain(
            call.images, *call.args, target=call.asked, differentiable=call.differentiable, **call.kwargs
        )
        call.own, call.cam.layer_names = found, cam.layer_names
        raws = [call.shaped(raw) for raw in (found.raw if isinstance(found.raw, list) else [found.raw])]
        if self.variant == "layer":
            largest = max((tuple(raw.shape[2:]) for raw in raws), key=lambda shape: (len(shape), *shape))
            # Scaled where they are, then resized: only the product reaches 1 again.
            raws = [finish(raw, tuple(raw.shape[2:]), clip) for raw in raws]
            return torch.stack([resized(raw, largest) for raw in raws]).prod(0)
        return torch.stack([finish(raw, size, clip) for raw in raws]).prod(0)
