"""Targets: callables from one image's output to its score, or from a batch's to a score each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fastcam.compat.pytorch_grad_cam.arrays import to_tensor


def widened(scores: Tensor) -> Tensor:
    """At least float32: sums and differences of half precision lose what a softmax would need."""
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


class ClassifierOutputTarget:
    """The score of a class.

    Args:
        category: its index.
    """

    def __init__(self, category: int) -> None:
        self.category = category

    def __call__(self, model_output: Tensor) -> Tensor:
        """(classes,) -> (), (B, classes) -> (B,)"""
        return model_output[self.category] if model_output.dim() == 1 else model_output[:, self.category]


class ClassifierOutputSoftmaxTarget:
    """The probability of a class.

    Args:
        category: its index.
    """

    def __init__(self, category: int) -> None:
        self.category = category

    def __call__(self, model_output: Tensor) -> Tensor:
        """(classes,) -> (), (B, classes) -> (B,)"""
        shares = torch.softmax(model_output, -1)
        return shares[self.category] if model_output.dim() == 1 else shares[:, self.category]


class ClassifierOutputReST:
    """The score of a class and the logarithm of its probability, z_c + log p_c: Cai 2025, arXiv:2501.06261.

    Args:
        category: its index.
    """

    def __init__(self, category: int) -> None:
        self.category = category

    def __call__(self, model_output: Tensor) -> Tensor:
        """(classes,) -> (), (B, classes) -> (B,)"""
        scores = model_output + torch.log_softmax(model_output, -1)
        return scores[self.category] if model_output.dim() == 1 else scores[:, self.category]


class BinaryClassifierOutputTarget:
    """The one score of a binary classifier, or its negative.

    Args:
        category: 1 for what speaks for the class, anything else for what speaks against it.
    """

    def __init__(self, category: int) -> None:
        self.category = category

    def __call__(self, model_output: Tensor) -> Tensor:
        """The output's own shape."""
        return model_output if self.category == 1 else -model_output


class SoftmaxOutputTarget:
    """All probabilities."""

    def __call__(self, model_output: Tensor) -> Tensor:
        """The output's own shape."""
        return torch.softmax(model_output, -1)


class RawScoresOutputTarget:
    """All scores."""

    def __call__(self, model_output: Tensor) -> Tensor:
        """The output itself."""
        return model_output


class SemanticSegmentationTarget:
    """The sum of a class's scores over the pixels of a mask.

    Args:
        category: the class.
        mask: (H, W), an array or a tensor; the weight of each pixel.
    """

    def __init__(self, category: int, mask: Any) -> None:
        self.category = category
        self.mask = to_tensor(mask, "mask")

    def __call__(self, model_output: Tensor) -> Tensor:
        """(classes, H, W) -> (), in float32 at least: half precision ends at 65504, which pixels soon sum up to."""
        if model_output.dim() != 3:
            raise ValueError(
                f"the model's output for one image has shape {tuple(model_output.shape)}, expected (classes, H, W)"
            )
        scores = widened(model_output[self.category])
        return (scores * self.mask.to(scores)).sum()


class FasterRCNNBoxScoreTarget:
    """The sum over given boxes of IoU + score of the detection that overlaps each most, where it is one of them.

    A box counts 0 where that detection overlaps it by no more than the threshold or has another label.

    Args:
        labels: (M,) of the given boxes.
        bounding_boxes: (M, 4), x0 y0 x1 y1.
        iou_threshold: the overlap that a detection has to exceed.

    Raises:
        ValueError: as many labels as boxes are not given.
    """

    def __init__(self, labels: Sequence[int] | Any, bounding_boxes: Any, iou_threshold: float = 0.5) -> None:
        if len(labels) != len(bounding_boxes):
            raise ValueError(f"{len(labels)} labels for {len(bounding_boxes)} boxes; give one each")
        self.labels = labels
        self.bounding_boxes = bounding_boxes
        self.iou_threshold = iou_threshold

    def __call__(self, model_outputs: Mapping[str, Tensor]) -> Tensor:
        """One image's "boxes" (N, 4), "labels" (N,) and "scores" (N,) -> (1,), on the boxes' device, in their type."""
        boxes = model_outputs["boxes"]
        if len(boxes) == 0 or len(self.bounding_boxes) == 0:
            return boxes.sum().reshape(1) * 0  # a zero that knows its graph, so that its gradient is zero
        given = to_tensor(self.bounding_boxes, "bounding_boxes").to(boxes).view(-1, 4)
        overlaps, index = box_iou(given, boxes).max(1)
        same = model_outputs["labels"][index] == to_tensor(self.labels, "labels").to(boxes.device)
        counted = (overlaps > self.iou_threshold) & same
        scores = overlaps + model_outputs["scores"][index].to(boxes.dtype)
        return torch.where(counted, scores, 0).sum().reshape(1)


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of each box of (M, 4) with each of (N, 4), x0 y0 x1 y1; 0 of boxes without area."""
    sides = (torch.minimum(a[:, None, 2:], b[:, 2:]) - torch.maximum(a[:, None, :2], b[:, :2])).clamp_min(0)
    inside = sides.prod(2)
    own, other = ((boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (a, b))
    union = own[:, None] + other - inside
    return inside / torch.where(union > 0, union, 1)


class FinerWeightedTarget:
    """Σ_k p_k (z_c - alpha z_k) / Σ_k p_k over the classes compared with, p the probabilities: Finer-CAM.

    Args:
        main_category: c.
        comparison_categories: the classes k, one at least.
        alpha: how much of their scores is taken off.

    Raises:
        ValueError: no class to compare with.
    """

    def __init__(self, main_category: int, comparison_categories: Sequence[int], alpha: float) -> None:
        if len(comparison_categories) == 0:
            raise ValueError("comparison_categories is empty; give one class or more to compare with")
        self.main_category = main_category
        self.comparison_categories = comparison_categories
        self.alpha = alpha

    def __call__(self, model_output: Tensor) -> Tensor:
        """(classes,) -> (), (B, classes) -> (B,)"""
        scores = widened(model_output)
        others = list(self.comparison_categories)
        shares = torch.softmax(scores, -1)[..., others]
        differences = scores[..., self.main_category, None] - self.alpha * scores[..., others]
        return (shares * differences).sum(-1) / (shares.sum(-1) + 1e-9)
