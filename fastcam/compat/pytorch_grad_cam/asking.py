"""What a call is about: the model's inputs and the targets, as fastcam takes them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastcam.compat.pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from fastcam.model.outputs import describe

Target = Callable[[Any], Any]
# Targets that score a batch (n, classes) at once as they score one row.
OF_BATCHES = {
    "ClassifierOutputTarget",
    "ClassifierOutputSoftmaxTarget",
    "ClassifierOutputReST",
    "FinerWeightedTarget",
}


@dataclass(frozen=True)
class Inputs:
    """A call's inputs.

    Attributes:
        images: what is explained, on the model's device.
        args: the model's other inputs.
        kwargs: the same by name.
        place: where the model takes the images: 0 for first, another number, or a name.
    """

    images: Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    place: int | str = 0

    @classmethod
    def of(cls, given: Any, args: Sequence[Any], kwargs: Mapping[str, Any] | None, device: torch.device) -> Inputs:
        """The inputs of a call; of several, the first tensor of floats with three axes or more is explained.

        Args:
            given: a tensor, or a tuple, list or mapping of all inputs of the model.
            args: further inputs.
            kwargs: the same by name.
            device: of the model, to which all tensors are moved.

        Raises:
            TypeError: nothing in it can be explained.
        """

        def moved(value: Any) -> Any:
            return value.to(device) if isinstance(value, Tensor) else value

        named = {name: moved(value) for name, value in (kwargs or {}).items()}
        rest = [moved(value) for value in args]
        if isinstance(given, Tensor):
            return cls(moved(given), tuple(rest), named)
        items: Any = given.items() if isinstance(given, Mapping) else enumerate(given if _lists(given) else ())
        parts: dict[Any, Any] = {place: moved(value) for place, value in items}
        for place, value in parts.items():
            if isinstance(value, Tensor) and value.is_floating_point() and value.dim() >= 3:
                del parts[place]
                if isinstance(place, str):
                    return cls(value, tuple(rest), {**parts, **named}, place)
                return cls(value, (*parts.values(), *rest), named, place)
        raise TypeError(
            "input_tensor must be a tensor of floats (B, C, H, W), or a tuple, list or dict of the model's inputs that "
            f"has one, got a {describe(given)}"
        )

    def placed(self, images: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The model's arguments with these images where it takes them."""
        if isinstance(self.place, str):
            return self.args, {self.place: images, **self.kwargs}
        return (*self.args[: self.place], images, *self.args[self.place :]), self.kwargs


def _lists(given: Any) -> bool:
    return isinstance(given, (tuple, list))


class ImagesFirst(nn.Module):
    """A model with its images first, wherever it takes them itself.

    Args:
        model: to call.
        place: see `Inputs`.
    """

    def __init__(self, model: nn.Module, place: int | str) -> None:
        super().__init__()
        self.model = model
        self.place = place
        self.training = model.training

    def forward(self, images: Tensor, *args: Any, **kwargs: Any) -> Any:
        """What the model gives."""
        args, kwargs = Inputs(images, args, kwargs, self.place).placed(images)
        return self.model(*args, **kwargs)


@dataclass(frozen=True)
class Whole:
    """A target of a whole batch: outputs -> (B,)."""

    score: Callable[[Any], Tensor]


@dataclass(frozen=True)
class Asked:
    """The targets of a call.

    Attributes:
        columns: T lists of a target for each image, or of one `Whole`; None is the class predicted for each image.
        single: whether the maps have no axis of targets.
    """

    columns: list[list[Any]] | None
    single: bool = True

    def specs(self) -> list[Any]:
        """The same for `fastcam.CAM`, in as few calls as can be: classes of all columns share one."""
        if self.columns is None:
            return [None]
        classes = [[class_of(target) for target in column] for column in self.columns]
        if all(known is not None for column in classes for known in column):
            table = torch.tensor(classes).T
            return [table[:, 0] if self.single else table]
        return [_spec(column) for column in self.columns]


def _spec(column: list[Any]) -> Any:
    if isinstance(column[0], Whole):
        return column[0].score
    if all(target is column[0] for target in column):
        return Rows(column[0])
    return [Rows(target) for target in column]


