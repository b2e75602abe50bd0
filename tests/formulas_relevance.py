"""Layer-wise relevance propagation written out unit by unit, for networks that are a list of layers, in float64.

Every layer with weights is seen as units: one output, the inputs it reads, a weight for each. `unit` is the rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from tests.formulas import ratio

Cell = tuple[int, ...]
PASS = (nn.ReLU, nn.SiLU, nn.GELU, nn.Identity, nn.BatchNorm2d, nn.LayerNorm)


def sign(value: float) -> float:
    return -1.0 if value < 0 else 1.0


def unit(x: list[float], w: list[float], b: float, r: float, rule: str, o: dict[str, Any]) -> list[float]:
    """The relevance of one unit's inputs (Bach 2015, eqs. 56-60; Montavon 2017, 4.2; Montavon 2019, 10.2)."""
    z = [one * weight for one, weight in zip(x, w, strict=True)]
    eps = o.get("epsilon", 0.0)

    def share(parts: list[float], bias: float) -> list[float]:
        total = math.fsum(parts) + bias
        return [ratio(part * r, total + eps * sign(total)) for part in parts]

    if rule == "flat":
        return share([1.0] * len(x), 0.0)
    if rule == "box":
        return share([v - o["low"] * max(k, 0) - o["high"] * min(k, 0) for v, k in zip(z, w, strict=True)], 0.0)
    if rule == "epsilon":
        return share(z, b)
    if rule == "gamma":
        pick = max if math.fsum(z) + b > 0 else min
        return share([v + o["gamma"] * pick(v, 0.0) for v in z], b + o["gamma"] * pick(b, 0.0))
    up = share([max(v, 0.0) for v in z], 2 * b if o.get("twice") else max(b, 0.0))
    if rule == "zplus":
        return up
    down = share([min(v, 0.0) for v in z], min(b, 0.0))
    return [o["alpha"] * p - o["beta"] * n for p, n in zip(up, down, strict=True)]


def reads(layer: nn.Module, x: Tensor) -> Iterator[tuple[Cell, list[Cell], list[float], float]]:
    """Each output of a layer: which inputs it reads, with which weights and bias."""
    if isinstance(layer, nn.Linear):
        for n in range(layer.out_features):
            bias = 0.0 if layer.bias is None else float(layer.bias[n])
            yield (n,), [(i,) for i in range(len(x))], layer.weight[n].tolist(), bias
        return
    assert isinstance(layer, nn.Conv2d)
    weight, (sy, sx), (py, px) = layer.weight.tolist(), layer.stride, layer.padding  # type: ignore[misc]
    _, h, w = x.shape
    ky, kx = layer.kernel_size
    for n, i, j in product(
        range(layer.out_channels), range((h + 2 * py - ky) // sy + 1), range((w + 2 * px - kx) // sx + 1)
    ):
        cells, weights = [], []
        for c, di, dj in product(range(layer.in_channels), range(ky), range(kx)):
            u, v = i * sy + di - py, j * sx + dj - px
            if 0 <= u < h and 0 <= v < w:
                cells.append((c, u, v))
                weights.append(weight[n][c][di][dj])
        yield (n, i, j), cells, weights, 0.0 if layer.bias is None else float(layer.bias[n])


def back(layer: nn.Module, x: Tensor, r: Tensor, rule: str, o: dict[str, Any]) -> Tensor:
    """The relevance of a layer's inputs; `rule` is that of layers with weights, o["average"] that of means."""
    if isinstance(layer, nn.Flatten):
        return r.reshape(x.shape)
    if isinstance(layer, PASS):
        return r
    out = torch.zeros_like(x)
    if isinstance(layer, (nn.Linear, nn.Conv2d)):
        values = x.tolist()
        for at, cells, weights, bias in reads(layer, x):
            inputs = [values[c[0]] if len(c) == 1 else values[c[0]][c[1]][c[2]] for c in cells]
            kept = 0.0 if o["bias"] == "none" else bias
            for cell, part in zip(cells, unit(inputs, weights, kept, float(r[at]), rule, o), strict=True):
                out[cell] += part
        return out
    size = layer(x[None])[0].shape[1:]
    for k, i, j in product(range(len(x)), range(size[0]), range(size[1])):
        if isinstance(layer, nn.MaxPool2d):
            n = int(layer.kernel_size)  # type: ignore[arg-type]
            window = list(product(range(i * n, i * n + n), range(j * n, j * n + n)))
            out[(k, *max(window, key=lambda cell: float(x[(k, *cell)])))] += r[k, i, j]
            continue
        assert isinstance(layer, nn.AdaptiveAvgPool2d)
        spans = [range(a * n // m, -(-(a + 1) * n // m)) for a, n, m in zip((i, j), x.shape[1:], size, strict=True)]
        window = list(product(*spans))
        inputs = [float(x[(k, *cell)]) for cell in window]
        shares = unit(inputs, [1 / len(window)] * len(window), 0.0, float(r[k, i, j]), o["average"], o)
        for cell, part in zip(window, shares, strict=True):
            out[(k, *cell)] += part
    return out


def through(layers: list[nn.Module], x: Tensor, start: Tensor, rules: dict[str, str], o: dict[str, Any]) -> Tensor:
    """From the relevance of the logits to that of x; rules by "convolution", "dense", and "first" for layers[0]."""
    inputs = [x]
    for layer in layers:
        inputs.append(layer(inputs[-1][None].clone())[0])
    r = start
    for index in reversed(range(len(layers))):
        layer = layers[index]
        rule = rules["dense"] if isinstance(layer, nn.Linear) else rules["convolution"]
        r = back(layer, inputs[index], r, rules.get("first", rule) if index == 0 else rule, o)
    return r


def contrast(classes: int, c: int) -> Tensor:
    """Lee 2021: 1 for the class, -1/N for each of the others."""
    return torch.tensor([1.0 if n == c else -1 / classes for n in range(classes)], dtype=torch.float64)


def weighed(a: Tensor, r: Tensor) -> Tensor:
    """Lee 2021: L = sum_k A_k mean_ij R_k, negative values kept."""
    out = torch.zeros(a.shape[1:], dtype=torch.float64)
    for k in range(len(a)):
        out += a[k] * (math.fsum(r[k].flatten().tolist()) / r[k].numel())
    return out


def merged(layers: list[nn.Module]) -> list[nn.Module]:
    """The same network with each batch norm inside the convolution right in front of it."""
    done: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d) and done and isinstance(done[-1], nn.Conv2d):
            old = done.pop()
            assert isinstance(old, nn.Conv2d)
            assert layer.running_var is not None
            assert layer.running_mean is not None
            new = nn.Conv2d(old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding).double()  # type: ignore[arg-type]
            for k in range(old.out_channels):
                factor = layer.weight.data[k] / math.sqrt(float(layer.running_var[k]) + layer.eps)
                before = 0.0 if old.bias is None else old.bias.data[k]
                new.weight.data[k] = old.weight.data[k] * factor
                assert new.bias is not None
                new.bias.data[k] = (before - layer.running_mean[k]) * factor + layer.bias.data[k]
            done.append(new)
        else:
            done.append(layer)
    return done
