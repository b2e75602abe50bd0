"""Scores of a batch under a target each: one forward in evaluation mode, without gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastcam.compat.pytorch_grad_cam.arrays import to_tensor
from fastcam.compat.pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget, ClassifierOutputTarget
from fastcam.model.capture import evaluation
from fastcam.model.outputs import select

Model = Callable[[Tensor], Any]


def score_images(model: Model, images: Tensor, targets: Sequence[Callable[[Any], Any]]) -> Tensor:
    """The score of each image under its own target.

    Args:
        model: maps images to outputs; of a tuple or dict the logits are taken, as `fastcam.CAM` finds them.
        images: (B, C, H, W)
        targets: B callables from one image's output to its score, or one for all.

    Returns:
        (B,) float32 on the outputs' device, or (B, ...) where a target gives several numbers.

    Raises:
        ValueError: neither B targets nor one.
        TypeError: targets that cannot be called.
    """
    targets = one_each(targets, len(images))
    with evaluation(model) if isinstance(model, nn.Module) else contextlib.nullcontext(), torch.no_grad():
        return score_outputs(select(model(images)), targets).float()


def one_each(targets: Any, images: int) -> list[Callable[[Any], Any]]:
    """A target for each image."""
    given = [targets] if callable(targets) else list(targets) if isinstance(targets, Sequence) else [targets]
    if not given or not all(callable(one) for one in given):
        raise TypeError(
            f"targets must be callables from one image's output to its score, such as ClassifierOutputTarget(281), "
            f"got {targets!r}"
        )
    if len(given) not in (1, images):
        raise ValueError(f"{len(given)} targets for a batch of {images}; give one for each image, or one for all")
    return given * (images if len(given) == 1 else 1)


def score_outputs(outputs: Any, targets: Sequence[Callable[[Any], Any]]) -> Tensor:
    """The scores of B outputs, (B, ...); of classes all at once."""
    kinds = {type(target) for target in targets}
    if kinds in ({ClassifierOutputTarget}, {ClassifierOutputSoftmaxTarget}) and isinstance(outputs, Tensor):
        categories = [getattr(target, "category", None) for target in targets]
        if outputs.dim() == 2 and all(isinstance(c, int) and 0 <= c < outputs.shape[1] for c in categories):
            scores = outputs if kinds == {ClassifierOutputTarget} else outputs.softmax(1)
            return scores.gather(1, torch.tensor(categories, device=outputs.device)[:, None])[:, 0]
    return torch.stack([torch.as_tensor(target(output)) for target, output in zip(targets, outputs, strict=True)])


def check_maps(images: Tensor, cams: Any) -> Tensor:
    """The maps as a tensor (B, H, W), one pixel for each of the images', given so or as (B, 1, H, W).

    Raises:
        ValueError: another shape.
    """
    maps = to_tensor(cams, "cams")
    if isinstance(images, Tensor) and maps.dim() == images.dim() and maps.shape[1] == 1:
        maps = maps[:, 0]
    if not isinstance(images, Tensor) or maps.shape != (len(images), *images.shape[2:]):
        found = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(
            f"cams have shape {tuple(maps.shape)} for images {found}; give (B, C, H, W) and a map (H, W) for each"
        )
    return maps
