"""Evidence from layer-wise relevance propagation, at a layer and at the image itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from fastcam.methods.inputs import reduced
from fastcam.model import tally
from fastcam.model.forward import Forward
from fastcam.model.layers import INPUT
from fastcam.model.outputs import widen
from fastcam.model.relevance import Walk
from fastcam.model.relevance_rules import Rules
from fastcam.targets import Target

from .question import Answer, Question, activations_of, combine, own_pass_a_class

Seed = Callable[[Tensor, Tensor], Tensor]  # logits and dS/dlogits -> relevance of the logits


def contrast(logits: Tensor, g: Tensor) -> Tensor:
    """R = 1 at the class, -1/N at the N - 1 others; of any score, its slopes, and elsewhere -1/N of their sum."""
    over = tuple(range(1, g.dim()))
    rest = g.sum(over, keepdim=True) / g[0].numel()
    return torch.where(g == 0, -rest, g)


def value(logits: Tensor, g: Tensor) -> Tensor:
    """R = y_c at the class; of any score, logits times slopes."""
    return logits * g


def at_layer(question: Question, forwards: list[Forward], target: Target) -> list[Answer]:
    """The map weighed by relevance at each layer."""
    rules = Rules(bias="twice" if question.options["variant"] == "official" else "none", norm=question.options["norm"])
    answers = []
    for one in forwards:
        linear = None if one.pooled is None else one.pooled.structure.linear
        plain = one.pooled is not None and one.pooled.identity and isinstance(linear, nn.Linear)
        if plain and target.classes is not None:
            r = behind_pooling(one, target.classes)
        else:
            rows = walked(question, one, target, rules, contrast)
            r = torch.stack([widen(one.captured.layout.maps(row)) for row in rows], 1)
        answers.append(Answer(combine(question, activations_of(one).detach(), (r,)), one, target))
    return answers


def at_input(question: Question, forwards: list[Forward], target: Target) -> list[Answer]:
    """The relevance of the image's own values."""
    (forward,), options = forwards, question.options
    rules = Rules(
        convolution=options["rule"],
        dense=options["rule"] if options["dense"] == "same" else options["dense"],
        average="epsilon",
        **{k: options[k] for k in ("first", "norm", "bias", "alpha", "beta", "gamma", "epsilon", "low", "high")},
    )
    rows = [widen(forward.captured.layout.maps(r)) for r in walked(question, forward, target, rules, value)]
    r = question.weigh(torch.stack(rows, 1))
    return [Answer(reduced(r, options["reduce"]), forward, target, r)]


def behind_pooling(forward: Forward, classes: Tensor) -> Tensor:
    """Relevance behind average pooling and one linear layer, its mean over cells. (B, T, C, 1, 1)

    A cell has the share of its positive activation, so that the mean is that of the pooled value, divided by the
    number of cells, wherever some activation is positive; elsewhere it is zero.
    """
    tail = forward.pooled
    assert tail is not None
    assert tail.linear is not None
    w, q, maps = tail.linear[0].detach(), tail.pooled.detach(), activations_of(forward).detach()
    r = torch.full((*classes.shape, len(w)), -1 / len(w), device=q.device, dtype=q.dtype)
    r.scatter_(2, classes[..., None], 1.0)
    up, down, above, below = q.clamp(min=0), q.clamp(max=0), w.clamp(min=0), w.clamp(max=0)
    z = (up @ above.T + down @ below.T)[:, None]
    s = torch.where(z == 0, 0.0, r / torch.where(z == 0, 1.0, z))
    shares = up[:, None] * (s @ above) + down[:, None] * (s @ below)
    alive = (maps > 0).flatten(2).any(2)[:, None]
    return (shares * alive / (maps.shape[-2] * maps.shape[-1]))[..., None, None]


def walked(question: Question, forward: Forward, target: Target, rules: Rules, seed: Seed) -> Iterator[Tensor]:
    """The relevance of the activations for each target, in the layer's own layout.

    Raises:
        ValueError: a graph that cannot be had, an operation without a rule, a target that asks too much.
    """
    own_pass_a_class(question, "a walk back")
    name, network, split = question.method.name, question.network, forward.split
    if question.differentiable:
        raise ValueError(f"{name} has no differentiable form; use a gradient method, cam or eigencam")
    if split is None:
        raise ValueError(
            f"{name} needs the graph of {type(network.model).__name__}, which torch.export cannot capture; use "
            "gradcam at a layer, or inputxgradient for the image"
        )
    output, bypass = forward.parts
    at_image = forward.captured.name == INPUT
    tally.count(forwards=len(output) if at_image else 0, tails=0 if at_image else len(output))
    with network.running(output.device, autograd=True):
        walk = Walk(split.tail, [output.detach(), *bypass], [not batched for batched in split.batched], rules)
    leaves = [widen(v.detach()).requires_grad_() if v.is_floating_point() else v for v in walk.flat]
    wanted = [v for v in leaves if v.requires_grad]
    with torch.enable_grad():
        logits = network.select(split.rebuild(leaves))
        scores = target.score(logits)
        sums = list(scores.sum(0))
    if not scores.requires_grad:
        raise forward.no_gradient()
    for one in sums:
        tally.count(backwards=len(output))
        (g,) = torch.autograd.grad(one, logits, retain_graph=True)
        r = seed(logits.detach(), g)
        found = iter(torch.autograd.grad(logits, wanted, r, retain_graph=True, allow_unused=True))
        yield walk.back([next(found) if v.requires_grad else None for v in leaves])
