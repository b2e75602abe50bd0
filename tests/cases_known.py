"""Cases of metrics whose answers were worked out by hand: name, what it is, arguments, options, answer.

The name is that of the function, in `fastcam.metrics`, `fastcam.ops` and the formulas alike.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

NAN = math.nan


class Known(NamedTuple):
    function: str
    what: str
    args: tuple
    answer: Tensor | tuple[Tensor, ...] | float
    options: dict = {}  # noqa: RUF012 - never changed

    def __str__(self) -> str:
        return f"{self.function}-{self.what}".replace(" ", "_")


def n(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def grid(*rows: list[float]) -> Tensor:
    """One map (1, H, W)."""
    return torch.tensor([rows], dtype=torch.float32)


def boxes(*own: list[float]) -> Tensor:
    """The boxes of one image (1, N, 4)."""
    return torch.tensor([own], dtype=torch.float32).reshape(1, -1, 4)


def mask(*rows: list[int]) -> Tensor:
    return torch.tensor([rows], dtype=torch.bool)


def found(*own: list[int]) -> Tensor:
    """Boxes of one image at T thresholds (1, T, 4)."""
    return torch.tensor([own])


def peak(y: int, x: int, size: int = 5) -> Tensor:
    out = torch.zeros(1, size, size)
    out[0, y, x] = 1.0
    return out


ONES = torch.ones(1, 2, 2)
TENTH = torch.full((1, 7, 7), 0.1)  # its mean is not 0.1, so its variance is not exactly 0
RAMP = torch.arange(49.0).reshape(1, 7, 7)
HOLE = [NAN, NAN, NAN, NAN]
BLOCK = grid([0, 0, 0, 0], [0, 1, 0.5, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 0.25])
TWO = grid([1, 1, 0, 0.75], [0, 0, 0, 0.75], [0.5, 0, 0, 0])  # two pixels above 0.6, then two more
DIAGONAL = grid([1, 0, 0], [0, 1, 0], [0, 0, 0])

SCORES = [
    Known("average_drop", "half none more", (n(0.5, 0.5, 0.5), n(0.25, 0.5, 0.75)), n(0.5, 0, 0)),
    Known("average_drop", "probability 0 and 1", (n(0, 0, 1, 1), n(0, 0.5, 0, 1)), n(0, 0, 1, 0)),
    Known("average_drop", "nan", (n(NAN, 0.5), n(0.5, NAN)), n(NAN, NAN)),
    Known("increase_in_confidence", "strict", (n(0.5, 0.5, 0.5), n(0.5, 0.75, 0.25)), n(0, 1, 0)),
    Known("increase_in_confidence", "probability 0 and 1", (n(0, 0, 1), n(0, 1e-30, 1)), n(0, 1, 0)),
    Known("average_gain", "half none less", (n(0.5, 0.5, 0.5), n(0.75, 0.5, 0.25)), n(0.5, 0, 0)),
    Known("average_gain", "probability 0 and 1", (n(1, 1, 0, 0), n(1, 0, 1, 0)), n(0, 0, 1, 0)),
    Known("win_rate", "a tie is no win", (n(0.25, 0.5, 0.5), n(0.5, 0.5, 0.25)[None]), n(1, 0, 0)),
    Known("win_rate", "against all", (n(0.25, 0.25), torch.stack([n(0.5, 0.5), n(0.75, 0)])), n(1, 0)),
    Known("average_drop_in_deletion", "not clipped", (n(0.5, 0.5), n(0.25, 1)), n(0.5, -1)),
    Known("average_drop_in_deletion", "probability 0 and 1", (n(0, 1), n(0.5, 0)), n(0, 1)),
    Known("adcc", "best and middle", (n(0, 0.5), n(1, 0.5), n(0, 0.5)), n(1, 0.5)),
    Known("adcc", "one part is zero", (n(1, 0, 0), n(1, 0, 0.5), n(0, 0.5, 1)), n(0, 0, 0)),
    Known("adcc", "three parts", (n(0.5), n(1), n(0.75)), n(3 / 7)),
    Known("auc", "one step", (n(1, 0)[None],), n(0.5)),
    Known("auc", "two steps", (torch.stack([n(1, 1, 1), n(0, 1, 0), n(1, 0, 0)]),), n(1, 0.5, 0.25)),
]

MAPS = [
    Known("pearson", "same and reversed", (torch.cat([RAMP, RAMP]), torch.cat([3 * RAMP + 1, -RAMP])), n(1, -1)),
    Known("pearson", "constant", (TENTH, RAMP), n(NAN)),
    Known("pearson", "one pixel", (grid([1]), grid([1])), n(NAN)),
    Known("coherency", "same and reversed", (torch.cat([RAMP, RAMP]), torch.cat([RAMP, -RAMP])), n(1, 0)),
    Known("coherency", "unrelated", (grid([1, -1], [1, -1]), grid([1, 1], [-1, -1])), n(0.5)),
    Known("coherency", "constant", (torch.cat([TENTH, RAMP]), torch.cat([RAMP, TENTH])), n(0, 0)),
    Known("coherency", "constant twice", (TENTH, TENTH), n(0)),
    Known("coherency", "nan", (grid([1, NAN], [0, 0]), grid([1, 0], [0, 0])), n(0)),
    Known("coherency", "one pixel", (grid([0.5]), grid([0.25])), n(0)),
    Known("spearman", "any rising function", (RAMP, RAMP**3), n(1)),
    Known("spearman", "ties share their ranks", (grid([1, 1, 2]), grid([1, 2, 3])), n(math.sqrt(3) / 2)),
    Known("spearman", "constant", (TENTH, RAMP), n(NAN)),
    Known("ssim", "same", (RAMP / 48, RAMP / 48), n(1)),
    Known("ssim", "same constant", (TENTH, TENTH), n(1)),
    Known("ssim", "one pixel", (grid([1]), grid([0])), n(1e-4 / 1.0001)),
    Known("complexity", "zeros ones half", (torch.stack([0 * ONES[0], ONES[0], ONES[0] / 2]),), n(0, 1, 0.5)),
    Known("complexity", "sign has no part", (grid([-1, 1], [0, 0]),), n(0.5)),
    Known("complexity", "one pixel", (grid([0.25]),), n(0.25)),
    Known("sparseness", "zero map", (0 * ONES,), n(0)),
    Known("sparseness", "constant", (ONES,), n(0)),
    Known("sparseness", "one of four", (grid([0, 0], [1, 0]),), n(0.75)),
    Known("sparseness", "two of four with sign", (grid([0, -1], [1, 0]),), n(0.5)),
    Known("sparseness", "one pixel", (grid([0.5]),), n(0)),
    Known("max_sensitivity", "largest of two", (ONES, torch.stack([ONES + 0.5, ONES - 0.25])), n(0.5)),
    Known("max_sensitivity", "zero map", (0 * ONES, ONES[None]), n(0)),
    Known("max_sensitivity", "one pixel", (grid([2]), grid([1])[None]), n(0.5)),
]

ENERGY = [
    Known("energy_pointing_game", "left half", (ONES, boxes([0, 0, 1, 2])), n(0.5)),
    Known("energy_pointing_game", "full image", (ONES, boxes([0, 0, 2, 2])), n(1)),
    Known("energy_pointing_game", "no box", (ONES, boxes()), n(0)),
    Known("energy_pointing_game", "empty box", (ONES, boxes([1, 1, 1, 1])), n(0)),
    Known("energy_pointing_game", "inclusive pixel", (ONES, boxes([1, 1, 1, 1])), n(0.25), {"edges": "inclusive"}),
    Known("energy_pointing_game", "box outside", (ONES, boxes([5, 5, 9, 9])), n(0)),
    Known("energy_pointing_game", "box partly outside", (ONES, boxes([-5, -5, 1, 1])), n(0.25)),
    Known("energy_pointing_game", "union counts once", (ONES, boxes([0, 0, 1, 2], [0, 0, 2, 1])), n(0.75)),
    Known("energy_pointing_game", "padding", (ONES, boxes([0, 0, 1, 1], HOLE, [2, 2, 0, 0])), n(0.25)),
    Known("energy_pointing_game", "fraction of a pixel", (ONES, boxes([0.5, 0, 2, 2])), n(0.5)),
    Known("energy_pointing_game", "zero map", (0 * ONES, boxes([0, 0, 2, 2])), n(0)),
    Known("energy_pointing_game", "one pixel", (grid([0.5]), boxes([0, 0, 1, 1])), n(1)),
    Known("pointing_game", "hit", (peak(2, 3), boxes([3, 2, 4, 3])), n(1)),
    Known("pointing_game", "corner is exclusive", (peak(2, 3), boxes([0, 0, 3, 5])), n(0)),
    Known("pointing_game", "first of ties", (peak(0, 1) + peak(3, 3), boxes([3, 3, 4, 4])), n(0)),
    Known("pointing_game", "constant map", (ONES, boxes([0, 0, 1, 1])), n(1)),
    Known("pointing_game", "no box", (peak(2, 3), boxes()), n(0)),
    Known("pointing_game", "padding", (peak(2, 3), boxes(HOLE, [4, 4, 0, 0])), n(0)),
    Known("pointing_game", "distance equals tolerance", (peak(0, 0), boxes([3, 0, 4, 1])), n(0), {"tolerance": 3}),
    Known("pointing_game", "distance under tolerance", (peak(0, 0), boxes([3, 0, 4, 1])), n(1), {"tolerance": 4}),
    Known("pointing_game", "distance is Euclidean", (peak(0, 0), boxes([3, 3, 4, 4])), n(0), {"tolerance": 4}),
    Known("pointing_game", "box outside", (peak(0, 0), boxes([-3, -3, 0, 0])), n(0), {"tolerance": 15}),
    Known("pointing_game", "masks", (ONES,), n(1), {"masks": mask([1, 0], [0, 0])}),
    Known("pointing_game", "empty mask", (ONES,), n(0), {"masks": mask([0, 0], [0, 0]), "tolerance": 15}),
    Known("pointing_game", "nan is no maximum", (grid([NAN, 0.5], [1, 0]), boxes([0, 1, 1, 2])), n(1)),
    Known("pointing_game", "nan everywhere", (grid([NAN, NAN]), boxes([0, 0, 2, 1])), n(0)),
    Known("pointing_game", "one pixel", (grid([0]), boxes([0, 0, 1, 1])), n(1)),
    Known("pxap", "perfect", (grid([1, 0]), mask([1, 0])), 1.0),
    Known("pxap", "constant", (grid([0.5, 0.5, 0.5, 0.5]), mask([1, 0, 0, 0])), 0.25),
    Known("pxap", "reversed", (grid([0, 1]), mask([1, 0])), 0.5),
    Known("pxap", "one level", (grid([0.5004, 0.5001]), mask([1, 0])), 0.5),
    Known("pxap", "one is a level of its own", (grid([1, 0.9996]), mask([1, 0])), 1.0),
    Known("pxap", "ignored", (grid([0.9, 0.5, 0.1]), mask([0, 1, 0])), 1.0, {"ignored": mask([1, 0, 0])}),
    Known("pxap", "ignored on the object", (grid([0.9, 0.5, 0.1]), mask([1, 0, 1])), 0.5, {"ignored": mask([1, 0, 0])}),
    Known("pxap", "nan", (grid([1, NAN]), mask([1, 0])), NAN),
    Known("pxap", "no object", (grid([1, 0]), mask([0, 0])), NAN),
]

OVERLAPS = [
    Known("box_iou", "same apart quarter", (n(0, 0, 4, 4), torch.stack([n(0, 0, 4, 4), n(4, 0, 8, 4), n(0, 0, 2, 2)])),
          n(1, 0, 0.25)),
    Known("box_iou", "corners are pixels", (n(0, 0, 1, 1), n(1, 1, 2, 2)), torch.tensor(1 / 7), {"plus_one": True}),
    Known("box_iou", "one pixel", (n(3, 3, 3, 3), n(3, 3, 3, 3)), torch.tensor(1.0), {"plus_one": True}),
    Known("box_iou", "empty", (n(3, 3, 3, 3), n(3, 3, 3, 3)), torch.tensor(0.0)),
    Known("box_iou", "empty in full", (n(0, 0, 4, 4), n(1, 1, 1, 3)), torch.tensor(0.0)),
    Known("box_iou", "reversed", (n(0, 0, 4, 4), n(3, 3, 1, 1)), torch.tensor(0.0)),
    Known("box_iou", "nan", (n(0, 0, 4, 4), n(*HOLE)), torch.tensor(0.0)),
    Known("component_boxes", "thresholds in any order", (BLOCK, n(0.75, 0.1, 0.25, 0)),
          (found([1, 1, 1, 1], [1, 1, 3, 3], [1, 1, 2, 2], [1, 1, 3, 3]), torch.tensor([[1, 5, 4, 5]]))),
    Known("component_boxes", "threshold 1 has nothing", (BLOCK, n(1)), (found([0, 0, -1, -1]), torch.tensor([[0]]))),
    Known("component_boxes", "threshold is strict", (BLOCK, n(0.5)), (found([1, 1, 1, 1]), torch.tensor([[1]]))),
    Known("component_boxes", "absolute", (4 * BLOCK, n(1)), (found([1, 1, 2, 2]), torch.tensor([[4]])),
          {"relative": False}),
    Known("component_boxes", "tie goes to the first", (TWO, n(0.6)), (found([0, 0, 1, 0]), torch.tensor([[2]]))),
    Known("component_boxes", "8 neighbors", (DIAGONAL, n(0.5)), (found([0, 0, 1, 1]), torch.tensor([[2]]))),
    Known("component_boxes", "4 neighbors", (DIAGONAL, n(0.5)), (found([0, 0, 0, 0]), torch.tensor([[1]])),
          {"connectivity": 4}),
    Known("component_boxes", "zero map", (0 * ONES, n(0, 0.5)),
          (found([0, 0, -1, -1], [0, 0, -1, -1]), torch.tensor([[0, 0]]))),
    Known("component_boxes", "constant map", (ONES / 2, n(0.5)), (found([0, 0, 1, 1]), torch.tensor([[4]]))),
    Known("component_boxes", "nan never counts", (grid([NAN, 1, NAN], [1, NAN, 0]), n(0.5)),
          (found([0, 0, 1, 1]), torch.tensor([[2]]))),
    Known("component_boxes", "nan everywhere", (grid([NAN, NAN]), n(0)), (found([0, 0, -1, -1]), torch.tensor([[0]]))),
    Known("component_boxes", "one pixel", (grid([0.5]), n(0.5)), (found([0, 0, 0, 0]), torch.tensor([[1]]))),
    Known("max_box_iou", "exact", (BLOCK, boxes([1, 1, 3, 3]), n(0.25, 0.75)), n(1, 0.25)[None]),
    Known("max_box_iou", "best box", (BLOCK, boxes([0, 0, 4, 4], [1, 1, 3, 3], HOLE), n(0.25)), n(1)[None]),
    Known("max_box_iou", "full image", (ONES, boxes([0, 0, 2, 2]), n(0.5)), n(1)[None]),
    Known("max_box_iou", "zero map", (0 * ONES, boxes([0, 0, 2, 2]), n(0.5)), n(0)[None]),
    Known("max_box_iou", "no box", (ONES, boxes(), n(0.5)), n(0)[None]),
    Known("max_box_iou", "empty box", (ONES, boxes([0, 0, 0, 2]), n(0.5)), n(0)[None]),
    Known("max_box_iou", "box outside", (ONES, boxes([4, 4, 6, 6]), n(0.5)), n(0)[None]),
    Known("max_box_iou", "box partly outside", (ONES, boxes([0, 0, 2, 4]), n(0.5)), n(0.5)[None]),
    Known("max_box_iou", "4 neighbors", (DIAGONAL, boxes([0, 0, 2, 2]), n(0.5)), n(0.25)[None], {"connectivity": 4}),
    Known("max_box_iou", "one pixel", (grid([0.5]), boxes([0, 0, 1, 1]), n(0.5)), n(1)[None]),
]  # fmt: skip

CASES_METRICS = [*SCORES, *MAPS, *ENERGY, *OVERLAPS]
