"""The same gradients over several images: Smooth Grad-CAM++ and Integrated Grad-CAM."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fastcam import ops
from fastcam.methods.evidence import Gradients
from fastcam.model.forward import Forward
from fastcam.model.outputs import widen
from fastcam.targets import Target

from .question import Answer, Question, activations_of, combine, every_class_in_one_pass


def sampled(question: Question, forwards: list[Forward], target: Target) -> list[Answer]:
    """Smooth Grad-CAM++ and Integrated Grad-CAM: the same gradients over several images, summed as they come."""
    evidence = question.method.evidence
    assert isinstance(evidence, Gradients)
    every_class_in_one_pass(question, forwards[0], "gradients")
    maps: list[Any] = [0.0] * len(forwards)
    powers: list[Any] = [0.0] * len(forwards)
    start = baseline_of(question) if evidence.path else None
    below: list[Any] = [0.0] * len(forwards)
    if start is not None and question.options["variant"] == "paper":
        below = [activations_of(f).detach() for f in question.look(start)]
    for share, images in noisy(question) if start is None else path(question, start):
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


def noisy(question: Question) -> Iterator[tuple[float, Tensor]]:
    """(share, noisy images) of each sample."""
    x, samples = question.images, question.options["samples"]
    generator = torch.Generator().manual_seed(question.options["seed"])
    low, high = x.flatten(1).aminmax(dim=1)
    std = (question.options["spread"] * (high - low)).view(-1, 1, 1, 1)
    for _ in range(samples):
        yield 1 / samples, x + std * torch.randn(x.shape, generator=generator).to(x)


def path(question: Question, start: Tensor) -> Iterator[tuple[float, Tensor]]:
    """(share, images on the straight line from `start`) of each sample."""
    for share, t in quadrature(question.options["rule"], question.options["samples"]):
        yield share, start + t * (question.images - start)


def baseline_of(question: Question) -> Tensor:
    """The option `baseline` in the shape of the images; zeros where it is None."""
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
