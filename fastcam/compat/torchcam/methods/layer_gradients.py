"""torchcam's extractors that take the gradient of the user's own scores at the target layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fastcam.compat.torchcam.methods.arithmetic import EPS, as_pictures, widen
from fastcam.compat.torchcam.methods.core import _CAM, Layer
from fastcam.compat.torchcam.methods.hooks import Hook, alone
from fastcam.compat.torchcam.methods.scores import Classes, Targets, chosen
from fastcam.methods.registry import METHODS

CLOSE = 1e-3  # of the largest score: a forward that is run again gives the same scores, but for rounding


def weights_of(method: str, a: Tensor, g: Tensor, **options: Any) -> Tensor:
    """What a method of fastcam makes of activations and gradients (N, C, *space): (N, C), or (N, C, *space)."""
    named = METHODS[method]
    w = named(named.resolve(options), as_pictures(widen(a))[:, None], as_pictures(widen(g))[:, None])[:, 0]
    return w[..., 0, 0] if w.shape[2:] == (1, 1) else w.reshape(g.shape)


class _GradCAM(_CAM):
    """An extractor that differentiates the scores of the user's forward with respect to what the layers gave.

    No parameter's `.grad` is touched. Behind a target layer the network goes on with a copy, so that an in-place
    ReLU changes neither the activations nor where the gradient is taken. Where that forward recorded no graph, under
    `no_grad`, it is run once again when maps are asked for, recorded from the first target layer on.
    """

    _relu = True
    _score_used = True
    _targets_supported = True
    _hands_on_copies = True

    def __init__(
        self,
        model: nn.Module,
        target_layer: Layer | list[Layer] | None = None,
        input_shape: tuple[int, ...] = (3, 224, 224),
        **kwargs: Any,
    ) -> None:
        self._cutting = self._recorded = False
        self._call: tuple[tuple[Any, ...], Mapping[str, Any]] | None = None
        super().__init__(model, target_layer, input_shape, **kwargs)
        for idx, name in enumerate(self.target_names):
            self.hook_handles.append(self.submodule_dict[name].register_forward_hook(Hook(self, "_hook_g", idx)))
        self.hook_handles.append(model.register_forward_pre_hook(Hook(self, "_note_call"), with_kwargs=True))

    def reset_hooks(self) -> None:
        """Forget what the layers gave, and the inputs."""
        super().reset_hooks()
        self._hook_outputs: list[Tensor | None] = [None] * len(self.target_names)
        self._call, self._recorded = None, False

    def _note_call(self, _: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Keep the inputs, no copies, for a forward that may have to be run again."""
        if self._hooks_enabled and not self._cutting:
            self._call, self._recorded = (args, kwargs), False

    def _hook_g(self, _: nn.Module, _input: Any, output: Any, idx: int = 0) -> Tensor | None:
        """Keep the node of the graph to differentiate at; the network goes on with a copy."""
        if not self._hooks_enabled:
            return None
        if not isinstance(output, Tensor):
            raise TypeError(
                f"layer {self.target_names[idx]!r} gives a {type(output).__name__}; gradients are taken at a tensor"
            )
        if self._cutting:
            torch.set_grad_enabled(True)  # until `_with_graph`, which holds it off, puts it back
        node = output
        if torch.is_grad_enabled() and not output.requires_grad and not output.is_inference():
            node = output.detach().requires_grad_()  # all before it is frozen: the graph begins here
        self._hook_outputs[idx] = node
        self._recorded = self._recorded or (node.requires_grad and not self._cutting)
        return None if self._strict and node is output else node.clone()

    def _with_graph(self, scores: Any) -> Any:
        """Scores that can be differentiated: these, or where their forward recorded nothing those of another one."""
        graph = self._recorded or (isinstance(scores, Tensor) and scores.requires_grad)
        if graph or self._call is None or any(node is None for node in self._hook_outputs):
            return scores
        args, kwargs = self._call
        before, self._hooks_enabled, self._cutting = self._hooks_enabled, True, True
        try:
            with torch.inference_mode(False), torch.no_grad(), alone(self), self._eval_mode():
                again = self.model(*map(_outside, args), **{name: _outside(value) for name, value in kwargs.items()})
        finally:
            self._hooks_enabled, self._cutting = before, False
        if isinstance(scores, Tensor):
            top = scores.abs().max()
            if (
                not isinstance(again, Tensor)
                or again.shape != scores.shape
                or (again - scores).abs().max() > CLOSE * top
            ):
                raise RuntimeError(
                    "the target score is not connected to every target layer: the forward recorded no graph, and these "
                    "scores are not what the model gives for its last input in evaluation mode; run the forward, and "
                    "what is made of its output, under torch.enable_grad()"
                )
        return again

    def _backprop(
        self,
        scores: Any,
        class_idx: Classes | None,
        retain_graph: bool = False,
        targets: Targets | None = None,
    ) -> None:
        """Put the gradients of the explained scores in `hook_g`.

        Args:
            scores: what the model gave.
            class_idx: a class, or one for each image.
            retain_graph: leave the graph for another call.
            targets: in place of classes.

        Raises:
            RuntimeError: scores that no target layer, or not every one, has a part in.
        """
        scores = self._with_graph(scores)
        with torch.inference_mode(False), torch.enable_grad():
            score = chosen(scores, class_idx, targets).sum()
            nodes = [node for node in self._hook_outputs if node is not None]
            try:
                gradients = torch.autograd.grad(score, nodes, retain_graph=retain_graph)
            except RuntimeError as error:
                freed = "second time" in str(error)
                raise RuntimeError(
                    "these scores were differentiated before, which freed their graph; pass retain_graph=True to all "
                    "calls but the last, or run the forward again"
                    if freed
                    else f"the target score is not connected to every target layer of {self.target_names}"
                ) from error
        with torch.no_grad():
            shown = gradients if self._reshape_transform is None else map(self._reshape_transform, gradients)
            self.hook_g = [g.detach() for g in shown]

    def _evidence(self) -> list[tuple[Tensor, Tensor]]:
        """What each layer gave, and the gradient there."""
        return [(a, g) for a, g in zip(self.hook_a, self.hook_g, strict=True) if a is not None and g is not None]


