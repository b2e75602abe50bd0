"""Attributions of the image itself, again: float64, loops, nothing of fastcam inside.

Networks are double modules where autograd is asked for dy/dx alone, and lists of simple layers where a rule changes
the way back. x (3, H, W), c a class; attributions (3, H, W).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from tests.formulas import Grid, cells, relu, resize, zeros
from tests.formulas_rescale import backward, slope
from tests.formulas_samples import path

EXACT = (nn.Flatten, nn.Linear, nn.BatchNorm2d, nn.Conv2d, nn.AdaptiveAvgPool2d)  # one way back, whatever the rule
ACTIVE = (nn.ReLU, nn.ReLU6, nn.SiLU)


def gradient(net: nn.Module, x: Tensor, c: int) -> Tensor:
    x = x.double().clone().requires_grad_()
    with torch.enable_grad():
        (g,) = torch.autograd.grad(net(x[None].clone())[0, c], x)
    return g


def reduced(attributions: Tensor, how: str) -> Grid:
    """Over channels: the largest magnitude, the sum of magnitudes, or the sum."""
    values = attributions.tolist()
    out = zeros(len(values[0]), len(values[0][0]))
    for i, j in cells(out):
        pixel = [channel[i][j] for channel in values]
        out[i][j] = sum(pixel) if how == "sum" else {"max": max, "abs": sum}[how](map(abs, pixel))
    return out


def smoothgrad(net: nn.Module, x: Tensor, c: int, noise: Tensor, kind: str) -> Tensor:
    """noise (samples, 3, H, W), already scaled."""
    seen = [gradient(net, x.double() + e.double(), c) for e in noise]
    count = len(seen)
    mean = sum(seen[1:], seen[0]) / count
    squares = [g**2 for g in seen]
    squared = sum(squares[1:], squares[0]) / count
    deviations = [(g - mean) ** 2 for g in seen]
    variance = sum(deviations[1:], deviations[0]) / count
    return {"mean": mean, "squared": squared, "variance": variance}[kind]


def integratedgradients(net: nn.Module, x: Tensor, c: int, base: Tensor, samples: int, rule: str) -> Tensor:
    """(x - x') Σ_i w_i dy/dx(x' + t_i (x - x'))"""
    if rule == "gausslegendre":
        nodes, weights = np.polynomial.legendre.leggauss(samples)
        points = [((t + 1) / 2, w / 2) for t, w in zip(nodes.tolist(), weights.tolist(), strict=True)]
    else:
        points = path(samples, rule)
    x, base = x.double(), base.double()
    total = torch.zeros_like(x)
    for position, weight in points:
        total += weight * gradient(net, base + position * (x - base), c)
    return (x - base) * total


def run(layers: list[nn.Module], x: Tensor) -> list[Tensor]:
    """What each layer is given, and at the end what the last one gives."""
    values = [x.double()]
    with torch.no_grad():
        for layer in layers:
            values.append(layer(values[-1][None].clone())[0])
    return values


def start(logits: Tensor, c: int) -> Tensor:
    m = torch.zeros_like(logits)
    m[c] = 1.0
    return m


def back(layer: nn.Module, x: Tensor, m: Tensor) -> Tensor:
    return backward(layer, x, x, m) if isinstance(layer, EXACT) else slope(layer, x, m)


def ruled(layers: list[nn.Module], x: Tensor, c: int, rule: str) -> Tensor:
    """Springenberg et al. 2015, fig. 1: what a ReLU hands back where its input is z and R comes from above.

    deconvnet: R if R > 0. guided: R if R > 0 and z > 0 (and below the cap of a ReLU6).
    """
    values = run(layers, x)
    m = start(values[-1], c)
    for layer, given in zip(reversed(layers), values[-2::-1], strict=True):
        if not isinstance(layer, (nn.ReLU, nn.ReLU6)):
            m = back(layer, given, m)
            continue
        top = 6.0 if isinstance(layer, nn.ReLU6) else math.inf
        through = [
            relu(r) if rule == "deconvnet" or 0 < z < top else 0.0
            for z, r in zip(given.flatten().tolist(), m.flatten().tolist(), strict=True)
        ]
        m = torch.tensor(through, dtype=torch.float64).reshape(m.shape)
    return m


def guidedgradcam(guided: Tensor, cam: Grid) -> Tensor:
    """Guided gradients times the clipped and resized Grad-CAM."""
    H, W = guided.shape[1:]
    up = resize([[relu(value) for value in row] for row in cam], H, W)
    return guided * torch.tensor(up, dtype=torch.float64)


def deeplift(layers: list[nn.Module], x: Tensor, base: Tensor, c: int, cancel: bool = False) -> Tensor:
    """Shrikumar et al. 2017: multipliers times x - x', Rescale; with `cancel` RevealCancel for Linear, then ReLU."""
    values, references = run(layers, x), run(layers, base)
    m = start(values[-1], c)
    index = len(layers) - 1
    while index >= 0:
        pair = index > 0 and isinstance(layers[index], nn.ReLU) and isinstance(layers[index - 1], nn.Linear)
        if cancel and pair:
            index -= 1
            m = reveal_cancel(layers[index], values[index], references[index], m)
        else:
            m = backward(layers[index], values[index], references[index], m)
        index -= 1
    return m * (x.double() - base.double())


def reveal_cancel(layer: nn.Module, x: Tensor, x0: Tensor, m: Tensor) -> Tensor:
    """Section 3.5.3, one output unit at a time."""
    assert isinstance(layer, nn.Linear)
    out = torch.zeros_like(x)
    with torch.no_grad():
        z0s = layer(x0).tolist()
    for unit, (z0, after) in enumerate(zip(z0s, m.tolist(), strict=True)):
        weights = layer.weight[unit].tolist()
        terms = [w * (a - b) for w, a, b in zip(weights, x.tolist(), x0.tolist(), strict=True)]
        plus, minus = math.fsum(t for t in terms if t > 0), math.fsum(t for t in terms if t < 0)
        rise = (relu(z0 + plus) - relu(z0) + relu(z0 + minus + plus) - relu(z0 + minus)) / 2
        fall = (relu(z0 + minus) - relu(z0) + relu(z0 + plus + minus) - relu(z0 + plus)) / 2
        above, below = rise / plus, fall / minus
        for i, term in enumerate(terms):
            share = (above + below) / 2 if term == 0 else above if term > 0 else below
            out[i] += after * weights[i] * share
    return out


def bias_of(layer: nn.Module) -> Tensor | None:
    """What a layer adds: its bias, of a batch norm β - γ μ / sqrt(σ² + ε)."""
    if isinstance(layer, nn.BatchNorm2d):
        assert layer.running_mean is not None
        assert layer.running_var is not None
        four = (layer.bias.data, layer.weight.data, layer.running_mean, layer.running_var)
        parts = zip(*(one.tolist() for one in four), strict=True)
        return torch.tensor([b - w * m / math.sqrt(v + layer.eps) for b, w, m, v in parts], dtype=torch.float64)
    return layer.bias.detach() if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.bias is not None else None


def bias_gradients(layers: list[nn.Module], x: Tensor, c: int) -> tuple[Tensor, list[Tensor]]:
    """x g (3, H, W), and b_l g_l of every layer that adds something, the last one first."""
    values = run(layers, x)
    m, found = start(values[-1], c), []
    for layer, given in zip(reversed(layers), values[-2::-1], strict=True):
        bias = bias_of(layer)
        if bias is not None:
            found.append(m * bias.reshape(-1, *[1] * (m.dim() - 1)))
        m = back(layer, given, m)
    return x.double() * m, found


def fullgrad(layers: list[nn.Module], x: Tensor, c: int, scale: str) -> Grid:
    """Srinivas & Fleuret 2019, eq. 5, over what has cells."""
    inputs, found = bias_gradients(layers, x, c)
    H, W = x.shape[1:]
    out = zeros(H, W)
    for values in [inputs, *(one for one in found if one.dim() == 3)]:
        sizes = [[[abs(v) for v in row] for row in grid] for grid in values.tolist()]
        for grid in sizes:
            over = sizes if scale == "layer" else [grid]
            low = min(v for one in over for row in one for v in row)
            high = max(v for one in over for row in one for v in row)
            scaled = [[(v - low) / (high - low) if high > low else 0.0 for v in row] for row in grid]
            for i, row in enumerate(resize(scaled, H, W)):
                out[i] = [a + b for a, b in zip(out[i], row, strict=True)]
    return out


def fgvis(layers: list[nn.Module], x: Tensor, c: int, options: dict) -> Tensor:
    """The mask (3, H, W) after `steps` steps of at most `rate`; gradients are cut where the defense asks for it."""
    x, mask = x.double(), torch.ones_like(x).double()
    bounds, held = run(layers, x), mask

    def score(logits: Tensor) -> float:
        return float(logits.softmax(0)[c] if options["score"] == "probability" else logits[c])

    for _ in range(options["steps"]):
        values = run(layers, mask * x)
        logits = values[-1]
        if options["score"] == "probability":
            p = logits.softmax(0)
            m = -p[c] * p
            m[c] += p[c]
        else:
            m = start(logits, c)
        for index in range(len(layers) - 1, -1, -1):
            if options["defense"] and isinstance(layers[index], ACTIVE):
                m = gated(m, values[index + 1], bounds[index + 1])
            m = back(layers[index], values[index], m)
        share = m * x / float((m * x).abs().max())
        if options["game"] == "deletion":
            away = share - options["sparsity"]
        elif score(logits) >= score(bounds[-1]):
            held, away = mask, options["sparsity"] - share
        else:
            away = -share
        mask = (mask - options["rate"] * away).clamp(0, 1)
    return mask if options["game"] == "deletion" else held


def gated(m: Tensor, h: Tensor, bound: Tensor) -> Tensor:
    """Wagner et al. 2019: m where h lies between 0 and the bound, both included; else 0."""
    kept = [
        r if min(0.0, b) <= v <= max(0.0, b) else 0.0
        for r, v, b in zip(m.flatten().tolist(), h.flatten().tolist(), bound.flatten().tolist(), strict=True)
    ]
    return torch.tensor(kept, dtype=torch.float64).reshape(m.shape)
