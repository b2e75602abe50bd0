"""Localization over every threshold: MaxBoxAcc, MaxBoxAccV2, PxAP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .boxes import has_box, levels, max_box_iou, max_component_iou
from .fields import MAP
from .mean import Mean
from .registry import metric


class Curve(Mean):
    """Hits at every threshold; `details` holds the best threshold, and accuracy and mean IoU at each.

    Args:
        thresholds: how many, equally spaced in [0, 1).
        ious: overlaps that count as a hit; each takes its own best threshold.
        connectivity: 4 or 8.
        quantize: cut maps and thresholds to 8 bits.
        plus_one: boxes hold inclusive corners, see `boxes.inclusive`.
        **kwargs: of `torchmetrics.Metric`.
    """

    def __init__(
        self,
        thresholds: int = 100,
        ious: tuple[float, ...] = (0.5,),
        connectivity: int = 8,
        quantize: bool = False,
        plus_one: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__((len(ious) + 1) * thresholds, **kwargs)
        self.thresholds, self.ious = thresholds, ious
        self.connectivity, self.quantize, self.plus_one = connectivity, quantize, plus_one

    @staticmethod
    def overlap(
        maps: Tensor, boxes: Tensor, thresholds: Tensor, connectivity: int, relative: bool, plus_one: bool
    ) -> Tensor:
        """(B, T) IoU."""
        return max_box_iou(maps, boxes, thresholds, connectivity, relative, plus_one)

    def update(self, maps: Tensor, boxes: Tensor) -> None:  # type: ignore[override]
        """Add a batch: (B, H, W), (B, N, 4)."""
        leveled, thresholds, relative = levels(maps, self.thresholds, self.quantize)
        iou = self.overlap(leveled, boxes, thresholds, self.connectivity, relative, self.plus_one)
        hits = (iou[:, None] >= torch.tensor(self.ious, dtype=torch.float64, device=iou.device)[:, None]).double()
        rows = torch.cat([hits.flatten(1), iou.double()], 1)
        self.add(rows.masked_fill(~has_box(boxes).to(iou.device)[:, None], torch.nan))
        self.last = iou.amax(1).masked_fill(~has_box(boxes).to(iou.device), torch.nan)

    def compute(self) -> Tensor:
        """A scalar: the mean over the overlaps of the accuracy at the best threshold."""
        *accuracies, iou = self.mean().view(len(self.ious) + 1, self.thresholds)
        accuracy = torch.stack(accuracies)
        best = accuracy.max(1)
        self.details = {
            f"{self.name}_threshold": best.indices / self.thresholds,
            f"{self.name}_curve": accuracy,
            f"{self.name}_iou_curve": iou,
        }
        return best.values.mean()


@metric(
    "max_box_acc",
    ("maps", "corners"),
    formula="max over t of the share of images whose largest component's box has IoU >= 0.5",
    direction="up",
    paper="Choe 2020, arXiv:2001.07437",
    cost="0",
    reads=(*MAP, "thresholds", "connectivity", "quantize", "plus_one"),
    needs=("boxes",),
)
class MaxBoxAcc(Curve):
    """Box accuracy at the best threshold; `update(maps, boxes)`, per image the best IoU over thresholds."""


@metric(
    "max_box_acc_v2",
    ("maps", "corners"),
    formula="mean over IoU 0.3, 0.5, 0.7 of the max over t of the share of images with any component's box that near",
    direction="up",
    paper="Choe 2022, arXiv:2007.04178",
    cost="0",
    reads=(*MAP, "thresholds", "connectivity", "quantize", "plus_one", "ious"),
    needs=("boxes",),
)
class MaxBoxAccV2(Curve):
    """Box accuracy of any component at three overlaps; arguments as `MaxBoxAcc`."""

    def __init__(self, thresholds: int = 100, ious: tuple[float, ...] = (0.3, 0.5, 0.7), **kwargs: Any) -> None:
        super().__init__(thresholds, ious, **kwargs)

    @staticmethod
    def overlap(
        maps: Tensor, boxes: Tensor, thresholds: Tensor, connectivity: int, relative: bool, plus_one: bool
    ) -> Tensor:
        """(B, T) IoU."""
        return max_component_iou(maps, boxes, thresholds, connectivity, relative, plus_one)


def pixel_histograms(maps: Tensor, masks: Tensor, bins: int = 1000, ignored: Tensor | None = None) -> Tensor:
    """How many pixels on and off the object have each value.

    Args:
        maps: (B, H, W) in [0, 1]; one that holds a NaN says nothing of any pixel, and none of its pixels counts.
        masks: (B, H, W) bool
        bins: equal ones over [0, 1).
        ignored: (B, H, W) bool, pixels that are neither and count nowhere.

    Returns:
        (B, 2, bins + 1) float64: on the object, off it; 1 itself has the last bin.
    """
    edges = torch.arange(1, bins + 1, dtype=torch.float64, device=maps.device) * (1 / bins)
    index = torch.bucketize(maps.flatten(1).double(), edges, right=True)
    on = masks.flatten(1).to(maps.device)
    counted = ~maps.flatten(1).isnan().any(1, keepdim=True).expand_as(on)
    if ignored is not None:
        counted = counted & ~ignored.flatten(1).to(maps.device)
    counts = torch.zeros(len(maps), 2 * (bins + 1), dtype=torch.float64, device=maps.device)
    counts.scatter_add_(1, index + torch.where(on, 0, bins + 1), counted.double())
    return counts.unflatten(1, (2, bins + 1))


def pxap(histograms: Tensor) -> Tensor:
    """Σ_t precision_t (recall_t - recall_{t+1}): the pixels' average precision over thresholds.

    Args:
        histograms: (..., 2, n) of `pixel_histograms`, added up over the data set.

    Returns:
        (...) float64, NaN without a pixel on an object. Source: Choe 2020, arXiv:2001.07437.

    >>> m, on = torch.tensor([[[0.9, 0.1], [0.4, 0.6]]]), torch.tensor([[[True, False], [False, True]]])
    >>> pxap(pixel_histograms(m, on))
    tensor([1.], dtype=torch.float64)
    """
    on, off = histograms.flip(-1).cumsum(-1).unbind(-2)
    total = on[..., -1:]
    precision = on / (on + off).clamp_min(1)
    recall = on / total
    return (precision * recall.diff(dim=-1, prepend=torch.zeros_like(total))).sum(-1)


@metric(
    "pxap",
    ("maps", "masks", "ignored"),
    formula="average precision of the pixels, all images together",
    direction="up",
    paper="Choe 2020, arXiv:2001.07437",
    cost="0",
    reads=MAP,
    needs=("masks",),
)
class PxAP(Mean):
    """Average precision of the pixels of all images; `update(maps, masks, ignored=None)`, per image its own.

    An image whose map holds a NaN has no value and does not count.

    Args:
        bins: thresholds below 1.
        **kwargs: of `torchmetrics.Metric`.
    """

    def __init__(self, bins: int = 1000, **kwargs: Any) -> None:
        super().__init__(2 * (bins + 1), **kwargs)
        self.bins = bins

    def update(self, maps: Tensor, masks: Tensor, ignored: Tensor | None = None) -> None:  # type: ignore[override]
        """Add a batch: (B, H, W), (B, H, W) bool, and (B, H, W) bool of the pixels to leave out."""
        histograms = pixel_histograms(maps, masks, self.bins, ignored)
        broken = maps.flatten(1).isnan().any(1)
        self.add(histograms.flatten(1).masked_fill(broken[:, None], torch.nan))
        self.last = pxap(histograms).to(self.total)

    def compute(self) -> Tensor:
        """A scalar."""
        return pxap(self.total.view(2, self.bins + 1))
