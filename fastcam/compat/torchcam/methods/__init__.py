"""torchcam's extractors by its own names."""

from __future__ import annotations

from fastcam.compat.torchcam.methods.activation import CAM, ISCAM, SSCAM, ScoreCAM
from fastcam.compat.torchcam.methods.core import OutputTarget
from fastcam.compat.torchcam.methods.gradient import (
    FinerCAM,
    GradCAM,
    GradCAMpp,
    LayerCAM,
    LeGrad,
    RefineCAM,
    SmoothGradCAMpp,
    XGradCAM,
)

__all__ = [
    "CAM",
    "ISCAM",
    "SSCAM",
    "FinerCAM",
    "GradCAM",
    "GradCAMpp",
    "LayerCAM",
    "LeGrad",
    "OutputTarget",
    "RefineCAM",
    "ScoreCAM",
    "SmoothGradCAMpp",
    "XGradCAM",
]
