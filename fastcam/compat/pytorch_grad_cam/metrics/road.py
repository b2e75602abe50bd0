"""ROAD: pixels are removed in the order of the map and filled in from their neighbors, Rong 2022, arXiv:2202.00449."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastcam.compat import strict_compat as strictness
from fastcam.compat.pytorch_grad_cam.arrays import as_given
from fastcam.compat.pytorch_grad_cam.metrics.perturbation_confidence import (
    TENTHS,
    AveragerAcrossThresholds,
    PerturbationConfidenceMetric,
    RemoveLeastRelevantFirst,
    RemoveMostRelevantFirst,
    Targets,
)
from fastcam.compat.pytorch_grad_cam.metrics.scoring import Model
from fastcam.ops.impute_pixels import impute_pixels

# Of the eight neighbors: (row, column) offsets and weights, the diagonal ones half as heavy.
neighbors_weights = [
    ((dy, dx), 1 / 12 if dy and dx else 1 / 6) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)
]


class NoisyLinearImputer:
    """Every removed pixel is the weighted mean of its neighbors, removed ones too, plus a little noise.

    Where all pixels are removed, each is the mean of its channel. The noise is the same field for every image and every
    call, so that results repeat, and those of a batch are those of its images.

    Args:
        noise: its standard deviation, 0 for none.
        weighting: `neighbors_weights`, the only one that there is.
        seed: of the noise.
        strict_compat: draw the noise from torch's global generator, image by image, as pytorch-grad-cam does.

    Raises:
        ValueError: other weights, which pytorch-grad-cam ignores, or a negative noise.
    """

    def __init__(
        self,
        noise: float = 0.01,
        weighting: Sequence[Any] = neighbors_weights,
        *,
        seed: int = 0,
        strict_compat: bool | None = None,
    ) -> None:
        self.strict = strictness() if strict_compat is None else strict_compat
        if not noise >= 0:
            raise ValueError(f"noise is {noise!r}; give a number from 0 on")
        if dict(weighting) != dict(neighbors_weights) and not self.strict:
            raise ValueError(
                "weighting is not the imputer's own 1/6 and 1/12, which are all it knows; leave it out, or say "
                "strict_compat=True to have it ignored as pytorch-grad-cam does"
            )
        self.noise = noise
        self.weighting = neighbors_weights
        self.seed = seed

    def __call__(self, img: Tensor, mask: Tensor) -> Tensor:
        """One image (C, H, W) and its mask (H, W), 0 where a pixel is filled in."""
        return self.batch(img[None], mask[None])[0]

    def batch(self, images: Tensor, masks: Tensor) -> Tensor:
        """Images (B, C, H, W) and masks (B, H, W), 0 where a pixel is filled in; solved on the CPU."""
        removed = masks.cpu() == 0
        values = images.detach().cpu()
        filled = impute_pixels(values.float(), removed)
        if self.noise and self.strict:
            for image, gone in zip(filled, removed, strict=True):
                image[:, gone] += self.noise * torch.randn_like(image[:, gone])
        elif self.noise:
            generator = torch.Generator().manual_seed(self.seed)
            field = torch.randn(images.shape[1:], generator=generator)
            filled += self.noise * field * removed[:, None]
        # Kept pixels to the last bit, whatever the images' type.
        return torch.where(removed[:, None], filled.to(values.dtype), values).to(images.device)


class ROADMostRelevantFirst(PerturbationConfidenceMetric):
    """The change of the score as the most relevant pixels are filled in, those from the percentile on; lower is better.

    Args:
        percentile: 0 to 100, or "auto" for Otsu's threshold.
        seed: of the imputer's noise.
        strict_compat: of the imputer's noise, and of "auto".
    """

    def __init__(self, percentile: float | str = 80, *, seed: int = 0, strict_compat: bool | None = None) -> None:
        imputer = NoisyLinearImputer(seed=seed, strict_compat=strict_compat)
        super().__init__(RemoveMostRelevantFirst(percentile, imputer, strict_compat=strict_compat))


class ROADLeastRelevantFirst(PerturbationConfidenceMetric):
    """The change of the score as the least relevant pixels are filled in; higher is better.

    Args:
        percentile: 0 to 100, of 1 - map, or "auto" for Otsu's threshold.
        seed: of the imputer's noise.
        strict_compat: of the imputer's noise, and of "auto".
    """

    def __init__(self, percentile: float | str = 20, *, seed: int = 0, strict_compat: bool | None = None) -> None:
        imputer = NoisyLinearImputer(seed=seed, strict_compat=strict_compat)
        super().__init__(RemoveLeastRelevantFirst(percentile, imputer, strict_compat=strict_compat))


class ROADMostRelevantFirstAverage(AveragerAcrossThresholds):
    """`ROADMostRelevantFirst`, the mean over percentiles."""

    def __init__(self, percentiles: Sequence[Any] = TENTHS) -> None:
        super().__init__(ROADMostRelevantFirst, percentiles)


class ROADLeastRelevantFirstAverage(AveragerAcrossThresholds):
    """`ROADLeastRelevantFirst`, the mean over percentiles."""

    def __init__(self, percentiles: Sequence[Any] = TENTHS) -> None:
        super().__init__(ROADLeastRelevantFirst, percentiles)


class ROADCombined:
    """(score without the least relevant pixels - score without the most relevant ones) / 2, the mean over percentiles.

    Args:
        percentiles: 0 to 100 each.
    """

    def __init__(self, percentiles: Sequence[Any] = TENTHS) -> None:
        self.percentiles = list(percentiles)
        self.morf_averager = ROADMostRelevantFirstAverage(self.percentiles)
        self.lerf_averager = ROADLeastRelevantFirstAverage(self.percentiles)

    def __call__(self, input_tensor: Tensor, cams: Any, targets: Targets, model: Model) -> Any:
        """Of each image, -0.5 to 0.5 where scores are probabilities; the images' own score cancels.

        Args:
            input_tensor: (B, C, H, W)
            cams: (B, H, W), an array or a tensor.
            targets: a callable for each image, or one for all.
            model: run in evaluation mode, twice a percentile.

        Returns:
            (B,) float32, an array, or a tensor where the maps are one.
        """
        averagers = (self.lerf_averager, self.morf_averager)
        own = AveragerAcrossThresholds.__call__
        if all(type(averager).__call__ is own for averager in averagers):
            least, most = (averager.mean_score(input_tensor, cams, targets, model) for averager in averagers)
            if least is not None and most is not None:
                return as_given((least - most) / 2, cams)
        least, most = (averager(input_tensor, cams, targets, model) for averager in averagers)
        return (least - most) / 2
