"""Which numbers of a network's output are explained: classes, or what callables make of each sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

OutputTarget = Callable[[Any], Tensor]
Targets = OutputTarget | list[OutputTarget]
Classes = int | list[int]


def _resolve_targets(targets: Targets, batch_size: int) -> list[OutputTarget]:
    """One callable for each image of the batch.

    Raises:
        TypeError: something that cannot be called.
        ValueError: another number of callables than images.
    """
    if callable(targets):
        return [targets] * batch_size
    if not isinstance(targets, list) or not all(map(callable, targets)):
        raise TypeError(f"targets takes a callable, or a list of callables with one for each image, not {targets!r}")
    if len(targets) != batch_size:
        raise ValueError(f"{len(targets)} targets for a batch size of {batch_size}; give one, or one for each image")
    return targets


def _target_scores(output: Any, targets: Targets) -> Tensor:
    """What each target makes of its own sample of the output. (N,)

    Args:
        output: a tensor with the batch first, or a list with an entry for each image.
        targets: one callable, or one for each image; it is given one sample and returns one number.

    Raises:
        TypeError: an output of another kind, or a target that returns no tensor.
        ValueError: an output without a batch, or a target that returns more than one number.
    """
    if isinstance(output, Tensor):
        if output.dim() == 0:
            raise ValueError("the model gave one number; targets need an output with a batch dimension first")
        output = output.unbind(0)
    elif not isinstance(output, list):
        raise TypeError(
            f"targets need an output that is a tensor or a per-sample list, the model gave a {type(output).__name__}"
        )
    values = []
    for target, sample in zip(_resolve_targets(targets, len(output)), output, strict=True):
        value = target(sample)
        if not isinstance(value, Tensor):
            raise TypeError(f"a target must return a tensor, so that it can be differentiated, not {value!r}")
        if value.numel() != 1:
            raise ValueError(f"a target must return a scalar tensor, not one of shape {tuple(value.shape)}")
        values.append(value.reshape(()))
    return torch.stack(values)


def per_sample(output: Any) -> Any:
    """An output with several parts as a list of what belongs to each image; a tensor or a list as it is.

    Every tensor of a dict, of a tuple or of what is nested in them has the batch first.
    """
    if not isinstance(output, (Mapping, tuple)):
        return output
    batch = next((len(t) for t in _tensors(output) if t.dim()), 0)
    return [_sample(output, i, batch) for i in range(batch)]


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, Sequence) else ()
    return [] if isinstance(output, str) else [tensor for part in parts for tensor in _tensors(part)]


def _sample(output: Any, i: int, batch: int) -> Any:
    if isinstance(output, Tensor):
        return output[i] if output.dim() and len(output) == batch else output
    if isinstance(output, Mapping):
        return {key: _sample(part, i, batch) for key, part in output.items()}
    if isinstance(output, (tuple, list)):
        return tuple(_sample(part, i, batch) for part in output)
    return output


def chosen(scores: Any, class_idx: Classes | None, targets: Targets | None) -> Tensor:
    """The explained number of each image. (N,); of an output with further axes (N, ...)

    Args:
        scores: the model's output, (N, classes) where classes are asked for.
        class_idx: a class for all images, or one for each.
        targets: what is explained instead of a class.

    Raises:
        IndexError: a class that the model does not have.
    """
    if targets is not None:
        return _target_scores(per_sample(scores), targets)
    classes = [class_idx] if isinstance(class_idx, int) else list(class_idx or [])
    if classes and max(classes) >= scores.shape[1]:
        raise IndexError(
            f"class_idx {max(classes)} is out of range, the scores have classes 0 to {scores.shape[1] - 1}"
        )
    if isinstance(class_idx, int):
        return scores[:, class_idx]
    if scores.dim() > 2:
        return torch.stack([row[c] for row, c in zip(scores, classes, strict=True)])
    return scores.gather(1, torch.tensor(classes, device=scores.device)[:, None])[:, 0]
