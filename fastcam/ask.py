"""Put a method's question to a network: evidence in, signed maps (B, T, h, w) out."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from . import masked, ops
from .methods.evidence import Activations, Classifier, Contributions, Gradients, InputScores, LayerScores
from .methods.registry import Method
from .model import rescale
from .model.forward import Forward
from .model.layers import LayerSpec
from .model.network import Network
from .model.outputs import widen
from .scoring import Budget
from .targets import Target, TargetSpec, resolve

Options = dict[str, Any]


@dataclass
class Sights:
    """Forwards that several questions share, and which of those need gradients."""

    forwards: dict[Any, list[Forward]] = field(default_factory=dict)
    with_gradients: set[Any] = field(default_factory=set)


@dataclass
class Question:
    """One call: a method, what it is asked about, and what it may use.

    Attributes:
        method: with its resolved `options`.
        network: to ask.
        images: (B, C, H, W)
        args: further inputs of the model.
        kwargs: the same by name.
        layer: where.
        target: what is explained.
        budget: chunk size and memory of masked forwards.
        differentiable: keep the graph.
        sights: forwards of these images that other questions share.
    """

    method: Method
    options: Options
    network: Network
    images: Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    layer: LayerSpec
    target: TargetSpec
    budget: Budget
    differentiable: bool = False
    sights: Sights | None = None

    @property
    def sight(self) -> Any:
        """What questions must have in common to share a forward; their images and other inputs are the same."""
        layer = self.layer if self.layer is None or isinstance(self.layer, str) else id(self.layer)
        return (id(self.network.model), repr(self.network.selector), self.network.precision, layer)

    def look(self, images: Tensor) -> list[Forward]:
        """One forward of these images at the layers, with gradients where the method needs them."""
        grad = isinstance(self.method.evidence, Gradients)
        shared = self.sights if images is self.images else None
        if shared is not None and self.sight in shared.forwards:
            return shared.forwards[self.sight]
        if shared is not None:
            grad = self.sight in shared.with_gradients
        forwards = self.network.forward(
            images, self.args, self.kwargs, self.layer, grad=grad, differentiable=self.differentiable
        )
        if shared is not None:
            shared.forwards[self.sight] = forwards
            for forward in forwards:
                forward.shared = True
        return forwards

    def weigh(self, *evidence: Tensor) -> Tensor:
        """The method's weights, or its map."""
        return self.method(self.options, *evidence)


@dataclass
class Answer:
    """Signed maps of one layer, (B, T, h, w), and the forward they stand on."""

    raw: Tensor
    forward: Forward
    target: Target


def answer(question: Question) -> list[Answer]:
    """The signed maps of each layer.

    Args:
        question: what is asked.

    Returns:
        One answer a layer.

    Raises:
        ValueError: the method cannot be served by this model or for this target.
    """
    forwards = question.look(question.images)
    target = resolve(question.target, forwards[0].logits, len(question.images))
    ask = ASKS[type(question.method.evidence)]
    device = question.images.device.type
    with torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else contextlib.nullcontext():
        if question.method.evidence in (Gradients(path=True), Gradients(noisy=True)):
            return _sampled(question, forwards, target)
        return [Answer(ask(question, forward, target), forward, target) for forward in forwards]


def activations_of(forward: Forward) -> Tensor:
    """The activations in float32 at least. (B, C, h, w)"""
    return widen(forward.captured.maps)


def combine(question: Question, a: Tensor, evidence: tuple[Tensor, ...]) -> Tensor:
    """Weigh and sum: Σ_k w_k A_k, or the map the method gives itself.

    Args:
        question: its method weighs.
        a: (B, C, h, w)
        evidence: what the method asked for besides a.

    Returns:
        (B, T, h, w), signed.
    """
    weights = question.weigh(a[:, None], *evidence)
    if question.method.gives_map:
        return weights
    if weights.shape[-2:] == (1, 1):
        return ops.weighted_sum(a, weights[..., 0, 0])
    return (weights * a[:, None]).sum(-3)


def _every_class_in_one_pass(question: Question, forward: Forward, what: str) -> None:
    if isinstance(question.target, str) and question.target == "all" and forward.pooled is None:
        raise ValueError(
            f"target='all' needs {what} for every class from one pass, which {question.method.name} has only where "
            f"global average pooling follows layer {forward.captured.name!r}; pass TopK(k) or the classes you need, "
            "or use reciprocam or scorecam"
        )


def _gradients(question: Question, forward: Forward, target: Target) -> Tensor:
    _every_class_in_one_pass(question, forward, "gradients")
    g = forward.gradients(target.score, target.classes, create_graph=question.differentiable)
    if forward.captured.layout.prefix and not bool(g.any()):
        warnings.warn(
            f"the gradient is zero everywhere at layer {forward.captured.name!r}: what follows reads the class token "
            "alone; choose an earlier layer, such as the norm in front of the last attention, or leave layer out",
            stacklevel=6,
        )
    a = activations_of(forward)
    return combine(question, a if question.differentiable else a.detach(), (widen(g),))


