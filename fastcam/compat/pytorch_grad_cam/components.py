"""Maps of structure in the activations: principal components, peaks, and a random baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastcam.compat.pytorch_grad_cam.base_cam import BaseCAM
from fastcam.compat.pytorch_grad_cam.recorded import by_formula, in_numpy
from fastcam.compat.pytorch_grad_cam.utils.svd_on_activations import (
    get_2d_projection,
    get_2d_projection_kernel,
    get_2d_projection_with_sign_correction,
)

Reshape = Callable[[Any], Tensor] | None


class EigenCAM(BaseCAM):
    """L = O v_1, O the cells' activations less their mean, v_1 its first singular vector: arXiv:2008.00299.

    The same for every target. The sign agrees with the sum of the channels.
    """

    _method = "eigencam"
    _targetless, _clipped, _gives_map = True, False, True

    def __init__(
        self, model: nn.Module, target_layers: Sequence[nn.Module], reshape_transform: Reshape = None, **options: Any
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, **{"uses_gradients": False, **options})

    def _options(self) -> dict[str, Any]:
        return {"centered": True}

    def _plain(self, eigen_smooth: bool) -> bool:
        return not self.strict_compat

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
        return get_2d_projection(in_numpy(activations), strict_compat=self.strict_compat)


class EigenGradCAM(BaseCAM):
    """`EigenCAM` of g A, which has no paper."""

    _method = "eigengradcam"
    _gives_map = True

    def _plain(self, eigen_smooth: bool) -> bool:
        return not self.strict_compat

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
        return get_2d_projection(in_numpy(grads) * in_numpy(activations), strict_compat=self.strict_compat)


class SegEigenCAM(BaseCAM):
    """`EigenCAM` of |g| A, negated where |min L| > |max L|: Chung 2025, Appl. Sci. 15(13), 7562, eq. 10-13."""

    _method = "segeigencam"
    _gives_map = True

    def _plain(self, eigen_smooth: bool) -> bool:
        return True

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
        return get_2d_projection_with_sign_correction(np.abs(in_numpy(grads)) * in_numpy(activations))


class KPCA_CAM(BaseCAM):  # noqa: N801 - the peer's name
    """L = sqrt(l_1) u_1 of the centered kernel of the cells: Karmani 2024, arXiv:2410.00267; the same for every target.

    Args:
        model: see `BaseCAM`.
        target_layers: see `BaseCAM`.
        reshape_transform: see `BaseCAM`.
        kernel: "sigmoid", "rbf", "poly", "cosine" or "linear".
        gamma: of the kernel; None is 1 / C.
        **options: of `BaseCAM`.
    """

    _method = "kpcacam"
    _targetless, _clipped, _gives_map = True, False, True

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Reshape = None,
        kernel: str = "sigmoid",
        gamma: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, **{"uses_gradients": False, **options})
        self.kernel = kernel
        self.gamma = gamma

    def _options(self) -> dict[str, Any]:
        return {"kernel": self.kernel, "gamma": self.gamma}

    def _plain(self, eigen_smooth: bool) -> bool:
        return True

    def _signed(self, raw: Tensor) -> Tensor:
        """The largest magnitude is positive, as in scikit-learn."""
        flat = raw.flatten(1)
        largest = flat.gather(1, flat.abs().argmax(1, keepdim=True))
        return (flat * torch.where(largest < 0, -1, 1)).view(raw.shape)

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
        return get_2d_projection_kernel(in_numpy(activations), self.kernel, self.gamma)


class FEM(BaseCAM):
    """L = Σ_k w_k A_k, w_k the share of cells above mean + k std: after Fuad 2020, doi:10.1109/IPTA50016.2020.9286629.

    The same for every target.

    Args:
        model: see `BaseCAM`.
        target_layers: see `BaseCAM`.
        reshape_transform: see `BaseCAM`.
        k: standard deviations.
        **options: of `BaseCAM`.
    """

    _method = "fem"
    _targetless, _gives_map = True, True

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Reshape = None,
        k: float = 2,
        **options: Any,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, **{"uses_gradients": False, **options})
        self.k = k

    def _options(self) -> dict[str, Any]:
        return {"variant": "fraction", "k": self.k}

    def _plain(self, eigen_smooth: bool) -> bool:
        return True

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
        return by_formula("fem", activations, **self._options())


class RandomCAM(BaseCAM):
    """w_k ~ U(-1, 1) from NumPy's global generator, other ones in every call: a baseline to compare with."""

    _targetless = True

    def __init__(
        self, model: nn.Module, target_layers: Sequence[nn.Module], reshape_transform: Reshape = None, **options: Any
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, **{"uses_gradients": False, **options})

    def get_cam_weights(
        self, input_tensor: Tensor, target_layers: nn.Module, targets: list[Any], activations: Any, grads: Any
    ) -> np.ndarray:
        """(B, C)"""
        return np.random.uniform(-1, 1, size=activations.shape[:2])  # noqa: NPY002 - as there, so seeds agree
