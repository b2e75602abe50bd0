"""Evidence at several layers that make one map: gradients from one backward, all masks' scores in one stream."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fastcam import ops
from fastcam.methods.evidence_perturbed import LayeredScores
from fastcam.model.forward import Forward, gradients_together
from fastcam.model.outputs import widen
from fastcam.targets import Target

from .masked import Masks, distinct_masks
from .perturbed import own_scores
from .question import Answer, Question, activations_of, every_class_in_one_pass
from .rows import score_images


def names(forwards: list[Forward]) -> tuple[str, ...]:
    """The layers."""
    return tuple(one.captured.name for one in forwards)


def gradients(question: Question, forwards: list[Forward], target: Target) -> list[Answer]:
    """The map made of the gradients at all layers, from one backward for each target."""
    for one in forwards:
        every_class_in_one_pass(question, one, "gradients")
    if len(forwards) == 1:
        found = [forwards[0].gradients(target.score, target.classes, create_graph=question.differentiable)]
    else:
        found = gradients_together(forwards, target.score, create_graph=question.differentiable)
    layers = [(activations_of(one), widen(g)) for one, g in zip(forwards, found, strict=True)]
    if not question.differentiable:
        layers = [(a.detach(), g) for a, g in layers]
    size = (int(question.images.shape[-2]), int(question.images.shape[-1]))
    return [Answer(question.method(question.options, layers, size), forwards[0], target, layers=names(forwards))]


def scores(question: Question, forwards: list[Forward], target: Target) -> list[Answer]:
    """The map made of the scores under the masks of all layers."""
    evidence, options, images = question.method.evidence, question.options, question.images.detach()
    assert isinstance(evidence, LayeredScores)
    probability, signs = options["score"] == "probability", evidence.signs(options)
    activations = [activations_of(one).detach() for one in forwards]
    fills = [_Fill(image[None]) for image in images]
    parts: list[list[tuple[Masks, dict[str, int]]]] = []
    for a in activations:
        parts.append([])
        for b, fill in enumerate(fills):
            masks = distinct_masks(evidence.masks(a[b]), "never", with_constant=True)
            parts[-1].append((masks, {sign: fill.add(masks.maps, sign) for sign in signs}))
    starts = [0]
    for fill in fills:
        starts.append(starts[-1] + fill.count)
    each = score_images(question, target, starts, fills, probability)
    layers = []
    for a, part in zip(activations, parts, strict=True):
        own = {}
        for sign in signs:
            rows = [each[:, starts[b] + first[sign] + masks.index] for b, (masks, first) in enumerate(part)]
            own[sign] = torch.stack(rows)
        layers.append((a, own))
    raw = question.method(options, layers, own_scores(forwards[0], target, probability))
    return [Answer(raw, forwards[0], target, layers=names(forwards))]


@dataclass
class _Fill:
    """Writes versions of one image: through the masks of a layer ("+"), or without what they show ("-")."""

    image: Tensor
    parts: list[tuple[int, Tensor, str]] = field(default_factory=list)
    count: int = 0

    def add(self, maps: Tensor, sign: str) -> int:
        """Append the versions of these masks (1, K, h, w); the number of the first."""
        first, self.count = self.count, self.count + maps.shape[1]
        self.parts.append((first, maps, sign))
        return first

    def __call__(self, start: int, stop: int, rows: Tensor) -> None:
        for first, maps, sign in self.parts:
            low, high = max(start, first), min(stop, first + maps.shape[1])
            if low < high:
                own = rows[low - start : high - start]
                ops.mask_images(maps, self.image, low - first, high - first, own, "never")
                if sign == "-":
                    torch.sub(self.image, own, out=own)
