"""Scores of masked images and of masked activations."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fastcam import ops
from fastcam.budget import choose, estimate
from fastcam.methods.evidence import InputScores, LayerScores
from fastcam.model.forward import Forward
from fastcam.model.outputs import widen
from fastcam.model.pooled import PooledTail
from fastcam.model.tally import count
from fastcam.ops.spaces import as_pictures, mask_places, mask_spaces
from fastcam.scoring import TAIL_ROW, Chunks, score_rows
from fastcam.streams import Writer
from fastcam.targets import Target

from .question import Question, activations_of, combine
from .rows import score_images, score_of


def by_input_scores(question: Question, forward: Forward, target: Target) -> Tensor:
    """The map weighed by the scores of masked images. (B, T, h, w)"""
    return combine(question, activations_of(forward), input_scores(question, forward, target))


def by_layer_scores(question: Question, forward: Forward, target: Target) -> Tensor:
    """The map weighed by, or made of, the scores of masked activations. (B, T, h, w)"""
    logits = forward.logits.detach() if isinstance(forward.logits, Tensor) else forward.logits
    y = widen(target.score(logits))
    return combine(question, activations_of(forward), (layer_scores(question, forward, target), y))


@dataclass(frozen=True)
class Masks:
    """The masks of one image that need a forward: constant and repeated ones are scored once.

    Attributes:
        maps: (1, K', h, w) activations of the masks to score; the last is zero if some are constant.
        index: (K,) where each channel's score stands among the K'.
        constant: (K,) bool.
        shapes: (K', h*w), or one less without the constant one: the masks as they differ from each other.
    """

    maps: Tensor
    index: Tensor
    constant: Tensor
    shapes: Tensor


def distinct_masks(a: Tensor, normalize: str, with_constant: bool) -> Masks:
    """Which of the K masks differ.

    Args:
        a: (K, h, w) activations of one image.
        normalize: as in `ops.mask_images`; masks that are scaled alike count as the same.
        with_constant: whether the constant ones are to be scored, all with one forward.

    Returns:
        The distinct masks in the order of their first channel, then the constant one.
    """
    flat = a.flatten(1)
    low, high = flat.aminmax(dim=1, keepdim=True)
    constant = (low == high)[:, 0]
    live = (~constant).nonzero()[:, 0]
    shapes = flat[live] if normalize == "never" else (flat[live] - low[live]) / (high[live] - low[live])
    index = torch.zeros(len(a), dtype=torch.long, device=a.device)
    unique, inverse = torch.unique(shapes, dim=0, return_inverse=True)
    first = torch.full((len(unique),), len(live), device=a.device).scatter_reduce(
        0, inverse, torch.arange(len(live), device=a.device), "amin"
    )
    order = first.argsort()
    index[live] = order.argsort()[inverse]
    maps = a[live[first[order]]]
    if with_constant and bool(constant.any()):
        index[constant] = len(maps)
        maps = torch.cat([maps, torch.zeros_like(a[:1])])
    return Masks(maps[None], index, constant, unique[order])


def within(budget: int | None, masks: Masks, a: Tensor) -> Tensor | None:
    """Which of the distinct masks a budget scores, those of the channels that vary most and differ most.

    Args:
        budget: masks at most, the constant one not counted; None is no limit.
        masks: of one image.
        a: (K, h, w) its activations.

    Returns:
        (n,) in rising order, or None where the budget covers all.
    """
    distinct = len(masks.shapes)
    if budget is None or budget >= distinct:
        return None
    deviations = a.flatten(1).std(1, correction=0).masked_fill(masks.constant, 0)
    weights = deviations.new_zeros(distinct + 1).index_add(0, masks.index, deviations)[:distinct]
    return choose(masks.shapes, weights, budget)


def input_scores(question: Question, forward: Forward, target: Target) -> tuple[Tensor, Tensor]:
    """Mean scores of the images under their activation masks, of all images in one stream of chunks.

    Returns:
        s (B, T, K), and constant (B, K).
    """
    evidence, options = question.method.evidence, question.options
    assert isinstance(evidence, InputScores)
    normalize, probability = evidence.normalize(options), evidence.probability(options)
    a = widen(forward.captured.maps.detach())
    generator = torch.Generator().manual_seed(options.get("seed", 0))
    samples = options["samples"] if evidence.sample else 1
    parts, starts = [], [0]
    for b in range(len(a)):
        masks = distinct_masks(a[b], normalize, with_constant=not probability)
        distinct, few = len(masks.shapes), within(options.get("budget"), masks, a[b])
        maps = masks.maps if few is None else torch.cat([masks.maps[:, few], masks.maps[:, distinct:]], 1)
        image, shape = question.images[b : b + 1], forward.captured.layout.shape
        fill = _Fill(evidence, options, maps, shape, image, normalize, samples, generator)
        parts.append((masks, few, fill))
        starts.append(starts[-1] + maps.shape[1] * samples)
    each = score_images(question, target, starts, [fill for _, _, fill in parts], probability)
    scores = []
    for (masks, few, _), (start, stop) in zip(parts, itertools.pairwise(starts), strict=True):
        if start == stop:
            scores.append(a.new_zeros(target.count, a.shape[1]))
            continue
        mean = each[:, start:stop].unflatten(1, (-1, samples)).mean(2)
        if few is not None:
            mean = torch.cat([estimate(masks.shapes, few, mean[:, : len(few)]), mean[:, len(few) :]], 1)
        scores.append(mean[:, masks.index])
    return torch.stack(scores), torch.stack([masks.constant for masks, _, _ in parts])


@dataclass
class _Fill:
    """Writes masked versions [start, stop) of one image, mask by mask and sample by sample."""

    evidence: InputScores
    options: dict[str, Any]
    maps: Tensor
    shape: tuple[int, ...]  # of a map's cells
    image: Tensor
    normalize: str
    samples: int
    generator: torch.Generator
    _mask: tuple[int, Tensor, Tensor] | None = None
    _states: dict[int, Tensor] = field(default_factory=dict)  # of the generator, so that rows can be written again

    def __call__(self, start: int, stop: int, rows: Tensor) -> None:
        if self.evidence.sample is None:
            aligned = self.options.get("align_corners", False)
            mask_spaces(self.maps, self.shape, self.image, start, stop, rows, self.normalize, aligned)
            return
        rows, image = as_pictures(rows), as_pictures(self.image)[0]
        self._states = {k: state for k, state in self._states.items() if k >= start // self.samples}
        row = start
        while row < stop:
            k, first = divmod(row, self.samples)
            last = min(self.samples, first + stop - row)
            mask, draws = self._of(k)
            rows[row - start : row - start + last - first] = self.evidence.sample(
                mask, image, draws[first:last], self.options
            )
            row += last - first

    def _of(self, k: int) -> tuple[Tensor, Tensor]:
        """The mask k (1, H, W) and its samples' draws, seen as pictures, made when the first sample is wanted."""
        if self._mask is None or self._mask[0] != k:
            one = torch.ones_like(self.image[:, :1])
            mask_spaces(self.maps, self.shape, one, k, k + 1, mask := torch.empty_like(one), self.normalize)
            mask = as_pictures(mask)[0]
            shape = (self.image.shape[1], mask.shape[1], mask.shape[2])
            assert self.evidence.draw is not None
            self.generator.set_state(self._states.setdefault(k, self.generator.get_state()))
            self._mask = (k, mask, self.evidence.draw(self.options, shape, self.generator).to(mask))
        return self._mask[1:]


def layer_scores(question: Question, forward: Forward, target: Target) -> Tensor:
    """Scores of the activations with one channel off, or with one cell on.

    Returns:
        s (B, T, K), K = C channels or h*w cells.
    """
    evidence, options = question.method.evidence, question.options
    assert isinstance(evidence, LayerScores)
    probability = options.get("score") == "probability"
    kernel = options.get("kernel", "point")
    images = range(len(question.images))
    tail = forward.pooled
    if tail is not None and evidence.over == "channels" and tail.structure.channel_wise:
        if tail.linear is not None and target.classes is not None:
            y = tail.head(tail.pooled).gather(1, target.classes)
            return y[..., None] - tail.linear[0][target.classes] * (tail.pooled - tail.zero)[:, None]
        return torch.stack([target.score_of(tail.without_channels(b), b).T for b in images])
    if tail is not None and evidence.over == "cells":
        cells = tail.with_one_cell(kernel)
        return torch.stack([score_of(tail.head(cells[b]), target, b, probability).T for b in images])
    return torch.stack([_run_tail(question, forward, target, b, evidence.over, kernel, probability) for b in images])


def _run_tail(
    question: Question,
    forward: Forward,
    target: Target,
    image: int,
    over: str,
    kernel: str,
    probability: bool,
) -> Tensor:
    a = forward.captured.maps.detach()[image : image + 1].contiguous()
    rows = a.shape[1] if over == "channels" else a.shape[2] * a.shape[3]
    writer = Writer(tuple(a.shape[1:]), a.dtype, a.device)
    tail, facts, budget = forward.tail, question.network.facts, question.budget
    kind = "pooled" if isinstance(tail, PooledTail) else type(tail).__name__
    key = (kind, forward.captured.name, tuple(a.shape[1:]), a.dtype, a.device)
    bytes_ = TAIL_ROW * a[0].numel() * a.element_size()

    def fill(start: int, stop: int, rows: Tensor) -> None:
        if over == "channels":
            ops.mask_channels(a, start, stop, rows)
        else:
            mask_places(a, forward.captured.layout.shape, start, stop, rows, kernel)

    def run(maps: Tensor, start: int, stop: int) -> Any:
        count(tails=len(maps))
        return tail(maps, image)

    chunks = Chunks(rows, bytes_, key, facts.tunings, budget.batch_size, budget.max_memory, a.device)
    return score_rows(
        chunks,
        writer,
        fill,
        run,
        lambda logits, start, stop: score_of(logits, target, image, probability),
    )
