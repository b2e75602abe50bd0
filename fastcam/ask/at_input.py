"""Evidence at the image itself: its gradients, plain or under a rule, those at biases, and DeepLIFT's multipliers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fastcam import ops
from fastcam.methods.evidence_inputs import InputGradients
from fastcam.methods.gradients import gradcam
from fastcam.methods.inputs import reduced, rescaled
from fastcam.model import rescale, rules, tally
from fastcam.model.forward import Forward, gradients_together
from fastcam.model.layers import INPUT
from fastcam.model.outputs import widen
from fastcam.model.tokens import Layout, cells_of, find_layout
from fastcam.ops.resize_normalize import resize
from fastcam.targets import Target

from .question import Answer, Question, activations_of, own_pass_a_class
from .sampled import Sample, baseline_of, chunks, mean, noisy, path


def attributed(question: Question, forward: Forward, target: Target, attributions: Tensor) -> Answer:
    """The answer of attributions (B, T, C, H, W): their channels reduced as the option `reduce` says."""
    raw = reduced(attributions, question.options["reduce"])
    return Answer(raw, forward, target, attributions)


def images_of(question: Question, forward: Forward) -> Tensor:
    """The images as maps, (B, 1, C, H, W); part of the graph only where it is to be kept."""
    x = forward.captured.maps if forward.captured.name == INPUT else question.images
    return widen(x if question.differentiable else x.detach())[:, None]


def refuse_graph(question: Question) -> None:
    """Raise where a graph is to be kept whose derivative would be another one: a ruled backward is no derivative."""
    if question.differentiable:
        raise ValueError(
            f"{question.method.name} has no differentiable form; use saliency, inputxgradient or integratedgradients"
        )


def gradients(question: Question, forwards: list[Forward], target: Target) -> list[Answer]:
    """Attributions made of gradients at the image, or of those of several versions of it."""
    evidence, forward = question.method.evidence, forwards[0]
    assert isinstance(evidence, InputGradients)
    own_pass_a_class(question, "a backward")
    x = images_of(question, forward)
    if isinstance(forward.watch, rules.ReluRule):
        refuse_graph(question)
        forward.watch.require_relus(question.method.name, question.network.model)
    if evidence.over == "noise":
        g = moments(gradients_of_samples(question, forwards, target, noisy(question)))
    elif evidence.over == "path":
        start = baseline_of(question)
        points = gradients_of_samples(question, forwards, target, path(question, start))
        g = sum((mean(shares, g) for shares, g in points), torch.zeros((), device=x.device))
        x = x - widen(forward.captured.layout.maps(start))[:, None]
    else:
        g = widen(forward.gradients(target.score, target.classes, create_graph=question.differentiable))
    return [attributed(question, forward, target, question.weigh(x, g))]


def gradients_of_samples(
    question: Question, forwards: list[Forward], target: Target, samples: Iterator[Sample]
) -> Iterator[tuple[list[float], Tensor]]:
    """Shares and gradients (n * B, T, C, H, W) of n samples at a time."""
    for shares, (shot,) in chunks(question, forwards, samples):
        repeated = target.repeat(len(shares))
        yield shares, widen(shot.gradients(repeated.score, repeated.classes, create_graph=question.differentiable))


def moments(samples: Iterator[tuple[list[float], Tensor]]) -> Tensor:
    """Mean and variance of the samples, which share their weight evenly. (2, B, T, C, H, W)

    Chunks are joined by their means, so that no large squares are subtracted from each other.
    """
    count, mean, spread = 0, torch.zeros(()), torch.zeros(())
    for shares, g in samples:
        some = g.unflatten(0, (len(shares), -1))
        own = some.mean(0)
        step = own - mean.to(own.device)
        spread = spread.to(own.device) + ((some - own) ** 2).sum(0)
        spread = spread + step**2 * (count * len(shares) / (count + len(shares)))
        count += len(shares)
        mean = mean.to(own.device) + step * (len(shares) / count)
    return torch.stack([mean, spread / count])


def guided(question: Question, forwards: list[Forward], target: Target) -> list[Answer]:
    """Guided backpropagation times Grad-CAM of each layer."""
    own_pass_a_class(question, "a backward")
    refuse_graph(question)
    network = question.network
    with rules.ReluRule("guided") as rule:
        (seen,) = network.forward(question.images, question.args, question.kwargs, INPUT, grad=True)
    rule.require_relus(question.method.name, network.model)
    back = widen(seen.gradients(target.score, target.classes))
    answers = []
    for one in forwards:
        g = widen(one.gradients(target.score, target.classes))
        a = activations_of(one).detach()
        cam = ops.weighted_sum(a, gradcam(a[:, None], g)[..., 0, 0]).relu()
        cam = resized(cam, one.captured.layout.shape, tuple(question.images.shape[2:]))
        answers.append(attributed(question, one, target, question.weigh(back, cam[:, :, None])))
    return answers


def contributions(question: Question, forwards: list[Forward], target: Target) -> list[Answer]:
    """DeepLIFT's contributions of the pixels against a baseline."""
    (forward,) = forwards
    own_pass_a_class(question, "a backward")
    refuse_graph(question)
    split, network = forward.split, question.network
    if split is None:
        raise ValueError(
            f"{question.method.name} needs the graph of {type(network.model).__name__}, which torch.export cannot "
            "capture; use integratedgradients, which asks for gradients only"
        )
    x, bypass = forward.parts
    baseline = baseline_of(question)
    tally.count(forwards=2 * len(x), backwards=len(x) * target.count)
    with network.running(x.device, autograd=True):
        m = rescale.multipliers(
            split.tail,
            x,
            bypass,
            lambda flat: target.score(network.select(split.rebuild(flat))).sum(0),
            reference=baseline,
            cancel=question.options["rule"] == "revealcancel",
        )
    maps = forward.captured.layout.maps
    multipliers = torch.stack([widen(maps(one)) for one in m], 1)
    dx = (widen(maps(question.images)) - widen(maps(baseline)))[:, None]
    return [attributed(question, forward, target, question.weigh(dx.detach(), multipliers))]