def _activations(question: Question, forward: Forward, target: Target) -> Tensor:
    raw = combine(question, activations_of(forward), ())
    return raw.expand(-1, target.count, -1, -1)


def _classifier(question: Question, forward: Forward, target: Target) -> Tensor:
    tail = forward.pooled
    if tail is None or tail.linear is None or not tail.identity or target.classes is None:
        raise ValueError(
            f"{question.method.name} needs classes as target and global average pooling and one linear layer right "
            f"after layer {forward.captured.name!r}, which {type(forward.network.model).__name__} does not have there; "
            "choose the last layer of such a network, or use gradcam, which equals it there and works everywhere"
        )
    return combine(question, activations_of(forward), (tail.linear[0][target.classes][..., None, None],))


def _contributions(question: Question, forward: Forward, target: Target) -> Tensor:
    a, tail = activations_of(forward), forward.pooled
    if tail is not None and tail.linear is not None and tail.structure.channel_wise and target.classes is not None:
        return combine(question, a, (tail.linear[0][target.classes] * (tail.pooled - tail.zero)[:, None],))
    _every_class_in_one_pass(question, forward, "contributions")
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


def _input_scores(question: Question, forward: Forward, target: Target) -> Tensor:
    a = activations_of(forward)
    return combine(question, a, masked.input_scores(question, forward, target))


def _layer_scores(question: Question, forward: Forward, target: Target) -> Tensor:
    a = activations_of(forward)
    y = widen(target.score(forward.logits.detach()))
    return combine(question, a, (masked.layer_scores(question, forward, target), y))


def _sampled(question: Question, forwards: list[Forward], target: Target) -> list[Answer]:
    """Smooth Grad-CAM++ and Integrated Grad-CAM: the same gradients over several images, summed as they come."""
    evidence = question.method.evidence
    assert isinstance(evidence, Gradients)
    _every_class_in_one_pass(question, forwards[0], "gradients")
    maps: list[Any] = [0.0] * len(forwards)
    powers: list[Any] = [0.0] * len(forwards)
    start = _baseline(question) if evidence.path else None
    below: list[Any] = [0.0] * len(forwards)
    if start is not None and question.options["variant"] == "paper":
        below = [activations_of(f).detach() for f in question.look(start)]
    for share, images in _noise(question) if start is None else _path(question, start):
        for i, shot in enumerate(question.look(images)):
            g = widen(shot.gradients(target.score, target.classes, create_graph=question.differentiable))
            if question.options.get("mode") == "derivatives":
                powers[i] = powers[i] + share * torch.stack([g, g**2, g**3])
                continue
            a = activations_of(shot)
            a = a if question.differentiable else a.detach()
            weights = question.weigh(a[:, None], g)[..., 0, 0]
            maps[i] = maps[i] + share * ops.weighted_sum(a - below[i], weights).relu()
    if question.options.get("mode") == "derivatives":
        maps = [combine(question, activations_of(f).detach(), (p,)) for f, p in zip(forwards, powers, strict=True)]
    return [Answer(raw, forward, target) for raw, forward in zip(maps, forwards, strict=True)]


def _noise(question: Question) -> Iterator[tuple[float, Tensor]]:
    x, samples = question.images, question.options["samples"]
    generator = torch.Generator().manual_seed(question.options["seed"])
    low, high = x.flatten(1).aminmax(dim=1)
    std = (question.options["spread"] * (high - low)).view(-1, 1, 1, 1)
    for _ in range(samples):
        yield 1 / samples, x + std * torch.randn(x.shape, generator=generator).to(x)


def _path(question: Question, start: Tensor) -> Iterator[tuple[float, Tensor]]:
    for share, t in quadrature(question.options["rule"], question.options["samples"]):
        yield share, start + t * (question.images - start)


def _baseline(question: Question) -> Tensor:
    x, given = question.images, question.options["baseline"]
    if given is None:
        return torch.zeros_like(x)
    baseline = torch.as_tensor(given, dtype=x.dtype, device=x.device)
    if baseline.dim() == 1:
        baseline = baseline[:, None, None]
    try:
        return baseline.expand_as(x).contiguous()
    except RuntimeError as error:
        raise ValueError(
            f"baseline has shape {tuple(baseline.shape)} for images of {tuple(x.shape)}; give (C,), (C, H, W), the "
            "images' own shape, or None for zeros"
        ) from error


def quadrature(rule: str, samples: int) -> list[tuple[float, float]]:
    """(weight, position) of the points of a rule on [0, 1]; the weights add up to 1."""
    if rule == "trapezoid":
        if samples == 1:
            return [(1.0, 1.0)]
        step = 1 / (samples - 1)
        ends = (0, samples - 1)
        return [(step / 2 if i in ends else step, i * step) for i in range(samples)]
    shift = {"left": 0.0, "midpoint": 0.5, "right": 1.0}[rule]
    return [(1 / samples, (i + shift) / samples) for i in range(samples)]


ASKS: dict[type, Callable[[Question, Forward, Target], Tensor]] = {
    Activations: _activations,
    Classifier: _classifier,
    Contributions: _contributions,
    Gradients: _gradients,
    InputScores: _input_scores,
    LayerScores: _layer_scores,
}
