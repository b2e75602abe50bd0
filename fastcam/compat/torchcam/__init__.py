"""torchcam 0.5's package by its own names: `methods`, `metrics`, `explain`, `utils`, each loaded when asked for.

The user runs the network with an extractor's hooks live and asks it for maps at the layer's size:

    from fastcam.compat.torchcam.methods import LayerCAM
    with LayerCAM(model, "layer4") as extractor:
        scores = model(images)
        (maps,) = extractor(scores.argmax(1).tolist(), scores)

Where the maps differ from torchcam's, `fastcam.compat.differences` says why.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from types import ModuleType

__all__ = ("explain", "methods", "metrics", "utils", "version")

__version__ = "0.5.0"  # of the torchcam whose contract this is

# Each of torchcam's own modules has a file here, or is a package's part of the same name.
ALIASES: dict[str, str] = {}

_MODULES = frozenset(__all__) - {"version"}


def __getattr__(name: str) -> ModuleType:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'torchcam' has no attribute {name!r}; it is served by {__name__}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
