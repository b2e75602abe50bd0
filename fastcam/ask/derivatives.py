"""Evidence at the layer beyond the score's own gradient: that of a difference of scores, and second derivatives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fastcam.methods.evidence_derivatives import Contrasts, Curvature
from fastcam.model import tally
from fastcam.model.forward import Forward
from fastcam.model.outputs import widen
from fastcam.targets import Target

from .question import Question, activations_of, combine, every_class_in_one_pass


def contrasts(question: Question, forward: Forward, target: Target) -> Tensor:
    """The map weighed by gradients of what sets a class apart from those that score nearest to it. (B, T, h, w)"""
    evidence, name = question.method.evidence, question.method.name
    assert isinstance(evidence, Contrasts)
    if target.classes is None:
        raise ValueError(f"{name} sets a class apart from others and needs classes as target, not a callable")
    every_class_in_one_pass(question, forward, "gradients")
    references = nearest(widen(forward.logits.detach()), target.classes, question.options["references"])
    if not references.shape[-1]:
        raise ValueError(f"{name} needs two classes at least, and the model has one; use gradcam")

    def score(logits: Tensor) -> Tensor:
        return evidence.contrast(widen(logits), widen(target.score(logits)), references, question.options)

    g = forward.gradients(score, None, create_graph=question.differentiable)
    a = activations_of(forward)
    return combine(question, a if question.differentiable else a.detach(), (widen(g),))


def nearest(logits: Tensor, classes: Tensor, count: int) -> Tensor:
    """The other classes whose logits are nearest to that of each class, the nearest first.

    Args:
        logits: (B, classes)
        classes: (B, T)
        count: at most.

    Returns:
        (B, T, n), n the count or all the others.
    """
    distances = (logits[:, None] - logits.gather(1, classes)[..., None]).abs()
    distances = distances.scatter(2, classes[..., None], torch.inf)
    return distances.sort(dim=2, stable=True).indices[..., : min(count, logits.shape[1] - 1)]


def look(question: Question) -> list[Forward]:
    """A forward of its own, with the attention whose backward can be differentiated again."""
    with sdpa_kernel(SDPBackend.MATH):
        return dataclasses.replace(question, sights=None).look(question.images)


def curvature(question: Question, forward: Forward, target: Target) -> Tensor:
    """The map weighed by dS/dA and the product of second derivatives with the activations. (B, T, h, w)"""
    evidence = question.method.evidence
    assert isinstance(evidence, Curvature)
    every_class_in_one_pass(question, forward, "second derivatives")

    def score(logits: Any) -> Tensor:
        if target.classes is None:
            return target.score(logits)
        return evidence.utility(widen(logits), target.classes, question.options)

    g, h = second_order(forward, score, question.differentiable)
    a = activations_of(forward)
    return combine(question, a if question.differentiable else a.detach(), (g, h))


def second_order(forward: Forward, score: Callable[[Any], Tensor], graph: bool) -> tuple[Tensor, Tensor]:
    """dS/dA and (d²S/dA²) A; behind a pooled tail the tail alone runs again, elsewhere the recorded one is used.

    Args:
        forward: recorded, unless it has a pooled tail.
        score: logits -> (B, T)
        graph: keep the graph of both.

    Returns:
        (B, T, C, h, w) each.
    """
    captured, layout = forward.captured, forward.captured.layout
    with torch.inference_mode(False), torch.enable_grad():
        if forward.pooled is not None and not graph:
            maps = leaf = widen(captured.maps.detach()).requires_grad_()
            scores = score(forward.pooled(leaf))
        else:
            leaf, maps = captured.output, captured.maps
            scores = score(forward.logits)
        along = maps if graph else maps.detach()
        if maps is not leaf:
            along = layout.output(along, torch.zeros_like(leaf))
        rows = []
        for t in range(scores.shape[1]):
            tally.count(backwards=0 if forward.pooled is not None else 2 * len(forward.images))
            g = first_derivative(forward, scores[:, t], leaf)
            h = torch.zeros_like(g)
            if g.requires_grad:
                (found,) = torch.autograd.grad(g, leaf, along, retain_graph=True, create_graph=graph, allow_unused=True)
                h = h if found is None else found
            rows.append([one if maps is leaf else layout.maps(one) for one in (g, h)])
    g, h = (widen(torch.stack(parts, 1)) for parts in zip(*rows, strict=True))
    return (g, h) if graph else (g.detach(), h.detach())


def first_derivative(forward: Forward, score: Tensor, leaf: Tensor) -> Tensor:
    """dS/dA with its own graph, where it has one."""
    if not score.requires_grad:
        raise forward.no_gradient()
    (g,) = torch.autograd.grad(score.sum(), leaf, create_graph=True, allow_unused=True)
    if g is None:
        raise forward.no_gradient()
    return g
