"""Evidence at the layer from one forward: activations, the classifier's weights, gradients, contributions."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from fastcam.model import rescale
from fastcam.model.forward import Forward
from fastcam.model.outputs import widen
from fastcam.targets import Target

from .question import Question, activations_of, combine, every_class_in_one_pass


def gradients(question: Question, forward: Forward, target: Target) -> Tensor:
    """The map weighed by dS/dA. (B, T, h, w)"""
    every_class_in_one_pass(question, forward, "gradients")
    g = forward.gradients(target.score, target.classes, create_graph=question.differentiable)
    if forward.captured.layout.prefix and not bool(g.any()):
        warnings.warn(
            f"the gradient is zero everywhere at layer {forward.captured.name!r}: what follows reads the class token "
            "alone; choose an earlier layer, such as the norm in front of the last attention, or leave layer out",
            stacklevel=6,
        )
    a = activations_of(forward)
    return combine(question, a if question.differentiable else a.detach(), (widen(g),))


def activations(question: Question, forward: Forward, target: Target) -> Tensor:
    """The map of the activations alone, the same for every target. (B, T, h, w)"""
    raw = combine(question, activations_of(forward), ())
    return raw.expand(-1, target.count, -1, -1)


def classifier(question: Question, forward: Forward, target: Target) -> Tensor:
    """The map weighed by the classifier's own weights. (B, T, h, w)"""
    tail = forward.pooled
    if tail is None or tail.linear is None or not tail.identity or target.classes is None:
        raise ValueError(
            f"{question.method.name} needs classes as target and global average pooling and one linear layer right "
            f"after layer {forward.captured.name!r}, which {type(forward.network.model).__name__} does not have there; "
            "choose the last layer of such a network, or use gradcam, which equals it there and works everywhere"
        )
    return combine(question, activations_of(forward), (tail.linear[0][target.classes][..., None, None],))


def contributions(question: Question, forward: Forward, target: Target) -> Tensor:
    """The map weighed by DeepLIFT contributions. (B, T, h, w)"""
    a, tail = activations_of(forward), forward.pooled
    if tail is not None and tail.linear is not None and tail.structure.channel_wise and target.classes is not None:
        return combine(question, a, (tail.linear[0][target.classes] * (tail.pooled - tail.zero)[:, None],))
    every_class_in_one_pass(question, forward, "contributions")
    split = forward.split
    if split is None:
        raise ValueError(
            f"{question.method.name} needs the graph of what follows layer {forward.captured.name!r}, which "
            "torch.export cannot capture; use ablationcam, which masks the layer instead"
        )
    output, bypass = forward.parts
    with forward.network.running(output.device, autograd=True):
        multipliers = rescale.multipliers(
            split.tail,
            output,
            bypass,
            lambda flat: target.score(forward.network.select(split.rebuild(flat))).sum(0),
        )
    contributions = [forward.captured.layout.maps(m * output).sum((-2, -1)) for m in multipliers]
    return combine(question, a, (widen(torch.stack(contributions, 1)),))
