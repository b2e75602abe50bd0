"""Scores of perturbed images that a search asks for, round after round: AISE."""

from __future__ import annotations

import functools
import itertools

import torch
from torch import Tensor

from fastcam.methods.evidence_perturbed import Search, SearchedScores
from fastcam.model.forward import Forward
from fastcam.targets import Target

from .perturbed import write
from .question import Question, own_pass_a_class
from .rows import score_images


def searched(question: Question, forward: Forward, target: Target) -> Tensor:
    """The map made of all that the searches looked at; those of all images and targets go on together. (B, T, H, W)"""
    own_pass_a_class(question, "a search")
    evidence, options, images = question.method.evidence, question.options, question.images.detach()
    assert isinstance(evidence, SearchedScores)
    pictures = images.contiguous(memory_format=torch.channels_last).split(1)
    each = [[list(evidence.searches(options)) for _ in range(target.count)] for _ in images]
    places = [[[([], []) for _ in own] for own in one] for one in each]
    while any(not search.done for one in each for own in one for search in own):
        rounds = [_round(one) for one in each]
        versions = [
            evidence.make(
                torch.tensor([which for _, which, points in asked for _ in points], dtype=torch.long),
                torch.tensor([point for _, _, points in asked for point in points], dtype=torch.float64).view(-1, 2),
                options,
                images,
            )
            for asked in rounds
        ]
        starts = [0, *itertools.accumulate(one.count for one in versions)]
        fills = [functools.partial(write, one, picture) for one, picture in zip(versions, pictures, strict=True)]
        scores = score_images(question, target, starts, fills, options["score"] == "probability")
        for b, (start, stop) in enumerate(itertools.pairwise(starts)):
            _tell(each[b], places[b], rounds[b], evidence.worth(scores[:, start:stop], options).tolist())
    found = torch.tensor([[[s[0] for s in own] for own in one] for one in places], dtype=torch.float64)
    values = torch.tensor([[[s[1] for s in own] for own in one] for one in places], dtype=torch.float64)
    size = (int(images.shape[-2]), int(images.shape[-1]))
    raw = question.method(options, found, values, options, size)
    return raw.to(images.device, torch.promote_types(images.dtype, torch.float32))


Asked = tuple[int, int, list[tuple[float, float]]]  # target, number of the search, places


def _round(one: list[list[Search]]) -> list[Asked]:
    """What the searches of one image ask for next."""
    numbered = [(t, which, search) for t, own in enumerate(one) for which, search in enumerate(own)]
    return [(t, which, search.ask()) for t, which, search in numbered if not search.done]


def _tell(
    one: list[list[Search]],
    places: list[list[tuple[list[tuple[float, float]], list[float]]]],
    asked: list[Asked],
    worth: list[list[float]],
) -> None:
    """Give each search what its own places are worth for its own target, and keep them."""
    first = 0
    for t, which, points in asked:
        values = worth[t][first : first + len(points)]
        first += len(points)
        one[t][which].tell(points, [-value for value in values])
        places[t][which][0].extend(points)
        places[t][which][1].extend(values)
