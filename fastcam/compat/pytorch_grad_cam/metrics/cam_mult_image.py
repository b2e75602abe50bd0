"""How the score changes as the image is multiplied by its map."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from fastcam.compat.pytorch_grad_cam.metrics.perturbation_confidence import PerturbationConfidenceMetric


def multiply_tensor_with_cam(input_tensor: Tensor, cam: Tensor) -> Tensor:
    """The product; 0 is what the model's normalization makes of the mean color."""
    return input_tensor * cam


class CamMultImageConfidenceChange(PerturbationConfidenceMetric):
    """Score of the image times its map, less the image's own."""

    def __init__(self) -> None:
        super().__init__(multiply_tensor_with_cam)

    def perturbed(self, images: Tensor, maps: Tensor) -> Tensor:
        """The products, where the images are. (B, C, H, W)"""
        if self.perturbation is not multiply_tensor_with_cam:
            return super().perturbed(images, maps)
        return images.detach() * maps.to(images)[:, None]


class DropInConfidence(CamMultImageConfidenceChange):
    """max(0, score - score of the image times its map), which is not a share of the score."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Arguments and returns as of `PerturbationConfidenceMetric`."""
        return _changed(super().__call__(*args, **kwargs), lambda change: (-change).clip(0))


class IncreaseInConfidence(CamMultImageConfidenceChange):
    """1 where the score of the image times its map is higher, else 0."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Arguments and returns as of `PerturbationConfidenceMetric`."""
        return _changed(
            super().__call__(*args, **kwargs),
            lambda change: (change > 0).float() if isinstance(change, Tensor) else np.float32(change > 0),
        )


def _changed(result: Any, how: Any) -> Any:
    """What `how` makes of the scores, and the changed images as they are, if they were asked for."""
    return (how(result[0]), result[1]) if isinstance(result, tuple) else how(result)
