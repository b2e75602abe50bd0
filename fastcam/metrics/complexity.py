"""Is the map stable under itself, and small? Coherency, Complexity, ADCC, Sparseness."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .fields import MAP, SCORE
from .mean import Mean
from .registry import metric


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Correlation of the pixels of two maps.

    Args:
        a: (B, ...)
        b: of the same shape.

    Returns:
        (B,) float64 in [-1, 1], NaN where a map is constant.

    >>> pearson(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 2.0, 1.0]]))
    tensor([-1.0000], dtype=torch.float64)
    """
    x, y = a.flatten(1).double(), b.flatten(1).double()
    flat = (x.amin(1) == x.amax(1)) | (y.amin(1) == y.amax(1))
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    return (torch.linalg.vecdot(x, y) / (x.norm(dim=1) * y.norm(dim=1))).clamp(-1, 1).masked_fill(flat, torch.nan)


def coherency(maps: Tensor, masked_maps: Tensor) -> Tensor:
    """(1 + ρ(L(x), L(x ⊙ L(x)))) / 2: does the image under its map have the same map?

    Args:
        maps: (B, H, W)
        masked_maps: (B, H, W) of the images under their maps, for the same class.

    Returns:
        (B,) float64, 0 where a map is constant. Source: Poppi 2021, eq. 5.

    >>> m = torch.tensor([[[0.0, 1.0], [0.5, 0.2]]])
    >>> coherency(m, m).item() > 0.999999, coherency(m, torch.zeros(1, 2, 2)).item()
    (True, 0.0)
    """
    return ((1 + pearson(maps, masked_maps)) / 2).nan_to_num(0)


def complexity(maps: Tensor) -> Tensor:
    """Σ|m| / n: the mean of the map.

    Args:
        maps: (B, H, W) in [0, 1]

    Returns:
        (B,) float64. Source: Poppi 2021, eq. 6.

    >>> complexity(torch.tensor([[[0.0, 1.0], [0.5, 0.5]]]))
    tensor([0.5000], dtype=torch.float64)
    """
    m = maps.flatten(1)
    return torch.linalg.vector_norm(m, 1, dim=1, dtype=torch.float64) / m.shape[1]


def adcc(drop: Tensor, coherency: Tensor, complexity: Tensor) -> Tensor:
    """3 / (1/coherency + 1/(1 - complexity) + 1/(1 - drop)), the harmonic mean.

    Args:
        drop: average drop, any shape.
        coherency: of the same shape.
        complexity: of the same shape.

    Returns:
        float64 of that shape, 0 where one of the three is worst. Source: Poppi 2021, eq. 7; the published figures
        put data-set means in, the code of its authors each image's.

    >>> adcc(torch.tensor(0.1569), torch.tensor(0.9668), torch.tensor(0.3290))
    tensor(0.8085, dtype=torch.float64)
    """
    parts = torch.stack([coherency.double(), 1 - complexity.double(), 1 - drop.double()])
    zero = (parts <= 0).any(0)
    return (3 / (1 / parts.masked_fill(zero, 1)).sum(0)).masked_fill(zero, 0)


def _sorted(rows: Tensor) -> Tensor:
    """Each row in rising order; on a CPU by NumPy, which sorts 50,000 pixels 17 times as fast as torch."""
    if rows.device.type == "cpu" and rows.dtype in (torch.float32, torch.float64):
        return torch.from_numpy(np.sort(rows.detach().numpy(), axis=1))
    return rows.sort(1).values


def sparseness(maps: Tensor) -> Tensor:
    """Gini index Σ_i (2i - n - 1) m_(i) / (n Σ m) of the pixels in rising order.

    Args:
        maps: (B, H, W), absolute values are taken.

    Returns:
        (B,) float64, 0 for an even map, towards 1 for one bright pixel. Source: Chalasani 2020, arXiv:1810.06583.

    >>> sparseness(torch.tensor([[[0.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]]))
    tensor([0.7500, 0.0000], dtype=torch.float64)
    """
    m = _sorted(maps.flatten(1).abs()).double()
    n, total = m.shape[1], m.sum(1)
    weights = 2 * torch.arange(1, n + 1, device=m.device, dtype=torch.float64) - n - 1
    return ((m @ weights) / (n * total.masked_fill(total == 0, 1))).masked_fill(total == 0, 0)


@metric(
    "coherency",
    ("grid_maps", "masked_maps"),
    formula="mean of (1 + Pearson(map, map of the image under it)) / 2",
    direction="up",
    paper="Poppi 2021, arXiv:2104.10252",
    cost="1 F, shared, and a map's own cost",
    reads=("classes", *MAP, "masking", "grid"),
)
class Coherency(Mean):
    """Mean of `coherency`; `update(maps, masked_maps)` takes (B, H, W)."""

    def values(self, maps: Tensor, masked_maps: Tensor) -> Tensor:
        """(B,)"""
        return coherency(maps, masked_maps)


@metric(
    "complexity",
    ("grid_maps",),
    formula="mean of the map",
    direction="down",
    paper="Poppi 2021, arXiv:2104.10252",
    cost="0",
    reads=("classes", *MAP, "grid"),
)
class Complexity(Mean):
    """Mean of `complexity`; `update(maps)` takes (B, H, W)."""

    def values(self, maps: Tensor) -> Tensor:
        """(B,)"""
        return complexity(maps)


@metric(
    "adcc",
    ("before", "after", "grid_maps", "masked_maps"),
    formula="3 / (1/coherency + 1/(1 - complexity) + 1/(1 - average drop))",
    direction="up",
    paper="Poppi 2021, arXiv:2104.10252",
    cost="1 F, shared, and a map's own cost",
    reads=(*SCORE, *MAP, "masking", "grid", "drop", "adcc"),
)
class ADCC(Mean):
    """The harmonic mean of data-set means, as published; `update(before, after, maps, masked_maps)`.

    Args:
        adcc: "means", or "images" for the mean of each image's own.
        drop: see `average_drop`.
        **kwargs: of `torchmetrics.Metric`.
    """

    def __init__(self, adcc: str = "means", drop: str = "relative", **kwargs: Any) -> None:
        super().__init__(4, **kwargs)
        self.of, self.drop = adcc, drop

    def update(self, before: Tensor, after: Tensor, maps: Tensor, masked_maps: Tensor) -> None:  # type: ignore[override]
        """Add a batch: (B,), (B,), (B, H, W), (B, H, W)."""
        from .faithfulness import average_drop

        parts = (average_drop(before, after, self.drop), coherency(maps, masked_maps), complexity(maps))
        own = adcc(*parts)
        self.add(torch.stack([*parts, own], 1))
        self.last = own

    def images(self) -> int:
        """How many images had a value; of the means, how many had the scarcest part."""
        return round(float(self.count[3] if self.of == "images" else self.count[:3].min()))

    def compute(self) -> Tensor:
        """A scalar."""
        mean = self.mean()
        return mean[3] if self.of == "images" else adcc(*mean[:3])


@metric(
    "sparseness",
    ("maps",),
    formula="mean Gini index of the map",
    direction="up",
    paper="Chalasani 2020, arXiv:1810.06583",
    cost="0",
    reads=("classes", *MAP),
)
class Sparseness(Mean):
    """Mean of `sparseness`; `update(maps)` takes (B, H, W)."""

    def values(self, maps: Tensor) -> Tensor:
        """(B,)"""
        return sparseness(maps)
