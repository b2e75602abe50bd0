"""torchcam's Smooth Grad-CAM++: gradients of the network under noise on its input."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fastcam.compat.torchcam.methods.arithmetic import EPS, as_pictures, widen
from fastcam.compat.torchcam.methods.core import Layer
from fastcam.compat.torchcam.methods.engine import ours
from fastcam.compat.torchcam.methods.hooks import Hook, alone
from fastcam.compat.torchcam.methods.layer_gradients import _GradCAM
from fastcam.compat.torchcam.methods.scores import Classes, Targets
from fastcam.methods.registry import METHODS

ROWS = 8  # noisy images a forward, or the user's batch where that is larger


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
        if self._ihook_enabled and self._hooks_enabled:
            self._input = input_[0].detach().clone()

    def _get_weights(
        self,
        class_idx: Classes | None,
        scores: Any = None,
        eps: float = EPS,
        *,
        targets: Targets | None = None,
        **kwargs: Any,
    ) -> list[Tensor]:
        clean = self._activations()
        with self._among_noise():
            powers = [[torch.zeros_like(widen(a)) for a in clean] for _ in range(3)]
            for noisy, n in self._noisy():
                args, named = self._others(n)
                self._cutting = True
                try:
                    with torch.no_grad():  # up to the first target layer, whose hook switches it on
                        out = self.model(noisy, *args, **named)
                finally:
                    self._cutting = False
                more = {} if targets is None else {"targets": targets * n if isinstance(targets, list) else targets}
                self._backprop(out, class_idx * n if isinstance(class_idx, list) else class_idx, **more, **kwargs)
                for p, sums in enumerate(powers, 1):
                    for total, (_, g) in zip(sums, self._evidence(), strict=True):
                        total.add_(widen(g).pow(p).unflatten(0, (n, -1)).sum(0))
            powers = [[total.div_(self.num_samples) for total in sums] for sums in powers]
            last = list(self._evidence())
        if self._strict:
            self.hook_a = [a for a, _ in last]
        return [self._weigh(a, g, d, eps) for a, (_, g), *d in zip(clean, last, *powers, strict=True)]

    @contextlib.contextmanager
    def _among_noise(self) -> Iterator[None]:
        """Forwards inside are this extractor's own, recorded from the first target layer on; then all is as before."""
        enabled, recorded, seen, nodes = self._hooks_enabled, self._recorded, self.hook_a, self._hook_outputs
        listening = self._ihook_enabled
        self._hooks_enabled, self._recorded, self._ihook_enabled = True, True, False
        self.hook_a, self._hook_outputs = list(seen), list(nodes)
        try:
            mode = contextlib.nullcontext() if self._strict else self._eval_mode()
            with torch.inference_mode(False), alone(self), mode:
                yield
        finally:
            self._hooks_enabled, self._recorded, self._ihook_enabled = enabled, recorded, listening
            self.hook_a, self._hook_outputs = seen, nodes

    def _noisy(self) -> Iterator[tuple[Tensor, int]]:
        """All samples of the noisy input, n of them one after the other in a batch."""
        x, generator = self._input, torch.Generator().manual_seed(torch.initial_seed())
        if self._strict:
            for _ in range(self.num_samples):
                yield x + self._distrib.sample(x.shape).to(x), 1
            return
        at_once = max(1, ROWS // len(x)) if ours(self, "_backprop") else 1
        for start in range(0, self.num_samples, at_once):
            n = min(at_once, self.num_samples - start)
            noise = torch.cat([torch.randn(x.shape, generator=generator) for _ in range(n)]).to(x)
            yield x.repeat(n, *[1] * (x.dim() - 1)) + self.std * noise, n

    def _others(self, n: int) -> tuple[list[Any], Mapping[str, Any]]:
        """Further inputs of the last forward, for n samples of each image."""

        def repeated(value: Any) -> Any:
            each = isinstance(value, Tensor) and value.dim() and len(value) == len(self._input)
            return value.repeat(n, *[1] * (value.dim() - 1)) if each else value

        args, kwargs = self._call or ((), {})
        return [repeated(value) for value in args[1:]], {name: repeated(value) for name, value in kwargs.items()}

    def _weigh(self, a: Tensor, last: Tensor, d: list[Tensor], eps: float) -> Tensor:
        """(N, C) of the clean activations, the last sample's gradients, and the mean powers of all."""
        if self._strict:
            mass = (d[2] * widen(a)).flatten(2).sum(2)[(..., *[None] * (a.dim() - 2))]
            return (d[1] / (2 * d[1] + mass + eps) * widen(last).relu()).flatten(2).sum(2)
        method = METHODS["smoothgradcampp"]
        powers = torch.stack([as_pictures(one) for one in d])[:, :, None]
        options = method.resolve({"variant": "corrected", "eps": eps})
        return method(options, as_pictures(widen(a))[:, None], powers)[:, 0, :, 0, 0]

    def _extra_repr(self) -> str:
        return f"{super()._extra_repr()}, num_samples={self.num_samples}, std={self.std}"
