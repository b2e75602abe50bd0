"""The survey's list: every method and meta-method, with what a short measurement changes of its defaults."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

import fastcam
from fastcam import CAM
from fastcam.image import Preprocess
from fastcam.methods.evidence_derivatives import Attention
from fastcam.methods.evidence_inputs import GuidedGradients
from fastcam.methods.evidence_learned import Learned
from fastcam.methods.evidence_perturbed import OptimizedScores
from fastcam.methods.registry import METHODS

FEWER: dict[str, dict[str, Any]] = {  # samples of the methods that take many; a row names them
    "fgvis": {"steps": 100},
    "iscam": {"samples": 2},
    "polycam": {"variant": "+"},
    "rise": {"samples": 1000},
    "sscam": {"samples": 2},
}
LEARNED = {name for name, m in METHODS.items() if isinstance(m.evidence, Learned)}  # need a network of their own
ATTENTION = {name for name, m in METHODS.items() if isinstance(m.evidence, Attention)}  # need a transformer
TO_THE_IMAGE = (GuidedGradients, OptimizedScores)  # at a layer, with backwards to the image
PARENT = "gradcam"  # of the meta-methods
COMPARED = 64  # pictures on which they are compared with it


@dataclass(frozen=True)
class Entry:
    """One line.

    Attributes:
        name: of the line.
        method: a name that `CAM` takes.
        options: where they are not the defaults.
        least: pictures at least, whatever a map costs, where it is not the usual number.
        most: pictures at most.
        pixels: whether the method must know how the images were normalized.
    """

    name: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    least: int | None = None
    most: int | None = None
    pixels: bool = False

    @property
    def what(self) -> str:
        """The options in words."""
        return ", ".join(f"{name}={value}" for name, value in self.options.items())

    @property
    def line(self) -> str:
        """Name and options."""
        return f"{self.name} ({self.what})" if self.options else self.name

    @property
    def through_the_image(self) -> bool:
        """Whether its backwards go through the whole network, or nearly."""
        evidence = METHODS[self.method].evidence if self.method in METHODS else None
        return evidence is not None and (evidence.at != "layer" or isinstance(evidence, TO_THE_IMAGE))

    def on(self, model: nn.Module, preprocess: Preprocess, **settings: Any) -> CAM:
        """The method on a network whose pictures are prepared so."""
        pixels = {"mean": preprocess.mean, "std": preprocess.std} if self.pixels else {}
        return CAM(model, self.method, **settings, **self.options, **pixels)


def entries(transformer: bool = False) -> Iterator[Entry]:
    """All methods by name, then the meta-methods over one of them.

    Args:
        transformer: with the methods that need one.
    """
    for name in fastcam.list_methods():
        if name not in LEARNED and (transformer or name not in ATTENTION):
            yield Entry(name, name, FEWER.get(name, {}))
    usual = {"least": COMPARED, "most": COMPARED}
    yield Entry(f"{PARENT}, the same pictures", PARENT, **usual)
    for kind in ("geometric", "intensity", "all"):
        yield Entry(f"evet({PARENT})", f"evet({PARENT})", {"transforms": kind}, **usual, pixels=kind != "geometric")
    for kind in ("sess", "smooth", "integrated", "augsmooth", "refine"):
        yield Entry(f"{kind}({PARENT})", f"{kind}({PARENT})", **usual)
