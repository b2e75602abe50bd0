"""NumPy arrays and tensors taken alike: computed as tensors, handed back as what was given."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def to_tensor(value: Any, name: str) -> Tensor:
    """The value as a tensor, without a copy where its memory can be shared and is not to be written.

    Args:
        value: a tensor, which is detached, an array, or a list of either.
        name: what errors call it.

    Raises:
        TypeError: neither.
    """
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, (list, tuple)) and value and all(isinstance(one, Tensor) for one in value):
        return torch.stack([one.detach() for one in value])
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be an array or a tensor of numbers, got {type(value).__name__} of {array.dtype}")
    if not array.flags.writeable or not array.dtype.isnative or any(step < 0 for step in array.strides):
        array = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
    return torch.from_numpy(array)


def as_given(result: Tensor, given: Any) -> Any:
    """The result as a tensor where a tensor was given, else as an array."""
    if isinstance(given, Tensor) or (isinstance(given, (list, tuple)) and given and isinstance(given[0], Tensor)):
        return result
    return result.cpu().numpy()
