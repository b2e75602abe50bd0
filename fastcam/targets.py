"""What is explained: a target makes a score out of logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .model.outputs import describe

ScoreFunction = Callable[[Any], Tensor]


@dataclass(frozen=True)
class TopK:
    """The k classes with the highest logits of each image, the highest first."""

    k: int


@dataclass(frozen=True)
class ClassesOf:
    """Classes that a function chooses once the logits are known, such as the second best.

    Attributes:
        choose: logits (B, classes) -> (B,) or (B, T) class indices.
    """

    choose: Callable[[Tensor], Tensor]


TargetSpec = int | str | Tensor | Sequence[Any] | TopK | ClassesOf | ScoreFunction | None


@dataclass(frozen=True)
class Target:
    """A resolved target: T scores for each image.

    Attributes:
        classes: (B, T) class indices, or None for callables.
        functions: one callable for all images, or one each, where there are no classes.
        single: whether the T axis is left out of the results.
        images: B.
    """

    classes: Tensor | None
    functions: tuple[ScoreFunction, ...]
    single: bool
    images: int

    @property
    def count(self) -> int:
        """T, scores for each image; of callables it is known from their result only and taken as 1."""
        return 1 if self.classes is None else self.classes.shape[1]

    def repeat(self, times: int) -> Target:
        """The target of a batch that holds every image so many times, all images in turn."""
        classes = None if self.classes is None else self.classes.repeat(times, 1)
        functions = self.functions * times if len(self.functions) > 1 else self.functions
        return Target(classes, functions, self.single, self.images * times)

    def score(self, logits: Any) -> Tensor:
        """The scores of the whole batch.

        Args:
            logits: of the B images.

        Returns:
            (B, T)
        """
        if self.classes is not None:
            return logits.gather(1, self.classes)
        if len(self.functions) == 1:
            return self._checked(self.functions[0](logits), self.images)
        rows = [self.score_of(logits[b : b + 1], b) for b in range(self.images)]
        return torch.cat(rows)

    def score_of(self, logits: Any, image: int) -> Tensor:
        """The scores of n variants of one image.

        Args:
            logits: of the n variants.
            image: which image of the batch they are variants of.

        Returns:
            (n, T)
        """
        if self.classes is not None:
            return logits[:, self.classes[image]]
        return self._checked(self.functions[image % len(self.functions)](logits), len(logits))

    @staticmethod
    def _checked(scores: Any, rows: int) -> Tensor:
        if isinstance(scores, Tensor) and scores.dim() == 0 and rows == 1:
            scores = scores.reshape(1)
        if not isinstance(scores, Tensor) or scores.dim() != 1 or len(scores) != rows:
            raise ValueError(
                f"a target callable must return one score per row, a tensor of shape ({rows},), and returned a "
                f"{describe(scores)}; write e.g. lambda logits: logits[:, 281]"
            )
        return scores[:, None]


def resolve(target: TargetSpec, logits: Any, images: int) -> Target:
    """A target for these logits.

    Args:
        target: None (the predicted class), an int, (B,) classes, (B, T) classes, `TopK(k)`, `ClassesOf(function)`,
            "all", a callable from logits (n, ...) to scores (n,), or a list of B callables.
        logits: of the B images, (B, classes) for every target but callables.
        images: B.

    Returns:
        The resolved target.

    Raises:
        ValueError: a class out of range, or a length that does not match the batch.
        TypeError: none of the above.
    """
    if callable(target) and not isinstance(target, (TopK, Tensor)):
        return Target(None, (target,), True, images)
    if isinstance(target, (list, tuple)) and target and all(map(callable, target)):
        if len(target) != images:
            raise ValueError(f"{len(target)} target callables for a batch of {images}; give one each, or one for all")
        return Target(None, tuple(target), True, images)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != images:
        raise ValueError(
            f"classes as target need logits of shape ({images}, classes), the model gave a {describe(logits)}; pass a "
            "callable target, e.g. lambda logits: logits[:, c].mean((-2, -1)) for segmentation, or output="
        )
    if target is None:
        return Target(logits.detach().argmax(1, keepdim=True), (), True, images)
    classes, single = _classes(target, logits.detach(), images)
    classes = classes.clone() if classes.is_inference() else classes  # autograd keeps it
    count = logits.shape[1]
    if classes.numel() and (int(classes.min()) < 0 or int(classes.max()) >= count):
        wrong = classes[(classes < 0) | (classes >= count)][0]
        raise ValueError(f"target class {int(wrong)} is out of range, the model has classes 0 to {count - 1}")
    return Target(classes, (), single, images)


def _classes(target: TargetSpec, logits: Tensor, images: int) -> tuple[Tensor, bool]:
    count, device = logits.shape[1], logits.device
    if isinstance(target, ClassesOf):
        target = target.choose(logits)
    if isinstance(target, TopK):
        if not 1 <= target.k <= count:
            raise ValueError(f"TopK({target.k}) of a model with {count} classes; k must be 1 to {count}")
        return logits.topk(target.k, dim=1).indices, False
    if isinstance(target, str):
        if target != "all":
            raise ValueError(f"target={target!r} is not known; the only word is 'all', a class is given by its index")
        return torch.arange(count, device=device).expand(images, count), False
    try:
        classes = torch.as_tensor(target, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"target must be None, an int, classes (B,) or (B, T), TopK, 'all' or a callable, got {describe(target)}"
        ) from error
    if classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool:
        raise TypeError(f"target classes must be integers, got a {describe(classes)}")
    classes = classes.long()
    if classes.dim() == 0:
        return classes.expand(images, 1), True
    if classes.dim() > 2 or len(classes) != images or classes.numel() == 0:
        raise ValueError(
            f"target has shape {tuple(classes.shape)} for a batch of {images}; give one class for all, ({images},) "
            f"for one class an image, or ({images}, T) for T classes an image"
        )
    return (classes[:, None], True) if classes.dim() == 1 else (classes, False)
