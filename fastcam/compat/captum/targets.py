"""captum's targets: which entries of an output are the scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Target = int | tuple[int, ...] | Tensor | list[int] | list[tuple[int, ...]] | None


def select(output: Any, target: Any) -> Tensor:
    """The scores that `target` picks, by captum's rules.

    Args:
        output: (N, ...)
        target: None, an int or a tuple for all (indices after the first axis), a tensor of one int or of N, or a list
            of N ints or tuples.

    Raises:
        TypeError: an output that is no tensor, or a target of another kind.
        ValueError: a target that does not fit the output.
    """
    if not isinstance(output, Tensor):
        raise TypeError(
            f"forward_func must give a tensor, got a {type(output).__name__}; wrap it so that it gives the logits"
        )
    if target is None:
        return output
    if isinstance(target, (Tensor, list)):
        target = checked(target, len(output))
        target = target.tolist() if isinstance(target, Tensor) else target
    if isinstance(target, int):
        target = (target,)
    if not isinstance(target, (tuple, list)):
        raise TypeError(f"target must be None, an int, a tuple, a tensor or a list, got {target!r}")
    several = isinstance(target, list)
    indices = [one if isinstance(one, tuple) else (one,) for one in (target if several else [target])]
    axes = output.dim() - 1
    for one in indices:
        fits = len(one) <= axes and all(-n <= i < n for i, n in zip(one, output.shape[1:], strict=False))
        if not fits:
            raise ValueError(f"target {one} is outside the output, {tuple(output.shape[1:])} of each example")
    if several:
        return torch.stack([row[one] for row, one in zip(output, indices, strict=True)])
    return output[(slice(None), *indices[0])]


def checked(target: Tensor | list[Any], examples: int) -> Any:
    """A tensor of one integer or of N, or a list of N integers or tuples, as it is.

    Raises:
        TypeError: entries of another kind.
        ValueError: another number of them.
    """
    if isinstance(target, Tensor):
        if target.is_floating_point() or (target.numel() != 1 and target.shape != (examples,)):
            raise ValueError(
                f"a tensor as target must hold integers, one or ({examples},), got {target.dtype} {tuple(target.shape)}"
            )
        return target.reshape(()) if target.numel() == 1 else target
    for one in target:
        if not isinstance(one, (int, tuple)):
            raise TypeError(f"a list as target must hold integers or tuples, got {one!r}")
    if len(target) != examples:
        raise ValueError(f"target holds {len(target)} entries for {examples} examples; give one each")
    return target


def scored(target: Target, examples: int) -> Any:
    """The target as `fastcam.CAM` takes it: classes, or functions of the logits."""
    if isinstance(target, Tensor) and target.numel() == 1 and not target.is_floating_point():
        target = int(target)
    if isinstance(target, int) and not isinstance(target, bool) and target >= 0:
        return target
    if isinstance(target, list) and target and isinstance(target[0], tuple):
        if len(target) != examples:
            raise ValueError(f"target holds {len(target)} tuples for {examples} examples; give one each")
        return [lambda output, one=one: flat(select(output, one)) for one in target]
    if isinstance(target, (Tensor, list)):
        return torch.as_tensor(checked(target, examples))
    return lambda output: flat(select(output, target))


def flat(scores: Tensor) -> Tensor:
    """(N,) of (N,) or (N, 1), which a score for each example may be."""
    if scores.numel() != len(scores):
        raise ValueError(f"each example needs one score, the forward gave {tuple(scores.shape)}; pass target=")
    return scores.reshape(-1)
