"""The survey's list: every method and meta-method, with what a short measurement changes of its defaults."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

import fastcam
from fastcam import CAM
from fastcam.methods.registry import METHODS

FEWER: dict[str, dict[str, Any]] = {  # samples of the methods that take many; a row names them
    "sscam": {"samples": 2},
    "iscam": {"samples": 2},
}
LEARNED = {"lficam"}  # needs a network that was trained for it
PARENT = "gradcam"  # of the meta-methods
METAS: dict[str, tuple[str, dict[str, Any]]] = {}


@dataclass(frozen=True)
class Entry:
    """One line.

    Attributes:
        name: of the line.
        method: what `CAM` takes as its method.
        options: where they are not the defaults.
    """

    name: str
    method: Any
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def what(self) -> str:
        """The options in words."""
        return ", ".join(f"{name}={value}" for name, value in self.options.items())

    @property
    def through_the_image(self) -> bool:
        """Whether its backwards go through the whole network."""
        return self.method in METHODS and METHODS[self.method].evidence.at == "input"

    def on(self, model: nn.Module, **settings: Any) -> CAM:
        """The method on a network."""
        return CAM(model, self.method, **settings, **self.options)


def entries() -> Iterator[Entry]:
    """All methods by name, then the meta-methods over one of them."""
    for name in fastcam.list_methods():
        if name not in LEARNED:
            yield Entry(name, name, FEWER.get(name, {}))
