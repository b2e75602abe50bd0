"""How the score changes as images are changed by their maps: B images in one forward, changed together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastcam.compat import strict_compat as strictness
from fastcam.compat.pytorch_grad_cam.arrays import as_given
from fastcam.compat.pytorch_grad_cam.metrics.otsu import above_otsu
from fastcam.compat.pytorch_grad_cam.metrics.scoring import Model, check_maps, score_images

Targets = Sequence[Callable[[Any], Any]]
TENTHS = (10, 20, 30, 40, 50, 60, 70, 80, 90)
AUTO = "auto"


def batch_of(perturbation: Any) -> Callable[[Tensor, Tensor], Tensor] | None:
    """`perturbation.batch`, unless a subclass has changed what a call does and not what `batch` does."""
    owner = next(kind for kind in type(perturbation).__mro__ if "__call__" in vars(kind))
    return perturbation.batch if "batch" in vars(owner) else None


class PerturbationConfidenceMetric:
    """The score of the changed image, or how much higher it is than the image's own.

    Args:
        perturbation: (image (C, H, W), map (H, W)) -> image, called for each image with tensors on the CPU; with a
            method `batch`, images (B, C, H, W), maps (B, H, W) -> images, that one is called once, where they are.
    """

    def __init__(self, perturbation: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.perturbation = perturbation

    def __call__(
        self,
        input_tensor: Tensor,
        cams: Any,
        targets: Targets,
        model: Model,
        return_visualization: bool = False,
        return_diff: bool = True,
    ) -> Any:
        """The change of each image's score.

        Args:
            input_tensor: (B, C, H, W) as the model takes them.
            cams: (B, H, W), an array or a tensor.
            targets: a callable for each image, or one for all.
            model: run in evaluation mode, and left as it was.
            return_visualization: the changed images as well.
            return_diff: the change of the score; else the score of the changed image itself.

        Returns:
            (B,) float32, an array, or a tensor where the maps are one; with the changed images (B, C, H, W).

        Raises:
            ValueError: maps that do not fit the images, or targets that do not fit the batch.
        """
        changed = self.perturbed(input_tensor, check_maps(input_tensor, cams))
        scores = score_images(model, changed, targets)
        if return_diff:
            scores = scores - score_images(model, input_tensor, targets)
        result = as_given(scores, cams)
        return (result, changed) if return_visualization else result

    def perturbed(self, images: Tensor, maps: Tensor) -> Tensor:
        """The changed images, on the device and in the type of these. (B, C, H, W)"""
        images, together = images.detach(), batch_of(self.perturbation)
        if together is not None:
            return together(images, maps)
        here = zip(images.cpu(), maps.cpu(), strict=True)
        return torch.stack([self.perturbation(image, one) for image, one in here]).to(images)


def averages_apart(metric: Any) -> bool:
    """Whether the metric is a difference of scores, whose means may be taken one by one."""
    return (
        isinstance(metric, PerturbationConfidenceMetric)
        and type(metric).__call__ is PerturbationConfidenceMetric.__call__
    )


class RemoveMostRelevantFirst:
    """Has all pixels filled in where the map is at its percentile or above it.

    Args:
        percentile: of the map's values, 0 to 100, or "auto": the pixels above Otsu's threshold.
        imputer: (image (C, H, W), kept (H, W), 0 or 1) -> image, or with a method `batch` of whole batches.
        strict_compat: with "auto", fill in the pixels below the threshold, as pytorch-grad-cam does.

    Raises:
        ValueError: another percentile.
    """

    def __init__(
        self, percentile: float | str, imputer: Callable[[Tensor, Tensor], Tensor], *, strict_compat: bool | None = None
    ) -> None:
        number = isinstance(percentile, (int, float, np.number)) and not isinstance(percentile, bool)
        if percentile != AUTO and not (number and 0 <= float(percentile) <= 100):
            raise ValueError(f"percentile is {percentile!r}; give a number from 0 to 100, or 'auto'")
        self.percentile = percentile
        self.imputer = imputer
        self.strict = strictness() if strict_compat is None else strict_compat

    def __call__(self, input_tensor: Tensor, mask: Tensor) -> Tensor:
        """One image (C, H, W) and its map (H, W)."""
        return self.batch(input_tensor[None], mask[None])[0]

    def batch(self, images: Tensor, masks: Tensor) -> Tensor:
        """Images (B, C, H, W) and their maps (B, H, W)."""
        kept, together = self.kept(masks.detach().cpu()), batch_of(self.imputer)
        if together is not None:
            return together(images, kept)
        return torch.stack([self.imputer(image, one) for image, one in zip(images.cpu(), kept, strict=True)]).to(images)

    def kept(self, masks: Tensor) -> Tensor:
        """1 where a pixel stays and 0 where it is filled in. (B, H, W) float32"""
        if self.percentile == AUTO:
            above = above_otsu(masks)
            return (above if self.strict else ~above).float()
        values = masks.flatten(1).numpy()
        threshold = np.percentile(values, float(self.percentile), axis=1, keepdims=True)
        return torch.from_numpy(np.float32(values < threshold)).view(masks.shape)


class RemoveLeastRelevantFirst(RemoveMostRelevantFirst):
    """The same with 1 - map: the least relevant pixels are filled in."""

    def batch(self, images: Tensor, masks: Tensor) -> Tensor:
        """Images (B, C, H, W) and their maps (B, H, W)."""
        return super().batch(images, 1 - masks)

    __call__ = RemoveMostRelevantFirst.__call__


class AveragerAcrossThresholds:
    """The mean of a metric over percentiles.

    Args:
        imputer: percentile -> metric, such as the class `ROADMostRelevantFirst`.
        percentiles: 0 to 100 each.
    """

    def __init__(self, imputer: Callable[[Any], Any], percentiles: Sequence[Any] = TENTHS) -> None:
        self.imputer = imputer
        self.percentiles = list(percentiles)

    def __call__(self, input_tensor: Tensor, cams: Any, targets: Targets, model: Model) -> Any:
        """The mean change of each image's score.

        Args:
            input_tensor: (B, C, H, W)
            cams: (B, H, W), an array or a tensor.
            targets: a callable for each image, or one for all.
            model: run in evaluation mode, once for the images themselves and once a percentile.

        Returns:
            (B,) float32, an array, or a tensor where the maps are one.
        """
        mean = self.mean_score(input_tensor, cams, targets, model)
        if mean is None:  # metrics of the caller's own
            changes = [metric(input_tensor, cams, targets, model) for metric in map(self.imputer, self.percentiles)]
            return torch.stack(changes).mean(0) if isinstance(cams, Tensor) else np.stack(changes).mean(axis=0)
        return as_given(mean - score_images(model, input_tensor, targets), cams)

    def mean_score(self, images: Tensor, cams: Any, targets: Targets, model: Model) -> Tensor | None:
        """The changed images' mean score, (B,), or None of metrics that do something else when called."""
        metrics = [self.imputer(percentile) for percentile in self.percentiles]
        if not metrics or not all(averages_apart(metric) for metric in metrics):
            return None
        maps = check_maps(images, cams)
        return torch.stack([score_images(model, m.perturbed(images, maps), targets) for m in metrics]).mean(0)
