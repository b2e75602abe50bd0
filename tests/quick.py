"""Every method as a sweep over all of them calls it: quickly, and at a layer only where it takes one."""

from __future__ import annotations

from torch import nn

from bench.entries import ATTENTION, LEARNED
from fastcam import CAM
from fastcam.methods.registry import METHODS

__all__ = ["ATTENTION", "LEARNED", "OPTIONS", "quick"]

OPTIONS = {
    "aise": {"samples": 12},
    "fgvis": {"steps": 3},
    "groupcam": {"groups": 4},
    "integratedgradcam": {"samples": 3},
    "integratedgradients": {"samples": 3},
    "iscam": {"samples": 3},
    "occlusion": {"size": 8, "stride": 6},
    "opticam": {"steps": 3},
    "rise": {"samples": 12},
    "smoothgrad": {"samples": 2},
    "smoothgradcampp": {"samples": 2},
    "sscam": {"samples": 2},
}


def quick(model: nn.Module, method: str, layer: str, **options) -> CAM:
    """The method with few samples; `layer` is left out where it explains the image itself."""
    where = None if METHODS[method].evidence.at == "input" else layer
    return CAM(model, method, where, **{**OPTIONS.get(method, {}), **options})
