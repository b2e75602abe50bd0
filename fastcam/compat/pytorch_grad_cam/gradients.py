"""Maps weighed by gradients: Grad-CAM and its kin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastcam.compat.pytorch_grad_cam.base_cam import BaseCAM
from fastcam.compat.pytorch_grad_cam.recorded import by_formula, weigh

Reshape = Callable[[Any], Tensor] | None


class GradCAM(BaseCAM):
    """w_k = mean_ij dS/dA_k: Selvaraju 2017, arXiv:1610.02391. Arguments as `BaseCAM`."""

    _method = "gradcam"

    def get_cam_weights(
        self, input_tensor: Tensor, target_layers: nn.Module, targets: list[Any], activations: Any, grads: Any
    ) -> np.ndarray:
        """(B, C)"""
        return channel_weights("gradcam", activations, grads)


class GradCAMPlusPlus(BaseCAM):
    """w_k = Σ_ij α relu(g), α = g² / (2 g² + g³ Σ A_k + 1e-6): Chattopadhay 2018, arXiv:1710.11063, eq. 19."""

    _method = "gradcampp"

    def _options(self) -> dict[str, Any]:
        return {"eps": 1e-6}

    def get_cam_weights(
        self, input_tensor: Tensor, target_layers: nn.Module, targets: list[Any], activations: Any, grads: Any
    ) -> np.ndarray:
        """(B, C)"""
        return channel_weights("gradcampp", activations, grads, **self._options())


class XGradCAM(BaseCAM):
    """w_k = Σ_ij g A / (Σ_ij A_k + 1e-7): Fu 2020, arXiv:2008.02312, eq. 8."""

    _method = "xgradcam"

    def _options(self) -> dict[str, Any]:
        return {"eps": 1e-7}

    def get_cam_weights(
        self, input_tensor: Tensor, target_layers: nn.Module, targets: list[Any], activations: Any, grads: Any
    ) -> np.ndarray:
        """(B, C)"""
        return channel_weights("xgradcam", activations, grads, **self._options())


class HiResCAM(BaseCAM):
    """L = Σ_k g_k A_k: Draelos 2020, arXiv:2011.08891. With `eigen_smooth` it is no longer faithful in its sense."""

    _method = "hirescam"

    def get_cam_image(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: list[Any],
        activations: Any,
        grads: Any,
        eigen_smooth: bool = False,
    ) -> np.ndarray:
        """(B, h, w)"""
        return cell_weighed(self, "hirescam", activations, grads, eigen_smooth)


class LayerCAM(BaseCAM):
    """L = Σ_k relu(g_k) A_k: Jiang 2021, TIP 30, eq. 4-5."""

    _method = "layercam"

    def get_cam_image(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: list[Any],
        activations: Any,
        grads: Any,
        eigen_smooth: bool = False,
    ) -> np.ndarray:
        """(B, h, w)"""
        return cell_weighed(self, "layercam", activations, grads, eigen_smooth)


class GradCAMElementWise(BaseCAM):
    """L = Σ_k relu(g_k A_k), which has no paper."""

    _method = "gradcamelementwise"

    def get_cam_image(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: list[Any],
        activations: Any,
        grads: Any,
        eigen_smooth: bool = False,
    ) -> np.ndarray:
        """(B, h, w)"""
        return cell_weighed(self, "gradcamelementwise", activations, grads, eigen_smooth)


class ShapleyCAM(BaseCAM):
    """w_k = mean_ij (g - H A / 2), H the second derivatives of the score by A: Cai 2025, arXiv:2501.06261.

    The paper's score is that of `ClassifierOutputReST`; without targets it is the class's own.
    """

    _method = "shapleycam"

    def __init__(
        self, model: nn.Module, target_layers: Sequence[nn.Module], reshape_transform: Reshape = None, **options: Any
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, detach=False, **options)

    def _options(self) -> dict[str, Any]:
        return {"score": "logit"}

    def get_cam_weights(
        self, input_tensor: Tensor, target_layers: nn.Module, targets: list[Any], activations: Any, grads: Any
    ) -> np.ndarray:
        """(B, C) of a layer's own tensors with their graph."""
        curved = None
        if grads.requires_grad:
            (curved,) = torch.autograd.grad(grads, activations, activations, retain_graph=True, allow_unused=True)
        curved = torch.zeros_like(activations) if curved is None else curved
        a, g, h = (self._maps(one) for one in (activations, grads, curved))
        return channel_weights("shapleycam", a, g, h, **self._options())

    def get_cam_image(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: list[Any],
        activations: Any,
        grads: Any,
        eigen_smooth: bool = False,
    ) -> np.ndarray:
        """(B, h, w)"""
        weights = self.get_cam_weights(input_tensor, target_layer, targets, activations, grads)
        return weigh(weights, self._maps(activations), eigen_smooth, self.strict_compat)

    def _maps(self, output: Tensor) -> Tensor:
        reshape = self.activations_and_grads.reshape_transform
        return output if reshape is None else reshape(output)


def channel_weights(method: str, activations: Any, *evidence: Any, **options: Any) -> np.ndarray:
    """A formula's weights (B, C) of arrays (B, C, *space)."""
    weights = by_formula(method, activations, *evidence, **options)
    return weights.reshape(weights.shape[:2])


def cell_weighed(cam: BaseCAM, method: str, activations: Any, grads: Any, eigen_smooth: bool) -> np.ndarray:
    """The map of a formula that has weights for each cell. (B, *space)"""
    return weigh(by_formula(method, activations, grads), activations, eigen_smooth, cam.strict_compat)
