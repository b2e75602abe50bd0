"""`FullGrad`: what the input and every bias contribute."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastcam.compat.pytorch_grad_cam.base_cam import BaseCAM
from fastcam.compat.pytorch_grad_cam.utils.find_layers import find_layer_predicate_recursive
from fastcam.compat.pytorch_grad_cam.utils.image import scale_accross_batch_and_channels
from fastcam.compat.pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

SMALLER = 8  # eigen_smooth projects maps of an eighth of the images' size


class FullGrad(BaseCAM):
    """L = Σ_c psi(x g) + Σ_l Σ_c psi(b_l g_l), psi: |.|, each channel to [0, 1], resized: Srinivas 2019, eq. 5.

    arXiv:1905.00780. All biases count, so `target_layers` is not used; an empty list says so.
    """

    _method = "fullgrad"
    _method_is_at_input = True

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Any], Tensor] | None = None,
        **options: Any,
    ) -> None:
        if len(target_layers) > 0:
            warnings.warn("FullGrad explains by all biases and has no target layers; pass []", stacklevel=2)
        layers = find_layer_predicate_recursive(model, has_bias)
        super().__init__(model, layers, reshape_transform, **{"compute_input_gradient": True, **options})

    @property
    def bias_data(self) -> list[np.ndarray]:
        """Of each target layer, (C,)."""
        return [self.get_bias_data(layer).float().cpu().numpy() for layer in self.target_layers]

    def get_bias_data(self, layer: nn.Module) -> Tensor:
        """A convolution's bias, or a batch norm's with its mean folded in: b - mean w / sqrt(var + eps). (C,)"""
        bias: Any = layer.bias
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None:
            scale = layer.weight / torch.sqrt(layer.running_var + layer.eps)
            bias = bias - layer.running_mean * scale
        return bias.detach()

    def compute_cam_per_layer(self, input_tensor: Tensor, targets: list[Any], eigen_smooth: bool) -> Any:
        """The sum of all contributions, or with `eigen_smooth` their principal component. (B, 1, H, W)"""
        size = self.get_target_width_height(input_tensor)
        assert input_tensor.grad is not None
        parts = [scaled(input_tensor.detach() * input_tensor.grad, size)]
        for at, gradient in sorted(self.activations_and_grads.found.items()):
            bias = self.get_bias_data(self.target_layers[at]).to(gradient)
            parts.append(scaled(bias[:, None, None] * gradient, size).sum(1, keepdim=True).to(input_tensor.device))
        joined = torch.cat(parts, 1)
        if not eigen_smooth:
            return joined.sum(1, keepdim=True).cpu().numpy()
        small = scale_accross_batch_and_channels(joined, [length // SMALLER for length in size])
        projected = get_2d_projection(small, strict_compat=self.strict_compat)[:, None]
        return scale_accross_batch_and_channels(projected, size).cpu().numpy()

    def aggregate_multi_layers(self, cam_per_target_layer: Any) -> Any:
        """The sum of what there is, in [0, 1]. (B, H, W)"""
        maps = cam_per_target_layer
        if isinstance(maps, list):
            maps = torch.cat(maps, 1) if isinstance(maps[0], Tensor) else np.concatenate(maps, 1)
        return self._scaled(maps.sum(1))

    def _options(self) -> dict[str, Any]:
        return {"scale": "channel", "eps": 1e-7}

    def _plain(self, eigen_smooth: bool) -> bool:
        return not eigen_smooth and not self.strict_compat


def has_bias(layer: nn.Module) -> bool:
    """Whether this is exactly a 2-d convolution or batch norm, with a bias."""
    return type(layer) in (nn.Conv2d, nn.BatchNorm2d) and layer.bias is not None


def scaled(values: Tensor, size: Sequence[int]) -> Tensor:
    """Magnitudes (B, C, h, w), each channel to [0, 1], at size (W, H)."""
    return scale_accross_batch_and_channels(values.detach().float().abs(), size)
