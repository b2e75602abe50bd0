"""Evidence from the attention between a transformer's tokens: each layer's probabilities, and gradients there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastcam.methods.evidence_derivatives import Attention
from fastcam.model import tally
from fastcam.model.attended import Attended, attend
from fastcam.model.forward import Forward
from fastcam.model.outputs import widen
from fastcam.targets import Target

from .question import Answer, Question, own_pass_a_class


def look(question: Question) -> list[Forward]:
    """One forward that keeps the attention of each layer."""
    evidence, graph = question.method.evidence, question.differentiable
    assert isinstance(evidence, Attention)
    score, images = question.options.get("score", "model"), question.images
    images = images.clone() if images.is_inference() else images if graph else images.detach()
    network, grad = question.network, evidence.gradients or graph
    return [attend(network, images, question.args, question.kwargs, grad=grad, graph=graph, score=score)]


def attention(question: Question, forwards: list[Forward], target: Target) -> list[Answer]:
    """The map of the relevance of each token of the grid; raw maps are (B, T, h, w), one cell a token."""
    (forward,), evidence = forwards, question.method.evidence
    assert isinstance(forward, Attended)
    assert isinstance(evidence, Attention)
    p = tuple(widen(one if question.differentiable else one.detach()) for one in forward.attention)
    query = widen(forward.query)
    if evidence.gradients:
        own_pass_a_class(question, "a backward")
        chosen = chosen_layers(question.options.get("layers"), len(p))
        g = gradients(forward, target, chosen, question.differentiable)
        relevance = question.weigh(tuple(p[i][:, None] for i in chosen), g, query)
    else:
        relevance = question.weigh(p, query)[:, None].expand(-1, target.count, -1)
    grid = relevance[..., forward.tokens.prefix :].unflatten(-1, forward.tokens.size)
    return [Answer(grid, forward, target)]


def chosen_layers(layers: int | Sequence[int] | None, count: int) -> list[int]:
    """Indices of the layers an option asks for, from the first to the last.

    Raises:
        ValueError: there is no such layer.
    """
    if layers is None:
        return list(range(count))
    many = [layers] if isinstance(layers, int) else list(layers)
    wrong = [i for i in many if not -count <= i < count]
    if wrong:
        raise ValueError(f"there is no attention layer {wrong[0]}, this network has {count}: 0 to {count - 1}")
    return sorted({i % count for i in many})


def gradients(forward: Attended, target: Target, chosen: list[int], graph: bool) -> tuple[Tensor, ...]:
    """Gradients at each chosen layer's attention, of the score of that layer's tokens if there is one, else of all.

    Returns:
        (B, T, heads, N, N) of each.
    """
    nodes = [forward.seen[i] for i in chosen]
    batch = len(forward.images)
    with torch.inference_mode(False), torch.enable_grad():
        if not forward.scored:
            groups = [(target.score(forward.logits), nodes)]
        elif forward.cut:  # each score reaches its own layer only: one backward for the sum of all
            groups = [(torch.stack([target.score(forward.scored[i]) for i in chosen]).sum(0), nodes)]
        else:
            groups = [(target.score(forward.scored[i]), [node]) for i, node in zip(chosen, nodes, strict=True)]
        found: list[list[Tensor]] = []
        for scores, inputs in groups:
            rows = []
            for t in range(scores.shape[1]):
                tally.count(backwards=batch)
                rows.append(_backward(scores[:, t], inputs, graph))
            found += [list(column) for column in zip(*rows, strict=True)]
    stacked = [torch.stack(column) for column in found]
    return tuple(widen(g.unflatten(1, (batch, -1)) if g.dim() == 4 else g).transpose(0, 1) for g in stacked)


def _backward(score: Tensor, inputs: list[Tensor], graph: bool) -> list[Tensor]:
    """The gradients of the sum of scores, and a clear error where there are none."""
    none = ValueError(
        "the score does not depend on this network's attention through differentiable operations; choose a target that "
        "is a function of the logits, or rollout, which asks no score"
    )
    if not score.requires_grad:
        raise none
    given = torch.autograd.grad(score.sum(), inputs, retain_graph=True, create_graph=graph, allow_unused=True)
    if any(g is None for g in given):
        raise none
    return list(given)
