"""pytorch-grad-cam's names over fastcam: `from fastcam.compat.pytorch_grad_cam import GradCAM`.

Classes, arguments, call, targets and attributes are those of pytorch-grad-cam 1.5.7; maps agree with its own, but for
the rows of `fastcam.compat.differences`.
"""

from __future__ import annotations

import importlib
from typing import Any

from fastcam.compat.pytorch_grad_cam.ablation_layer import AblationLayer, AblationLayerFasterRCNN, AblationLayerVit
from fastcam.compat.pytorch_grad_cam.activations_and_gradients import ActivationsAndGradients
from fastcam.compat.pytorch_grad_cam.base_cam import BaseCAM
from fastcam.compat.pytorch_grad_cam.components import FEM, KPCA_CAM, EigenCAM, EigenGradCAM, RandomCAM, SegEigenCAM
from fastcam.compat.pytorch_grad_cam.fullgrad_cam import FullGrad
from fastcam.compat.pytorch_grad_cam.gradients import (
    GradCAM,
    GradCAMElementWise,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    ShapleyCAM,
    XGradCAM,
)
from fastcam.compat.pytorch_grad_cam.scores import AblationCAM, ScoreCAM
from fastcam.compat.pytorch_grad_cam.sess import SESS
from fastcam.compat.pytorch_grad_cam.wrappers import FinerCAM, RefineCAM

__version__ = "1.5.7"  # the contract that is kept
__all__ = [
    "FEM",
    "KPCA_CAM",
    "SESS",
    "AblationCAM",
    "AblationLayer",
    "AblationLayerFasterRCNN",
    "AblationLayerVit",
    "ActivationsAndGradients",
    "BaseCAM",
    "DeepFeatureFactorization",
    "EigenCAM",
    "EigenGradCAM",
    "FinerCAM",
    "FullGrad",
    "GradCAM",
    "GradCAMElementWise",
    "GradCAMPlusPlus",
    "GuidedBackpropReLUModel",
    "HiResCAM",
    "LayerCAM",
    "RandomCAM",
    "RefineCAM",
    "ScoreCAM",
    "SegEigenCAM",
    "ShapleyCAM",
    "XGradCAM",
    "run_dff_on_image",
]

ALIASES = {
    "ablation_cam": "scores",
    "eigen_cam": "components",
    "eigen_grad_cam": "components",
    "fem": "components",
    "finer_cam": "wrappers",
    "grad_cam": "gradients",
    "grad_cam_elementwise": "gradients",
    "grad_cam_plusplus": "gradients",
    "hirescam": "gradients",
    "kpca_cam": "components",
    "layer_cam": "gradients",
    "metrics.ARCC": "metrics.arcc",
    "random_cam": "components",
    "refine_cam": "wrappers",
    "score_cam": "scores",
    "seg_eigen_cam": "components",
    "shapley_cam": "gradients",
    "xgrad_cam": "gradients",
}

_HOME = {
    "DeepFeatureFactorization": "feature_factorization.deep_feature_factorization",
    "run_dff_on_image": "feature_factorization.deep_feature_factorization",
    "GuidedBackpropReLUModel": "guided_backprop",
}
_MODULES = {"feature_factorization", "guided_backprop", "metrics", "sobel_cam", "utils", *ALIASES}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
