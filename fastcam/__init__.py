"""Class activation maps, compiled: the papers' own maps, many times sooner.

>>> from fastcam import list_methods
>>> list_methods("*score*")
['scorecam']
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .allocator import keep_freed_memory
    from .cam import CAM, explain
    from .counterfactuals import Counterfactual, counterfactual
    from .explanation import Explanation
    from .factors import Factors, factorize
    from .lfi import LFI
    from .meta import AugSmooth, Evet, Integrated, Refine, Sess, Smooth, list_meta_methods
    from .methods.registry import list_methods
    from .metrics.registry import list_metrics
    from .targets import ClassesOf, TopK

__version__ = "0.1.0"
__all__ = [
    "CAM",
    "LFI",
    "AugSmooth",
    "ClassesOf",
    "Counterfactual",
    "Evet",
    "Explanation",
    "Factors",
    "Integrated",
    "Refine",
    "Sess",
    "Smooth",
    "TopK",
    "__version__",
    "counterfactual",
    "explain",
    "factorize",
    "keep_freed_memory",
    "list_meta_methods",
    "list_methods",
    "list_metrics",
]

_HOME = {
    "CAM": "cam",
    "Counterfactual": "counterfactuals",
    "Explanation": "explanation",
    "counterfactual": "counterfactuals",
    "explain": "cam",
    "Factors": "factors",
    "LFI": "lfi",
    "factorize": "factors",
    "list_methods": "methods",
    "TopK": "targets",
    "list_metrics": "metrics",
    "ClassesOf": "targets",
    "keep_freed_memory": "allocator",
    "AugSmooth": "meta",
    "Evet": "meta",
    "Integrated": "meta",
    "Refine": "meta",
    "Sess": "meta",
    "Smooth": "meta",
    "list_meta_methods": "meta",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module 'fastcam' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