def bias_gradients(question: Question, forwards: list[Forward], target: Target) -> list[Answer]:
    """The image times its gradient, and the gradients at all biases: FullGrad."""
    (forward,) = forwards
    own_pass_a_class(question, "a backward")
    watch, graph, images = forward.watch, question.differentiable, question.images
    assert isinstance(watch, rules.Biases)
    size = tuple(int(n) for n in images.shape[2:])
    sums: dict[int, dict[tuple[int, ...], Tensor]] = {}  # of each backward, layers of one size together

    def visit(t: int, g: Tensor, bias: Tensor, last: bool) -> None:
        layout = layout_of(g, size, last)
        if layout is None or len(g) != len(images):
            return
        values = widen(layout.maps(g)) * widen(bias if graph else bias.detach())[:, None, None]
        own, known = rescaled(values, question.options["scale"], question.options["eps"]), sums.setdefault(t, {})
        known[layout.shape] = known[layout.shape] + own if layout.shape in known else own

    with watch.visiting(visit):
        (g,) = gradients_together([forward], target.score, create_graph=graph)
    x, g = images_of(question, forward), widen(g)
    zero = x.new_zeros(len(images), *cells_of(size))
    rows = [[resized(m[:, None], at, size)[:, 0] for at, m in sums.get(t, {}).items()] for t in range(g.shape[1])]
    b = torch.stack([sum(maps, zero) for maps in rows], 1)
    return [Answer(question.weigh(x, g, b), forward, target, x * g)]


def layout_of(g: Tensor, size: tuple[int, ...], last: bool) -> Layout | None:
    """Where the cells of a layer's output are; None where it has none."""
    if g.dim() == len(size) + 2:
        return Layout.of("last", tuple(g.shape[1:-1])) if last else Layout.of("maps", tuple(g.shape[2:]))
    return find_layout(tuple(g.shape), size) if g.dim() == 3 and last else None


def resized(maps: Tensor, shape: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
    """Maps (B, C, h, w) of cells in this shape at the images' size, linear along each axis."""
    if len(size) < 3:
        return resize(maps, cells_of(size))
    return interpolate(maps.unflatten(-2, shape[:2]), size, mode="trilinear").flatten(-3, -2)