def asked(targets: Any, images: int) -> Asked:
    """The targets of a batch.

    Args:
        targets: None; a target or class for all images; a list of one for each; a list of lists of T for each.
        images: B.

    Raises:
        ValueError: a number of targets that does not fit the batch.
        TypeError: something that is no target.
    """
    if targets is None:
        return Asked(None)
    if isinstance(targets, Whole):
        return Asked([[targets]])
    if isinstance(targets, (Tensor, np.ndarray)) and targets.ndim:
        targets = targets.tolist()
    if not isinstance(targets, Sequence) or isinstance(targets, str):
        return Asked([[one_target(targets)] * images])
    if not targets:
        raise ValueError(f"targets is empty for a batch of {images}; give one each, one for all, or None")
    if len(targets) not in (1, images):
        raise ValueError(
            f"{len(targets)} targets for a batch of {images}; give one for each image, or one for all, or None for the "
            "class predicted for each"
        )
    several = [_lists(one) for one in targets]
    rows = [list(one) if _lists(one) else [one] for one in targets]
    if any(several) and (not all(several) or len({len(row) for row in rows}) > 1 or not rows[0]):
        raise ValueError(
            "targets lists several for some images and fewer for others; give every image the same number, at least one"
        )
    rows = [[one_target(target) for target in row] for row in rows] * (images if len(rows) == 1 else 1)
    return Asked([list(column) for column in zip(*rows, strict=True)], not any(several))


def one_target(target: Any) -> Any:
    """A target that can be called.

    Raises:
        TypeError: neither a class nor a callable.
    """
    if callable(target) and not isinstance(target, Tensor):
        return target
    try:
        return ClassifierOutputTarget(operator.index(target))
    except TypeError:
        raise TypeError(
            f"a target must be a callable from one image's output to its score, such as ClassifierOutputTarget(281), "
            f"or a class, got {describe(target)}"
        ) from None


def is_of_peer(target: Any) -> bool:
    """Whether this is one of the targets of `utils.model_targets`, ours or pytorch-grad-cam's own."""
    return type(target).__module__.endswith("pytorch_grad_cam.utils.model_targets")


def class_of(target: Any) -> int | None:
    """The class of a `ClassifierOutputTarget`, or None of any other target."""
    if not is_of_peer(target) or type(target).__name__ != "ClassifierOutputTarget":
        return None
    try:
        found = operator.index(target.category)
    except TypeError:
        return None
    return found if found >= 0 else None


@dataclass(frozen=True)
class Rows:
    """A target of one image's output, asked about n: outputs (n, ...) -> (n,)."""

    target: Target

    def __call__(self, outputs: Any) -> Tensor:
        """The score of each."""
        target, batch = self.target, isinstance(outputs, Tensor) and outputs.dim() == 2
        if batch and is_of_peer(target) and type(target).__name__ in OF_BATCHES:
            return target(outputs)
        return torch.stack([score_of(self.target, output) for output in outputs])


def score_of(target: Target, output: Any) -> Tensor:
    """One image's score, a tensor without axes.

    Raises:
        ValueError: the target gives something else than one number.
    """
    score = target(output)
    if isinstance(score, Tensor) and score.numel() == 1:
        return score.reshape(())
    if isinstance(score, (int, float)):
        return torch.tensor(float(score))
    raise ValueError(
        f"a target must give one score for an image's output, and {type(target).__name__} gave a {describe(score)} for "
        f"a {describe(output)}; sum or choose what is to be explained"
    )


def predicted(outputs: Any) -> list[Any]:
    """The class with the highest score of each image, as targets.

    Raises:
        ValueError: the outputs are no (B, classes).
    """
    if not isinstance(outputs, Tensor) or outputs.dim() != 2:
        raise ValueError(
            f"targets=None means the predicted class, which needs outputs (B, classes), the model gave a "
            f"{describe(outputs)}; pass a callable for each image"
        )
    return [ClassifierOutputTarget(c) for c in outputs.detach().argmax(1).tolist()]
