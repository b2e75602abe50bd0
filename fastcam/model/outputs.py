"""Tensors inside whatever a module returns: tensors, tuples, dicts, dataclasses of Hugging Face."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Selector = str | int | Callable[[Any], Any] | None


class NoMapError(ValueError):
    """A layer that is not reached, or whose output is not a map."""


def first_tensor(output: Any) -> Tensor | None:
    """The first tensor of a module's output, in the order of its fields, or None."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if isinstance(output, (tuple, list)):
        return next((t for t in map(first_tensor, output) if t is not None), None)
    return None


def replace_first(output: Any, new: Tensor) -> Any:
    """The same output with its first tensor replaced by `new`; the original is not touched."""
    if isinstance(output, Tensor):
        return new
    leaves, spec = pytree.tree_flatten(output)
    old = first_tensor(output)
    return pytree.tree_unflatten([new if leaf is old else leaf for leaf in leaves], spec)


def select(output: Any, selector: Selector = None) -> Any:
    """What a target is scored on: the logits, unless `selector` names something else.

    Args:
        output: what the model returned.
        selector: a key, an attribute, an index, or a function of the output; None takes a tensor as it is,
            `.logits` (Hugging Face), `["out"]` (torchvision segmentation), or the first tensor there is.

    Returns:
        The logits, or the output itself where it holds none (lists of detections).

    Raises:
        ValueError: the selector names nothing in this output.
    """
    if callable(selector):
        return selector(output)
    if selector is not None:
        try:
            return output[selector] if not isinstance(selector, str) else _named(output, selector)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ValueError(
                f"output={selector!r} is not in the model's output, a {describe(output)}; "
                "give a key, an attribute, an index, or a function of the output"
            ) from error
    if isinstance(output, Tensor):
        return output
    for name in ("logits", "out"):
        found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(found, Tensor):
            return found
    if isinstance(output, (tuple, Mapping)):
        found = first_tensor(output)
        return output if found is None else found
    return output


def _named(output: Any, name: str) -> Any:
    return output[name] if isinstance(output, Mapping) else getattr(output, name)


def describe(value: Any) -> str:
    """A value's type, with its keys or its shape, for error messages."""
    if isinstance(value, Tensor):
        return f"tensor of shape {tuple(value.shape)} and dtype {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Mapping):
        return f"{type(value).__name__} with keys {list(value)}"
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__


def widen(tensor: Tensor) -> Tensor:
    """At least float32: half precision becomes float32, everything else stays."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def require_finite(tensor: Tensor, name: str, mend: str) -> None:
    """Raise a ValueError when the tensor holds NaN or infinity.

    One reduction decides: a sum is finite only if no term is NaN or infinite; its own overflow is ruled out
    by summing in float64 (or in float32 for half precision), so only a suspicious sum costs a second pass.
    """
    total = tensor.detach().sum(dtype=torch.float64 if tensor.dtype == torch.float64 else torch.float32)
    if not math.isfinite(total.item()) and not torch.isfinite(tensor).all():
        count = int((~torch.isfinite(tensor)).sum())
        raise ValueError(f"{name} {count} NaN or infinite values; {mend}")
