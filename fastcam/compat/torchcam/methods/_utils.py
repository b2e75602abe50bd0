"""The layer that is explained where none is named, and modes of modules that are put back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fastcam.compat.torchcam.methods.hooks import alone

__all__ = ["locate_candidate_layer"]


@contextlib.contextmanager
def _model_eval(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards each module is in its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


def locate_candidate_layer(mod: nn.Module, input_shape: tuple[int, ...] = (3, 224, 224)) -> str | None:
    """The module that ends last of those whose output has the input's axes and more than one cell.

    One forward of zeros in evaluation mode finds it. Outputs that are no tensors are passed over, and extractors that
    are live on the network take no note of that forward (torchcam issue #195).

    Args:
        mod: the network.
        input_shape: of one input, without the batch axis.

    Returns:
        Its name, or None where there is no such module.
    """
    names = {module: name for name, module in mod.named_modules()}
    found: list[str] = []

    def look(module: nn.Module, _: Any, output: Any) -> None:
        if (
            isinstance(output, Tensor)
            and output.dim() == 1 + len(input_shape)
            and any(n != 1 for n in output.shape[2:])
        ):
            found.append(names[module])

    like = next((p for p in (*mod.parameters(), *mod.buffers()) if p.is_floating_point()), torch.zeros(()))
    zeros = torch.zeros((1, *input_shape), dtype=like.dtype, device=like.device)
    handles = [module.register_forward_hook(look) for module in names]
    try:
        with _model_eval(mod), alone(), torch.no_grad():
            mod(zeros)
    finally:
        for handle in handles:
            handle.remove()
    return found[-1] if found else None
