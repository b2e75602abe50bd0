"""Which score of an output a torchcam metric follows: a class of each image, or what a callable makes of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .methods.core import OutputTarget, _target_scores


class Classes:
    """One class an image.

    Args:
        indices: (N,) int64.
    """

    def __init__(self, indices: Tensor) -> None:
        self.indices = indices

    def __call__(self, output: Tensor) -> Tensor:
        """The scores (N,) of the images' own outputs (N, classes)."""
        return self.rows(output, 0, len(self.indices), 1)

    def rows(self, output: Tensor, start: int, stop: int, each: int) -> Tensor:
        """The scores of the rows [start, stop), of which each image has so many in turn."""
        chosen = self.indices.repeat_interleave(each)[start:stop]
        return output.gather(1, chosen[:, None]).squeeze(1)


class Callables:
    """One function an image, from its own output to its score.

    Args:
        functions: N of them.
    """

    def __init__(self, functions: list[OutputTarget]) -> None:
        self.functions = functions

    def __call__(self, output: Any) -> Tensor:
        """The scores (N,) of the images' own outputs: a tensor, or a list of one output an image."""
        return self.rows(output, 0, len(self.functions), 1)

    def rows(self, output: Any, start: int, stop: int, each: int) -> Tensor:
        """The scores of the rows [start, stop), of which each image has so many in turn."""
        return _target_scores(output, [self.functions[row // each] for row in range(start, stop)])


def classes_of(output: Any, class_idx: int | list[int] | None) -> tuple[int | list[int], Classes]:
    """The classes asked for as extractors take them, and as the metric uses them.

    Args:
        output: of the images.
        class_idx: one for all, one an image, or None for the predicted ones.

    Raises:
        TypeError: an output that is no tensor, or classes that are no integers.
        ValueError: an output that is no (N, classes), a class out of range, or another number of classes than images.
    """
    if not isinstance(output, Tensor):
        raise TypeError(
            f"classes need logits (N, classes), the model gave a {type(output).__name__}; pass targets= or a logits_fn "
            "that takes the logits out of it"
        )
    if output.dim() != 2:
        raise ValueError(f"classes need logits (N, classes), the model gave {tuple(output.shape)}; pass targets=")
    batch, count = output.shape
    if class_idx is None:
        predicted = output.detach().argmax(1)
        return predicted.tolist(), Classes(predicted)
    if isinstance(class_idx, int):
        _require(class_idx, count)
        return class_idx, Classes(torch.full((batch,), class_idx, device=output.device))
    if not isinstance(class_idx, list) or any(not isinstance(one, int) or isinstance(one, bool) for one in class_idx):
        raise TypeError(f"class_idx must be an integer, a list of integers, or None, got {class_idx!r}")
    if len(class_idx) != batch:
        raise ValueError(f"per-sample class_idx must match the batch size, got {len(class_idx)} for {batch} images")
    for one in class_idx:
        _require(one, count)
    return class_idx, Classes(torch.tensor(class_idx, device=output.device))


def _require(one: int, count: int) -> None:
    if not 0 <= one < count:
        raise ValueError(f"class_idx {one} is out of range, the model has classes 0 to {count - 1}")
