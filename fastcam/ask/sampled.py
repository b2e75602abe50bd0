"""The same gradients over several images: Smooth Grad-CAM++ and Integrated Grad-CAM."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fastcam import ops
from fastcam.methods.evidence import Gradients
from fastcam.model.forward import Forward
from fastcam.model.outputs import widen
from fastcam.model.structure import row_bytes
from fastcam.scorer import ROW_SLACK
from fastcam.scoring import Chunks
from fastcam.targets import Target

from .question import Answer, Question, activations_of, combine, every_class_in_one_pass

Sample = tuple[float, Tensor]  # its share in the mean, and the images


def sampled(question: Question, forwards: list[Forward], target: Target) -> list[Answer]:
    """Maps of the mean of gradients, or means of maps, over the samples; they are summed as they come."""
    evidence = question.method.evidence
    assert isinstance(evidence, Gradients)
    every_class_in_one_pass(question, forwards[0], "gradients")
    if question.combine != "sum" and question.options.get("mode") != "derivatives":
        raise ValueError(
            f"{question.method.name} is here a mean of finished maps and has no weighed channels of its own; leave "
            f"combine={question.combine!r} out"
        )
    maps: list[Any] = [0.0] * len(forwards)
    powers: list[Any] = [0.0] * len(forwards)
    start = baseline_of(question) if evidence.path else None
    below: list[Any] = [None] * len(forwards)
    if start is not None and question.options["variant"] == "paper":
        below = [activations_of(f).detach() for f in question.look(start)]
    for shares, shots in chunks(question, forwards, noisy(question) if start is None else path(question, start)):
        for i, shot in enumerate(shots):
            repeated = target.repeat(len(shares))
            g = widen(shot.gradients(repeated.score, repeated.classes, create_graph=question.differentiable))
            if question.options.get("mode") == "derivatives":
                powers[i] = powers[i] + torch.stack([mean(shares, p) for p in (g, g**2, g**3)])
                continue
            a = activations_of(shot)
            a = a if question.differentiable else a.detach()
            weights = question.weigh(a[:, None], g)[..., 0, 0]
            a = a if below[i] is None else a - below[i].repeat(len(shares), 1, 1, 1)
            maps[i] = maps[i] + mean(shares, ops.weighted_sum(a, weights).relu())
    if question.options.get("mode") == "derivatives":
        maps = [combine(question, activations_of(f).detach(), (p,)) for f, p in zip(forwards, powers, strict=True)]
    return [Answer(raw, forward, target) for raw, forward in zip(maps, forwards, strict=True)]


def chunks(
    question: Question, forwards: list[Forward], samples: Iterator[Sample]
) -> Iterator[tuple[list[float], list[Forward]]]:
    """Several samples a forward, as many as memory allows and is fastest: their shares, and the layers' forwards."""
    network, budget, images = question.network, question.budget, question.images
    rows, names = question.options["samples"], tuple(one.captured.name for one in forwards)
    key = ("samples", names, tuple(images.shape), images.dtype, images.device, network.precision)
    known, batch = network.facts.row_bytes, len(images)
    if key not in known:
        share, first = next(samples)
        shots: list[Forward] = []
        known[key] = int(ROW_SLACK * row_bytes(network.model, lambda: shots.extend(question.look(first))))
        yield [share], shots
        rows -= 1
    size = budget.batch_size if isinstance(budget.batch_size, str) else max(1, budget.batch_size // batch)
    for start, stop in Chunks(rows, known[key], key, network.facts.tunings, size, budget.max_memory, images.device):
        some = list(itertools.islice(samples, stop - start))
        x = torch.cat([x for _, x in some])
        if x.dim() == 4 and x.shape[1] > 1:  # as the rows of every other stream: convolutions then run that way
            x = x.contiguous(memory_format=torch.channels_last)
        yield [share for share, _ in some], question.look(x, len(some))


def mean(shares: list[float], values: Tensor) -> Tensor:
    """Σ_n share_n v_n of values of n samples, all images in turn. (n * B, ...) -> (B, ...)"""
    weights = torch.tensor(shares, dtype=values.dtype, device=values.device)
    return torch.einsum("n,n...->...", weights, values.unflatten(0, (len(shares), -1)))


def noisy(question: Question) -> Iterator[Sample]:
    """(share, noisy images) of each sample."""
    x, samples, std = question.images, question.options["samples"], question.options.get("std")
    generator = torch.Generator().manual_seed(question.options["seed"])
    if std is None:
        low, high = x.flatten(1).aminmax(dim=1)
        std = (question.options["spread"] * (high - low)).view(-1, *[1] * (x.dim() - 1))
    for _ in range(samples):
        yield 1 / samples, x + std * torch.randn(x.shape, generator=generator).to(x)


def path(question: Question, start: Tensor) -> Iterator[Sample]:
    """(share, images on the straight line from `start`) of each sample."""
    for share, t in quadrature(question.options["rule"], question.options["samples"]):
        yield share, start + t * (question.images - start)


def baseline_of(question: Question) -> Tensor:
    """The option `baseline` in the shape of the images; zeros where it is None."""
    return baseline_like(question.images, question.options["baseline"])


def baseline_like(x: Tensor, given: Any) -> Tensor:
    """A baseline (C,), (C, H, W) or (B, C, H, W) in the shape of images x; zeros where it is None."""
    if given is None:
        return torch.zeros_like(x)
    baseline = torch.as_tensor(given, dtype=x.dtype, device=x.device)
    if baseline.dim() == 1:
        baseline = baseline.view(-1, *[1] * (x.dim() - 2))
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
    if rule == "gausslegendre":
        return gauss_legendre(samples)
    shift = {"left": 0.0, "midpoint": 0.5, "right": 1.0}[rule]
    return [(1 / samples, (i + shift) / samples) for i in range(samples)]


def gauss_legendre(samples: int) -> list[tuple[float, float]]:
    """(weight, position) of the Gauss-Legendre rule on [0, 1], from the eigenvectors of its Jacobi matrix."""
    k = torch.arange(1, samples, dtype=torch.float64)
    beside = k / (4 * k**2 - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1))
    return list(zip((vectors[0] ** 2).tolist(), ((nodes + 1) / 2).tolist(), strict=True))
