"""One forward that yields the activations of the layers and the output; autograd from the layer on only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .outputs import NoMapError, describe, first_tensor, replace_first
from .reshape import Reshape, joined, layout_by
from .tokens import Layout, find_layout, gives_features_last


@dataclass
class Captured:
    """What one layer gave in one forward.

    Attributes:
        name: of the layer.
        output: its first output tensor, in the layer's own layout; with `grad`, a node of the graph.
        layout: how to see it as maps.
        after: the events of what ran behind it, where they were recorded.
    """

    name: str
    output: Tensor
    layout: Layout
    after: list[Any] | None = None

    @property
    def maps(self) -> Tensor:
        """The activations as maps, a view. (B, C, h, w)"""
        return self.layout.maps(self.output)


@contextlib.contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and eager, because hooks inside compiled parts never fire; afterwards all is as before."""
    training, compiled = [], False
    found, seen = [model], set()
    for module in found:  # not model.modules(), which makes names and takes three times as long
        state = module.__dict__
        if state["training"]:
            training.append(module)
        compiled = compiled or "_compiled_call_impl" in state
        children = state["_modules"]
        if children and module not in seen:
            seen.add(module)
            compiled = compiled or "_orig_mod" in children
            found += [child for child in children.values() if child is not None]
    with torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext():
        for module in training:
            module.training = False
        try:
            yield
        finally:
            for module in training:
                module.training = True


def capture(
    forward: Callable[[], Any],
    layers: list[tuple[str, nn.Module]],
    image_size: tuple[int, ...],
    *,
    grad: bool = False,
    differentiable: bool = False,
    reshape: Reshape | None = None,
) -> tuple[list[Captured], Any]:
    """Run one forward and hand out the layers' outputs.

    An in-place ReLU behind the layer leaves the activations alone: they are a copy, or the network goes on with
    one. With `grad` the first layer's output becomes a leaf and autograd records from there on: a gradient costs a
    backward through the tail, never through the whole network, and no parameter's `.grad` is touched.

    Args:
        forward: runs the model once, inside `evaluation`.
        layers: (name, module) each.
        image_size: (H, W) of the images, in pixels; (L,) of signals, (D, H, W) of volumes.
        grad: record the tail.
        differentiable: record everything, and cut nothing.
        reshape: what shows the maps in what a layer gives, instead of the rules of `tokens`.

    Returns:
        One `Captured` a layer, in the order given, and the model's output. Of a layer that runs several times
        the last run counts.

    Raises:
        ValueError: a layer is not reached, or has no spatial map.
    """
    seen: dict[str, Tensor] = {}
    gave: dict[str, Any] = {}

    def hook_for(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, _: Any, output: Any) -> Any:
            tensor = first_tensor(output)
            if reshape is not None:
                maps = joined(reshape, output)
                gave[name] = output if maps is None else maps
                if maps is not None:
                    with torch.inference_mode(False):
                        seen[name] = gave[name] = maps.detach().clone()
                    return None
            if tensor is None:
                raise NoMapError(f"layer {name!r} returns a {describe(output)}, which holds no tensor")
            if not (grad or differentiable):
                with torch.inference_mode(False):
                    seen[name] = tensor.clone()
                return None
            if not differentiable and not tensor.requires_grad:
                tensor = tensor.detach()
            torch.set_grad_enabled(True)
            if not tensor.requires_grad:
                tensor.requires_grad_()
            seen[name] = tensor
            return replace_first(output, tensor.clone())

        return hook

    handles = [module.register_forward_hook(hook_for(name)) for name, module in layers]
    try:
        with torch.set_grad_enabled(differentiable):
            output = forward()
    finally:
        for handle in handles:
            handle.remove()

    captured = []
    for name, module in layers:
        if name not in seen:
            raise NoMapError(f"layer {name!r} was not reached in the forward; choose a layer on the model's path")
        layout = find_layout(tuple(seen[name].shape), image_size, gives_features_last(module))
        if reshape is not None:
            layout = layout_by(reshape, gave[name], seen[name], layout)
        if layout is None:
            raise NoMapError(
                f"layer {name!r} has no spatial map: its output is a {describe(seen[name])} for images of "
                f"{'x'.join(map(str, image_size))}; choose a layer before pooling (`fastcam layers` lists them), or "
                "show the map by reshape="
            )
        captured.append(Captured(name, seen[name], layout))
    return captured, output
