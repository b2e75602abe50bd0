"""The one place where ops check what they are given."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def tensor(name: str, value: Tensor, axes: str, like: Tensor | None = None) -> None:
    """Check that `value` is a floating tensor with the named axes, none of them empty.

    Args:
        name: The argument's name.
        value: The argument.
        axes: One word per axis, "B C h w".
        like: A tensor whose device it must share.

    Raises:
        TypeError: Not a tensor, or not floating.
        ValueError: Wrong number of axes, an empty axis, or another device.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor ({axes}), got {type(value).__name__}")
    if value.dtype not in FLOATS:
        raise TypeError(f"{name} must be float32, float16, bfloat16 or float64, got {value.dtype}; use .float()")
    shape(name, value, axes, like)


def shape(name: str, value: Tensor, axes: str, like: Tensor | None = None) -> None:
    """Check the number of axes, that none is empty, and the device; see `tensor`."""
    if value.dim() != axes.count(" ") + 1:
        raise ValueError(f"{name} must have axes ({axes}), got shape {tuple(value.shape)}")
    if value.numel() == 0:
        raise ValueError(f"{name} ({axes}) is empty: shape {tuple(value.shape)}")
    if like is not None and value.device != like.device:
        raise ValueError(f"{name} is on {value.device}, expected {like.device}; move it with .to()")


def same(what: str, got: int, expected: int, where: str) -> None:
    """Check that two sizes agree."""
    if got != expected:
        raise ValueError(f"{what} is {got}, expected {expected} as in {where}")


def span(start: int, stop: int, limit: int, what: str) -> None:
    """Check 0 <= start < stop <= limit."""
    if not 0 <= start < stop <= limit:
        raise ValueError(f"expected 0 <= start < stop <= {limit} ({what}), got start={start}, stop={stop}")


def choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Check that an option has one of its values."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is unknown, choose from {', '.join(map(repr, allowed))}")


def size(name: str, value: tuple[int, int]) -> tuple[int, int]:
    """Check a (height, width) pair of positive integers, and return it as plain integers."""
    try:
        height, width = (int(v) for v in value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a pair (H, W), got {value!r}") from None
    if height < 1 or width < 1:
        raise ValueError(f"{name} must be positive, got {(height, width)}")
    return height, width


def output(out: Tensor | None, expected: tuple[int, ...], like: Tensor) -> None:
    """Check a given output: shape, float dtype, device, one of the two dense layouts.

    Raises:
        TypeError: Not a floating tensor.
        ValueError: Wrong shape or device, or neither contiguous nor channels-last contiguous.
    """
    if out is None:
        return
    tensor("out", out, "rows C H W", like)
    if tuple(out.shape) != expected:
        raise ValueError(f"out has shape {tuple(out.shape)}, expected {expected}")
    if not out.is_contiguous() and not out.is_contiguous(memory_format=torch.channels_last):
        raise ValueError("out must be contiguous or channels-last contiguous; allocate it with torch.empty")


def layout(value: Tensor) -> torch.memory_format:
    """The dense layout of a 4-axis tensor: contiguous where it is, else channels-last where it is."""
    if value.is_contiguous() or not value.is_contiguous(memory_format=torch.channels_last):
        return torch.contiguous_format
    return torch.channels_last


def allocate(out: Tensor | None, expected: tuple[int, ...], like: Tensor) -> Tensor:
    """`out`, or a new tensor of the expected shape in the dtype, device and layout of `like`."""
    if out is not None:
        return out
    return torch.empty(expected, dtype=like.dtype, device=like.device, memory_format=layout(like))


def working(*tensors: Tensor) -> torch.dtype:
    """The dtype an op computes in: float32, or float64 where an input has it."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def fraction(name: str, value: float) -> float:
    """Check a number in [0, 1]."""
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise ValueError(f"{name} must be in [0, 1], got {value}")
    return float(value)
