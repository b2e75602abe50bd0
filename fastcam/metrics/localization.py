"""Does the map lie on the object? Energy, points, boxes and pixels, against boxes and masks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcam import ops

from .boxes import has_box, max_box_iou, one_at_least
from .fields import MAP
from .mean import Mean
from .registry import metric


def center_maps(images: int, size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
    """The map of a method that has seen nothing: a Gaussian in the middle, σ a quarter of each side.

    Args:
        images: B
        size: (H, W)
        device: of the maps.

    Returns:
        (B, H, W) float32, the same for every image, highest in the middle.
    """
    y, x = (((torch.arange(n, device=device) + 0.5) / n - 0.5) * 4 for n in size)
    return torch.exp(-(y[:, None] ** 2 + x[None] ** 2) / 2).expand(images, *size)


def energy_pointing_game(
    maps: Tensor, boxes: Tensor | None = None, masks: Tensor | None = None, edges: str = "exclusive"
) -> Tensor:
    """Σ_{p in object} m_p / Σ_p m_p: the share of the map's energy on the object.

    Args:
        maps: (B, H, W), none below 0.
        boxes: (B, N, 4), several of them count once where they overlap; or, where there are none,
        masks: (B, H, W) bool.
        edges: whether the far edges of a box belong to it: "exclusive" or "inclusive".

    Returns:
        (B,) float64, 0 for a map without energy. Source: Wang 2020, arXiv:1910.01279.

    >>> energy_pointing_game(torch.tensor([[[1.0, 0.0], [2.0, 1.0]]]), torch.tensor([[[0.0, 0.0, 1.0, 2.0]]]))
    tensor([0.7500], dtype=torch.float64)
    """
    if boxes is None and masks is not None:
        m = maps.double().flatten(1)
        inside, total = (m * masks.flatten(1)).sum(1), m.sum(1)
    else:
        boxes = _boxes(boxes)
        inside, total = ops.energy_in_boxes(maps, boxes.to(maps.device, torch.float32), edges)
    return (inside / total.masked_fill(total == 0, 1)).masked_fill(total == 0, 0)


def pointing_game(
    maps: Tensor, boxes: Tensor | None = None, masks: Tensor | None = None, tolerance: float = 0.0
) -> Tensor:
    """1 where the map's maximum, the first of several, lies on the object or nearer to it than the tolerance.

    Args:
        maps: (B, H, W)
        boxes: (B, N, 4), far edges exclusive; or
        masks: (B, H, W) bool, which come first where both are given.
        tolerance: pixels; 0 asks for a point on the object itself.

    Returns:
        (B,) float64, 0 or 1. Source: Zhang 2016, arXiv:1608.00507; 15 pixels.

    >>> pointing_game(torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]), torch.tensor([[[0.0, 0.0, 1.0, 2.0]]]))
    tensor([0.], dtype=torch.float64)
    """
    height, width = maps.shape[-2:]
    flat = maps.flatten(1)
    index = torch.arange(flat.shape[1], device=maps.device)
    top = flat.nan_to_num(-torch.inf).amax(1, keepdim=True)
    first = torch.where(flat == top, index, flat.shape[1]).amin(1).clamp_max(flat.shape[1] - 1)
    y, x = first // width, first % width
    if masks is not None:
        rows, columns = (torch.arange(n, device=maps.device) for n in (height, width))
        square = (rows[None, :, None] - y[:, None, None]) ** 2 + (columns[None, None] - x[:, None, None]) ** 2
        distance = square.double().sqrt().masked_fill(~masks.to(maps.device), torch.inf).flatten(1).amin(1)
    else:
        boxes = _boxes(boxes)
        b, point = boxes.to(maps.device).double(), torch.stack([x, y], 1)[:, None]
        last = b.new_tensor([width - 1, height - 1])
        low, high = b[..., :2].ceil().clamp_min(0), torch.minimum(b[..., 2:].ceil() - 1, last)
        gap = torch.maximum(low - point, point - high).clamp_min(0)
        empty = ~(high >= low).all(-1)
        distance = gap.norm(dim=-1).masked_fill(empty, torch.inf).amin(1)
    hit = distance < tolerance if tolerance > 0 else distance == 0
    return (hit & flat.isfinite().any(1)).double()


def _boxes(boxes: Tensor | None) -> Tensor:
    if boxes is None:
        raise ValueError("neither boxes nor masks given; give boxes (B, N, 4) or masks (B, H, W)")
    return one_at_least(boxes)


def _unless_there(values: Tensor, boxes: Tensor | None, masks: Tensor | None) -> Tensor:
    """NaN for images without an object."""
    known = has_box(_boxes(boxes)) if masks is None else masks.flatten(1).any(1)
    return values.masked_fill(~known.to(values.device), torch.nan)


def _unless_boxed(values: Tensor, boxes: Tensor) -> Tensor:
    known = has_box(boxes).to(values.device)
    return values.masked_fill(~(known if values.dim() == 1 else known[:, None]), torch.nan)


@metric(
    "energy_pointing_game",
    ("maps", "boxes", "masks"),
    formula="mean share of the map's energy on the object",
    direction="up",
    paper="Wang 2020, arXiv:1910.01279",
    cost="0",
    reads=(*MAP, "edges"),
    needs=("boxes or masks",),
)
class EnergyPointingGame(Mean):
    """Mean of `energy_pointing_game`; `update(maps, boxes=None, masks=None)`.

    Args:
        edges: "exclusive" or "inclusive".
        **kwargs: of `torchmetrics.Metric`.
    """

    def __init__(self, edges: str = "exclusive", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.edges = edges

    def values(self, maps: Tensor, boxes: Tensor | None = None, masks: Tensor | None = None) -> Tensor:
        """(B,)"""
        values = energy_pointing_game(maps, boxes, masks, self.edges)
        return _unless_there(values, boxes, masks if boxes is None else None)


@metric(
    "pointing_game",
    ("maps", "boxes", "masks", "explained"),
    formula="hits / (hits + misses) of the map's maximum, by class",
    direction="up",
    paper="Zhang 2016, arXiv:1608.00507",
    cost="0",
    reads=("upsample", "tolerance", "by_class"),
    needs=("boxes or masks",),
)
class PointingGame(Mean):
    """Hit rate of `pointing_game`, each class counting alike; `details` holds the mean over images.

    `update(maps, boxes=None, masks=None, classes=None)`, classes (B,).

    Args:
        tolerance: pixels, see `pointing_game`.
        by_class: average over classes, and not over images.
        num_classes: how many there are.
        **kwargs: of `torchmetrics.Metric`.
    """

    def __init__(self, tolerance: float = 15.0, by_class: bool = True, num_classes: int = 1000, **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        self.tolerance, self.by_class = tolerance, by_class

    def update(  # type: ignore[override]
        self,
        maps: Tensor,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
        classes: Tensor | None = None,
    ) -> None:
        """Add a batch."""
        hits = _unless_there(pointing_game(maps, boxes, masks, self.tolerance), boxes, masks).to(self.total)
        if classes is None:
            classes = torch.zeros(len(hits), dtype=torch.long)
        classes = classes.to(self.total.device)
        if int(classes.max()) >= len(self.total):
            raise ValueError(
                f"class {int(classes.max())} for {len(self.total)} classes; construct with a larger num_classes"
            )
        known = ~hits.isnan()
        self.total.index_add_(0, classes, hits.nan_to_num(0))
        self.count.index_add_(0, classes, known.double())
        self.last = hits

    def images(self) -> int:
        """How many images had a value; states are sums of classes."""
        return round(float(self.count.sum()))

    def compute(self) -> Tensor:
        """A scalar."""
        images = self.total.sum() / self.count.sum()
        self.details = {"pointing_game_images": images}
        return self.mean().nanmean() if self.by_class else images


@metric(
    "box_iou",
    ("maps", "corners"),
    formula="mean IoU of the box around the largest component above t max with the object's",
    direction="up",
    paper="Zhou 2016, arXiv:1512.04150",
    cost="0",
    reads=(*MAP, "threshold", "connectivity", "plus_one"),
    needs=("boxes",),
)
class BoxIoU(Mean):
    """Mean IoU at one threshold; `update(maps, boxes)`.

    Args:
        threshold: share of each map's maximum.
        connectivity: 4 or 8.
        plus_one: boxes hold inclusive corners, see `boxes.inclusive`.
        **kwargs: of `torchmetrics.Metric`.
    """

    def __init__(self, threshold: float = 0.2, connectivity: int = 8, plus_one: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = (torch.tensor([threshold]), connectivity, True, plus_one)

    def values(self, maps: Tensor, boxes: Tensor) -> Tensor:
        """(B,)"""
        return _unless_boxed(max_box_iou(maps, boxes, *self.settings)[:, 0], boxes)


@metric(
    "localization_accuracy",
    ("maps", "corners", "logits", "target"),
    formula="share of images with IoU >= 0.5 whose label is the best class",
    direction="up",
    paper="Zhou 2016, arXiv:1512.04150",
    cost="0",
    reads=(*MAP, "threshold", "connectivity", "plus_one"),
    needs=("target", "boxes"),
)
class LocalizationAccuracy(Mean):
    """Top-1 localization; `details` holds top-5 and the share of boxes found for the known label.

    `update(maps, boxes, logits, target)`: maps of the labels, logits (B, classes), target (B,).

    Args:
        threshold: see `BoxIoU`.
        connectivity: see `BoxIoU`.
        plus_one: see `BoxIoU`.
        **kwargs: of `torchmetrics.Metric`.
    """

    def __init__(self, threshold: float = 0.2, connectivity: int = 8, plus_one: bool = False, **kwargs: Any) -> None:
        super().__init__(3, **kwargs)
        self.settings = (torch.tensor([threshold]), connectivity, True, plus_one)

    def values(self, maps: Tensor, boxes: Tensor, logits: Tensor, target: Tensor) -> Tensor:
        """(B, 3): top-1, top-5, label given."""
        found = (max_box_iou(maps, boxes, *self.settings)[:, 0] >= 0.5).to(logits.device)
        best = logits.topk(min(5, logits.shape[1]), 1).indices == target[:, None].to(logits.device)
        return _unless_boxed(torch.stack([found & best[:, 0], found & best.any(1), found], 1).double(), boxes)

    def compute(self) -> Tensor:
        """A scalar."""
        mean = self.mean()
        self.details = {"localization_accuracy_top5": mean[1], "localization_accuracy_known": mean[2]}
        return mean[0]
