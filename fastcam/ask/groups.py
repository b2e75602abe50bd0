"""Scores of images seen through a few masks made of gradients: Group-CAM."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastcam import ops
from fastcam.methods.evidence_perturbed import GroupScores
from fastcam.model.forward import Forward
from fastcam.model.outputs import widen
from fastcam.targets import Target

from .question import Question, activations_of, own_pass_a_class
from .rows import score_images


def by_groups(question: Question, forward: Forward, target: Target) -> Tensor:
    """The map weighed by the scores of the image under each group's mask. (B, T, h, w)"""
    evidence, options = question.method.evidence, question.options
    assert isinstance(evidence, GroupScores)
    own_pass_a_class(question, "masks")
    images = question.images.detach()
    g = widen(forward.gradients(target.score, target.classes)).detach()
    maps = evidence.group(activations_of(forward).detach(), g, options)
    hidden = evidence.hide(images, options)
    batch, count, groups = maps.shape[:3]
    parts = [one.split(1) for one in (maps.flatten(1, 2), images - hidden, hidden)]
    fills = [_Fill(*part) for part in zip(*parts, strict=True)]
    each = 1 + count * groups
    probability = options["score"] == "probability"
    scores = score_images(question, target, range(0, (batch + 1) * each, each), fills, probability)
    scores = scores.unflatten(1, (batch, each)).transpose(0, 1)
    own = scores[:, :, 1:].unflatten(2, (count, groups)).diagonal(dim1=1, dim2=2).transpose(1, 2)
    return question.weigh(maps, own, scores[:, :, 0])


@dataclass(frozen=True)
class _Fill:
    """Writes one image as it looks hidden, then under each mask: hidden + difference * mask."""

    maps: Tensor
    difference: Tensor
    hidden: Tensor

    def __call__(self, start: int, stop: int, rows: Tensor) -> None:
        first = max(start, 1)
        if start == 0:
            rows[0] = self.hidden[0]
        if first < stop:
            seen = rows[first - start :]
            ops.mask_images(self.maps, self.difference, first - 1, stop - 1, seen, "after")
            torch.add(seen, self.hidden, out=seen)