def _outside(value: Any) -> Any:
    """A tensor that may enter autograd; others as they are."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


class GradCAM(_GradCAM):
    """w_k = mean_ij g_k (Selvaraju 2017, arXiv:1610.02391, eq. 1)."""

    def _get_weights(self, class_idx: Any, scores: Any = None, **kwargs: Any) -> list[Tensor]:
        self._backprop(scores, class_idx, **kwargs)
        return [weights_of("gradcam", a, g) for a, g in self._evidence()]


class GradCAMpp(_GradCAM):
    """w_k = sum_ij alpha relu(g), alpha = g^2 / (2 g^2 + g^3 sum_ab A_k + eps) (Chattopadhay 2018, eq. 19).

    torchcam's division reaches a copy of alpha only, which leaves alpha = g^2: `strict_compat=True`.
    """

    def _get_weights(self, class_idx: Any, scores: Any = None, eps: float = EPS, **kwargs: Any) -> list[Tensor]:
        self._backprop(scores, class_idx, **kwargs)
        if self._strict:
            return [widen(g).relu().pow(3).flatten(2).sum(2) for _, g in self._evidence()]
        return [weights_of("gradcampp", a, g, eps=eps) for a, g in self._evidence()]


class XGradCAM(_GradCAM):
    """w_k = sum_ij g A / (sum_ij A + eps) (Fu 2020, arXiv:2008.02312, eq. 8)."""

    def _get_weights(self, class_idx: Any, scores: Any = None, eps: float = EPS, **kwargs: Any) -> list[Tensor]:
        self._backprop(scores, class_idx, **kwargs)
        return [weights_of("xgradcam", a, g, eps=eps) for a, g in self._evidence()]


class LayerCAM(_GradCAM):
    """w_k(ij) = relu(g_kij) (Jiang 2021, TIP 30, eq. 4); several layers are fused as tanh(2 M), eq. 9."""

    def _get_weights(self, class_idx: Any, scores: Any = None, **kwargs: Any) -> list[Tensor]:
        self._backprop(scores, class_idx, **kwargs)
        return [weights_of("layercam", a, g) for a, g in self._evidence()]

    @staticmethod
    def _scale_cams(cams: list[Tensor], gamma: float = 2.0) -> list[Tensor]:
        return [(gamma * cam).tanh() for cam in cams]
