"""`ActivationsAndGradients`: what target layers gave in a forward, and the gradients that reached them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fastcam.compat.pytorch_grad_cam.asking import Inputs, predicted, score_of
from fastcam.model.capture import evaluation
from fastcam.model.outputs import first_tensor, replace_first, select


class ActivationsAndGradients:
    """Runs the model and keeps what the layers gave, and what a backward brought them, in the layers' order.

    Hooks live as long as a call; in between, and after an exception, the model has none of ours. Activations are
    copies, so that an in-place ReLU behind the layer leaves them as they were. A layer that runs several times counts
    with its last run. Without a graph so far, autograd records from the layer on.

    Args:
        model: to run.
        target_layers: its layers.
        reshape_transform: what a layer gives -> (B, C, h, w), or None.
        detach: keep copies in the CPU's memory; False keeps the tensors with their graph, as the layers gave them.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Any], Tensor] | None,
        detach: bool = True,
    ) -> None:
        self.model = model
        self.target_layers = list(target_layers)
        self.reshape_transform = reshape_transform
        self.detach = detach
        self.handles: list[Any] = []
        self.clear()

    @property
    def activations(self) -> list[Any]:
        """Of each layer, (B, C, h, w); after a call that needed no hooks, a recorded forward is made when read."""
        self._catch_up()
        return self._activations

    @activations.setter
    def activations(self, value: list[Any]) -> None:
        self._later, self._activations = None, value

    @property
    def gradients(self) -> list[Any]:
        """Of each layer, likewise."""
        self._catch_up()
        return self._gradients

    @gradients.setter
    def gradients(self, value: list[Any]) -> None:
        self._later, self._gradients = None, value

    def save_activation(self, module: nn.Module, input: Any, output: Any) -> None:  # noqa: A002 - the peer's word
        """Keep what a layer gave."""
        shown = output
        if self.detach:
            shown = self._shown(output).detach().to("cpu", copy=True)
        self._order.append(self._at)
        self._activations.append(shown)

    def save_gradient(self, module: nn.Module, input: Any, output: Any) -> None:  # noqa: A002 - the peer's word
        """Keep the gradient that a backward will bring to what a layer gave."""
        tensor = None if isinstance(output, Mapping) else first_tensor(output)
        if tensor is None or not tensor.requires_grad:
            return
        me, at, run, found = weakref.ref(self), self._at, self._runs[self._at], self.found

        def store(grad: Tensor) -> None:
            own = me()
            if own is None or own.found is not found or own._runs[at] != run:
                return
            found[at] = own._shown(grad).detach().to("cpu", copy=True) if own.detach else grad
            own._gradients = [found[index] for index in sorted(found)]

        tensor.register_hook(store)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the model gives for these inputs."""
        self.clear()
        for at, layer in enumerate(self.target_layers):
            self.handles.append(layer.register_forward_hook(partial(self._seen, at)))
        try:
            output = self.model(*args, **kwargs)
        finally:
            self._unhook()
        if len(self._order) == len(self._activations):
            last = dict(zip(self._order, self._activations, strict=True))
            self._activations[:] = [last[at] for at in sorted(last)]
        return output

    @property
    def reached(self) -> set[int]:
        """Which layers ran in the last call, by their place in the list."""
        return set(self._runs)

    def clear(self) -> None:
        """Forget activations, gradients and graph."""
        self._activations: list[Any] = []
        self._gradients: list[Any] = []
        self.tensors: dict[int, Tensor] = {}  # by layer, the node of the graph that gradients are asked at
        self.found: dict[int, Tensor] = {}  # by layer, its gradient
        self._order: list[int] = []
        self._runs: dict[int, int] = {}
        self._at = 0
        self._later: tuple[Inputs, list[Any] | None, Any] | None = None

    def release(self) -> None:
        """Forget everything; the object can still be called."""
        self.clear()
        self._unhook()

    def expect(self, inputs: Inputs, targets: list[Any] | None, selector: Any) -> None:
        """Forget what was, and record these inputs if someone reads the activations or gradients.

        Args:
            inputs: of a call.
            targets: one for each image, or None for the predicted classes.
            selector: what is scored in the model's output, see `fastcam.CAM`.
        """
        self.clear()
        self._later = (inputs, targets, selector)

    def record(self, inputs: Inputs, targets: list[Any] | None, selector: Any) -> None:
        """Run the model once, and a backward of the sum of scores, in evaluation mode; `.grad` stays as it is."""
        with evaluation(self.model), torch.inference_mode(False), torch.enable_grad():
            images = inputs.images.clone() if inputs.images.is_inference() else inputs.images.detach()
            args, kwargs = inputs.placed(images)
            outputs = select(self(*args, **kwargs), selector)
            try:
                chosen = predicted(outputs) if targets is None else targets
                loss = sum(score_of(target, output) for target, output in zip(chosen, outputs, strict=True))
                nodes = [t for t in self.tensors.values() if t.requires_grad]
                torch.autograd.grad(loss, nodes, allow_unused=True)  # type: ignore[arg-type]
            except (ValueError, RuntimeError):
                return  # no class to take the gradient of, or none reaches a layer: there are activations only
            finally:
                self.tensors = {}

    def _catch_up(self) -> None:
        if self._later is not None:
            later, self._later = self._later, None
            self.record(*later)

    def _shown(self, value: Any) -> Tensor:
        if self.reshape_transform is not None:
            return self.reshape_transform(value)
        tensor = first_tensor(value)
        if tensor is None:
            raise TypeError(f"a target layer gave a {type(value).__name__}; give reshape_transform for it")
        return tensor

    def _seen(self, at: int, module: nn.Module, given: Any, output: Any) -> Any:
        """One run of a layer; the network goes on with a copy, so that nothing behind overwrites what is kept."""
        tensor = None if isinstance(output, Mapping) else first_tensor(output)
        recorded = tensor is not None and torch.is_grad_enabled() and tensor.is_floating_point()
        self._at = at
        self._runs[at] = self._runs.get(at, 0) + 1
        if not recorded:
            self.save_activation(module, given, output)
            return None
        assert tensor is not None
        node = tensor if tensor.requires_grad else tensor.detach().requires_grad_()
        shown = replace_first(output, node)
        self.save_activation(module, given, shown)
        self.save_gradient(module, given, shown)
        self.tensors[at] = node
        return replace_first(output, node.clone())

    def _unhook(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles.clear()

    def __getstate__(self) -> dict[str, Any]:
        """Without what is of one call."""
        state = {"_activations": [], "_gradients": [], "tensors": {}, "found": {}, "_order": [], "_runs": {}}
        return {**self.__dict__, **state, "_at": 0, "_later": None, "handles": []}
