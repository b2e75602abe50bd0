"""torchcam's module of extractors that differentiate, a file each kind here."""

from __future__ import annotations

from fastcam.compat.torchcam.methods.layer_gradients import GradCAM, GradCAMpp, LayerCAM, XGradCAM, _GradCAM
from fastcam.compat.torchcam.methods.smooth import SmoothGradCAMpp
from fastcam.compat.torchcam.methods.transformer import LeGrad
from fastcam.compat.torchcam.methods.wrapped import FinerCAM, RefineCAM, _CAMWrapper

__all__ = [
    "FinerCAM",
    "GradCAM",
    "GradCAMpp",
    "LayerCAM",
    "LeGrad",
    "RefineCAM",
    "SmoothGradCAMpp",
    "XGradCAM",
    "_CAMWrapper",
    "_GradCAM",
]
