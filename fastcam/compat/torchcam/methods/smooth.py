"""torchcam's Smooth Grad-CAM++: gradients of the network under noise on its input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import fastcam
from fastcam.compat.torchcam.methods.arithmetic import EPS, as_pictures, widen
from fastcam.compat.torchcam.methods.core import Layer
from fastcam.compat.torchcam.methods.engine import as_given, ours, output_for, target_for
from fastcam.compat.torchcam.methods.hooks import Hook, alone
from fastcam.compat.torchcam.methods.layer_gradients import _GradCAM
from fastcam.methods.registry import METHODS


class SmoothGradCAMpp(_GradCAM):
    """w_k = sum_ij alpha relu(D1), alpha = D2 / (2 D2 + D3 sum_ab A_k + eps), D_p = mean_n g_n^p (Omeiza 2019).

    The gradients g_n are of the input under noise, A of the input itself. torchcam takes A and relu(g) of the last
    noisy sample, and sums A D3 over the cells: `strict_compat=True`, which also draws from torch's global generator.

    Args:
        model: see `_CAM`.
        target_layer: see `_CAM`.
        num_samples: noisy inputs.
        std: standard deviation of the noise, in the input's units.
        input_shape: see `_CAM`.
        **kwargs: see `_CAM`.
    """

    _score_used = False

    def __init__(
        self,
        model: nn.Module,
        target_layer: Layer | list[Layer] | None = None,
        num_samples: int = 4,
        std: float = 0.3,
        input_shape: tuple[int, ...] = (3, 224, 224),
        **kwargs: Any,
    ) -> None:
        self._ihook_enabled = True
        super().__init__(model, target_layer, input_shape, **kwargs)
        self.num_samples = num_samples
        self.std = std
        self._distrib = torch.distributions.Normal(0, std)
        self.hook_handles.append(model.register_forward_pre_hook(Hook(self, "_store_input")))

    def _store_input(self, _: nn.Module, input_: tuple[Any, ...]) -> None:
        """Keep a copy of the input, whose buffer the user may fill again."""
        if self._ihook_enabled:
            self._input = input_[0].detach().clone()

    def _note_call(self, _: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Not of the noisy forwards."""
        if self._ihook_enabled:
            super()._note_call(_, args, kwargs)

    def _raw_cams(self, class_idx: Any, scores: Any, eps: float = EPS, **kwargs: Any) -> list[Tensor]:
        if self._strict or not ours(self, "_backprop", "_get_weights", "_hook_a", "_hook_g"):
            return super()._raw_cams(class_idx, scores, eps=eps, **kwargs)
        targets = kwargs.get("targets")
        cam = fastcam.CAM(
            self.model,
            "smoothgradcampp",
            [self.submodule_dict[name] for name in self.target_names],  # of a compiled model the names are others
            variant="corrected",
            samples=self.num_samples,
            std=self.std,
            eps=eps,
            seed=torch.initial_seed(),
            reshape=self._reshape_transform or as_given,
            output=output_for(targets),
        )
        args, named = self._others()
        with self._hooks_off(), alone():
            found = cam.explain(self._input, *args, target=target_for(class_idx, targets), **named)
        return found.raw if isinstance(found.raw, list) else [found.raw]

    def _get_weights(self, class_idx: Any, scores: Any = None, eps: float = EPS, **kwargs: Any) -> list[Tensor]:
        """The weights by one `_backprop` a sample, for subclasses and for torchcam's own values."""
        clean = self._activations()
        powers = [[torch.zeros_like(widen(a)) for a in clean] for _ in range(3)]
        before, self._ihook_enabled = self._ihook_enabled, False
        try:
            for _ in range(self.num_samples):
                noise = self._distrib.sample(self._input.shape).to(self._input)
                with torch.inference_mode(False), torch.enable_grad(), alone(self):
                    out = self.model((self._input + noise).requires_grad_(), *self._others()[0], **self._others()[1])
                    self._backprop(out, class_idx, **kwargs)
                for p, sums in enumerate(powers, 1):
                    for total, (_, g) in zip(sums, self._evidence(), strict=True):
                        total.add_(widen(g).pow(p))
        finally:
            self._ihook_enabled = before
        powers = [[total / self.num_samples for total in sums] for sums in powers]
        last = self._evidence()
        if not self._strict:
            self.hook_a = list(clean)
        return [self._weigh(a, g, d, eps) for a, (_, g), *d in zip(clean, last, *powers, strict=True)]

    def _weigh(self, a: Tensor, last: Tensor, d: list[Tensor], eps: float) -> Tensor:
        """(N, C) of the clean activations and the mean powers of the gradients."""
        if self._strict:
            mass = (d[2] * widen(a)).flatten(2).sum(2)[(..., *[None] * (a.dim() - 2))]
            return (d[1] / (2 * d[1] + mass + eps) * widen(last).relu()).flatten(2).sum(2)
        method = METHODS["smoothgradcampp"]
        powers = torch.stack([as_pictures(one) for one in d])[:, :, None]
        options = method.resolve({"variant": "corrected", "eps": eps})
        return method(options, as_pictures(widen(a))[:, None], powers)[:, 0, :, 0, 0]

    def _others(self) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """Further inputs of the last forward."""
        args, kwargs = self._call or ((), {})
        return args[1:], kwargs

    def _extra_repr(self) -> str:
        return f"{super()._extra_repr()}, num_samples={self.num_samples}, std={self.std}"
