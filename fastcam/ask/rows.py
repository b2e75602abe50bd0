"""The scores of rows made from the images of a batch: those of all images in one stream."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fastcam.model.outputs import widen
from fastcam.scorer import Scorer
from fastcam.targets import Target

from .question import Question

Fill = Callable[[int, int, Tensor], None]


def score_of(logits: Any, target: Target, image: int, probability: bool) -> Tensor:
    """The scores (n, T) of n variants of one image; with `probability` a class score is its softmax probability."""
    if probability and target.classes is not None:
        logits = widen(logits).softmax(1)
    return target.score_of(logits, image)


def score_images(
    question: Question, target: Target, starts: Sequence[int], fills: Sequence[Fill], probability: bool, image: int = 0
) -> Tensor:
    """The scores of the rows of images from `image` on, those of the b-th from starts[b] on.

    Args:
        question: its network runs, its images are what the rows look like.
        target: what is scored.
        starts: first row of each image, and the number of rows in all.
        fills: of each image, (start, stop, out) writes its rows [start, stop), counted from its own first.
        probability: whether a class score is its softmax probability.
        image: the first image that has rows.

    Returns:
        (T, rows) in float32 at least.
    """
    if target.classes is None and len(fills) > 1:  # an output of any kind cannot be cut: no chunk holds two images
        alone = zip(fills, itertools.pairwise(starts), strict=True)
        each = [
            score_images(question, target, [0, b - a], [one], probability, i) for i, (one, (a, b)) in enumerate(alone)
        ]
        return torch.cat(each, 1)

    def spans(start: int, stop: int) -> Iterator[tuple[int, slice]]:
        """The images that rows [start, stop) belong to, and which of these rows are theirs."""
        for b, (first, end) in enumerate(itertools.pairwise(starts)):
            if max(first, start) < min(end, stop):
                yield b, slice(max(first, start), min(end, stop))

    def fill(start: int, stop: int, rows: Tensor) -> None:
        for b, own in spans(start, stop):
            fills[b](own.start - starts[b], own.stop - starts[b], rows[own.start - start : own.stop - start])

    def score(logits: Any, start: int, stop: int) -> Tensor:
        if len(fills) == 1:
            return score_of(logits, target, image, probability)
        parts = [(b, logits[own.start - start : own.stop - start]) for b, own in spans(start, stop)]
        return torch.cat([score_of(part, target, b, probability) for b, part in parts])

    owners = image + torch.arange(len(fills)).repeat_interleave(torch.tensor(starts).diff())
    stream = Scorer(question.network, question.budget).stream
    return stream(question.images, starts[-1], fill, score, question.args, question.kwargs, owners)
