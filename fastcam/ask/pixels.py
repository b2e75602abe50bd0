"""A mask over every channel of every pixel, found by gradient descent: FGVis."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from fastcam.model import rules
from fastcam.model.forward import Forward
from fastcam.model.layers import INPUT
from fastcam.model.outputs import widen
from fastcam.targets import Target

from .question import Answer, Question, own_pass_a_class


def masked(question: Question, forwards: list[Forward], target: Target) -> list[Answer]:
    """The image through its masks, one search for each target."""
    (forward,) = forwards
    own_pass_a_class(question, "a search")
    x, bounds = question.images.detach(), outputs(question)
    kept = [search(question, x, bounds, target, t) for t in range(target.count)]
    maps = forward.captured.layout.maps
    mask = torch.stack([maps(one) for one in kept], 1)
    attributions = question.weigh(widen(maps(x))[:, None], mask)
    shown = mask if question.options["game"] == "preservation" else 1 - mask
    return [Answer(shown.mean(-3), forward, target, attributions)]


def outputs(question: Question) -> list[Tensor] | None:
    """What every nonlinearity gives on the images themselves; None where nothing is defended."""
    if not question.options["defense"]:
        return None
    with rules.Outputs() as seen:
        question.network.forward(question.images.detach(), question.args, question.kwargs, INPUT, grad=False)
    return seen.kept


def search(question: Question, x: Tensor, bounds: list[Tensor] | None, target: Target, t: int) -> Tensor:
    """The mask (B, ...) of the t-th target in the images' shape, in float32 at least."""
    options, network = question.options, question.network
    sign = -1.0 if options["game"] == "preservation" else 1.0
    mask, ones = widen(torch.ones_like(x)), [-1] + [1] * (x.dim() - 1)
    held, least = mask, None
    for _ in range(options["steps"]):
        gates = contextlib.nullcontext() if bounds is None else rules.Gates(bounds)
        with gates:
            (seen,) = network.forward((mask * x).to(x.dtype), question.args, question.kwargs, INPUT, grad=True)

        def score(logits: Tensor) -> Tensor:
            if options["score"] == "probability" and target.classes is not None:
                logits = widen(logits).softmax(1)
            return target.score(logits)[:, t : t + 1]

        g = widen(seen.gradients(score, None)[:, 0]).view_as(x) * x
        largest = g.abs().flatten(1).amax(1).view(ones)
        share = g / torch.where(largest == 0, 1.0, largest)
        price = torch.full_like(largest, options["sparsity"])
        if options["game"] == "preservation":
            # Behind gates a gradient need not raise the score again: what counts is the last mask that held it.
            now = score(seen.logits).detach().view(ones)
            least = now if least is None else least
            held = torch.where(now >= least, mask, held)
            price = price * (now >= least)
        mask = (mask - sign * options["rate"] * (share - price)).clamp(0, 1)
    return held if options["game"] == "preservation" else mask
