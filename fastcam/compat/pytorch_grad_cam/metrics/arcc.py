"""ARCC and its parts: complexity, coherency, and ROAD; arXiv:2605.14641."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastcam.compat.pytorch_grad_cam.arrays import as_given, to_tensor
from fastcam.compat.pytorch_grad_cam.metrics.perturbation_confidence import Targets
from fastcam.compat.pytorch_grad_cam.metrics.road import ROADCombined
from fastcam.compat.pytorch_grad_cam.metrics.scoring import Model, check_maps

EPS = 1e-8
PERCENTILES = (20, 40, 60, 80)


def batch_pearson_coherency(A: Any, B: Any) -> Any:
    """The correlation of each map of one batch with that of the other, cov / (std std + 1e-8).

    Args:
        A: (B, ...), an array or a tensor.
        B: the same shape.

    Returns:
        (B,); 0 where a map is the same everywhere.
    """
    a, b = to_tensor(A, "A").flatten(1), to_tensor(B, "B").flatten(1)
    if a.shape != b.shape:
        raise ValueError(f"maps of {a.shape[1]} and {b.shape[1]} pixels, {len(a)} and {len(b)} of them; give the same")
    b = b.to(a.device)
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    count = max(a.shape[1] - 1, 1)
    spread = ((a**2).sum(1) / count).sqrt() * ((b**2).sum(1) / count).sqrt()
    return as_given((a * b).sum(1) / count / (spread + EPS), A)


class Complexity:
    """The mean magnitude of a map, 0 to 1: Poppi 2021, arXiv:2104.10252."""

    def __call__(self, grayscale_cams: Any) -> Any:
        """(B, H, W) -> (B,)"""
        return as_given(to_tensor(grayscale_cams, "grayscale_cams").flatten(1).abs().mean(1), grayscale_cams)


class Coherency:
    """(r + 1) / 2, r the correlation of a map with that of the image times the map: Poppi 2021, arXiv:2104.10252."""

    def __call__(
        self,
        input_tensor: Tensor,
        grayscale_cams: Any,
        targets: Targets,
        model: Model | None,
        base_method: Callable[..., Any],
    ) -> Any:
        """Of each image.

        Args:
            input_tensor: (B, C, H, W)
            grayscale_cams: (B, H, W), an array or a tensor.
            targets: as `base_method` takes them.
            model: not used.
            base_method: a CAM object, called as base_method(input_tensor=, targets=).

        Returns:
            (B,), an array, or a tensor where the maps are one.
        """
        maps = check_maps(input_tensor, grayscale_cams)
        mixed = base_method(input_tensor=input_tensor * maps.to(input_tensor)[:, None], targets=targets)
        again = to_tensor(mixed, "the maps of base_method").to(maps.device)
        return as_given((batch_pearson_coherency(again, maps) + 1) / 2, grayscale_cams)


class ARCC:
    """3 / (1 / coherency + 1 / (1 - complexity) + 1 / ROAD), ROAD twice ROADCombined and cut to [0, 1].

    Args:
        base_method: a CAM object, called as base_method(input_tensor=, targets=).
        road_percentiles: of ROAD, 0 to 100 each.
    """

    def __init__(self, base_method: Callable[..., Any], road_percentiles: Sequence[Any] = PERCENTILES) -> None:
        self.complexity = Complexity()
        self.coherency = Coherency()
        self.road = ROADCombined(percentiles=road_percentiles)
        self.base_method = base_method

    def __call__(self, input_tensor: Tensor, grayscale_cams: Any, targets: Targets, model: Model) -> Any:
        """Of each image, 0 to 1; arguments as of `Coherency` and `ROADCombined`.

        Returns:
            (B,), an array, or a tensor where the maps are one.
        """
        complexity = self.complexity(grayscale_cams)
        coherency = self.coherency(input_tensor, grayscale_cams, targets, model, self.base_method)
        road = (self.road(input_tensor, grayscale_cams, targets, model) * 2).clip(0, 1)
        if isinstance(road, Tensor):  # where the model is, the maps may be elsewhere
            complexity, coherency = (torch.as_tensor(part).to(road.device) for part in (complexity, coherency))
        return 3 / (1 / (coherency + EPS) + 1 / (1 - complexity + EPS) + 1 / (road + EPS))
