"""Gradients at layers of whatever calls them: hooks and autograd, for what `fastcam.CAM` does not take."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Values = tuple[Tensor, ...]


def gradients(
    call: Callable[[], Tensor], layers: Sequence[nn.Module], at_input: bool, grad_kwargs: dict[str, Any] | None
) -> list[tuple[Values, Values]]:
    """Of each layer, the gradients of all scores and the values that they are taken at.

    Args:
        call: gives the scores, (N,) or (N, 1), and runs the layers on its way.
        layers: to be seen; of one that runs several times the last run counts.
        at_input: at what a layer is given, and not at what it gives.
        grad_kwargs: of `torch.autograd.grad`.

    Raises:
        ValueError: a layer that does not run, or that the scores do not hang on; scores that are not one an example.
        TypeError: a layer that is given or gives anything but floating-point tensors.
    """
    with torch.inference_mode(False), torch.enable_grad():
        with _watched(layers, at_input) as seen:
            scores = call()
        for layer in layers:
            if layer not in seen:
                raise ValueError(
                    f"the layer {type(layer).__name__} did not run in the forward; give one of the modules that "
                    "forward_func calls"
                )
        if not isinstance(scores, Tensor) or scores.dim() == 0 or scores[0].numel() != 1:
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(f"each example needs one score, the forward gave {got}; pass target=")
        wanted = [one for layer in layers for one in seen[layer]]
        try:
            found = list(torch.autograd.grad(scores.unbind(), wanted, **grad_kwargs or {}))
        except RuntimeError as error:
            if "not have been used" not in str(error) and "does not require grad" not in str(error):
                raise
            raise ValueError("the scores do not hang on the layer; give one on the way to them") from error
    return [(tuple(found.pop(0) for _ in seen[layer]), seen[layer]) for layer in layers]


@contextlib.contextmanager
def _watched(layers: Sequence[nn.Module], at_input: bool) -> Iterator[dict[nn.Module, Values]]:
    """What the layers give, or are given, as part of the graph; the network goes on with copies, for it may write."""
    seen: dict[nn.Module, Values] = {}

    def see(layer: nn.Module, given: Any) -> Any:
        several = isinstance(given, (tuple, list))
        values = tuple(_leaf(layer, one) for one in (given if several else (given,)))
        seen[layer] = values
        copies = [one.clone() for one in values]
        return type(given)(copies) if several else copies[0]

    handles = []
    try:
        for layer in layers:
            if at_input:
                handles.append(layer.register_forward_pre_hook(see))
            else:
                handles.append(layer.register_forward_hook(lambda layer, _, given: see(layer, given)))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _leaf(layer: nn.Module, value: Any) -> Tensor:
    """The value as it is where it hangs on something, else the start of a graph."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{type(layer).__name__} has a value of {got}; expected floating-point tensors")
    if value.requires_grad:
        return value
    return (value.clone() if value.is_inference() else value.detach()).requires_grad_()
