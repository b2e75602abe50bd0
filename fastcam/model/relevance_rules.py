"""LRP's rules for one layer: the relevance of what a layer gives, shared among what it was given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]
Weighted = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Rules:
    """Which rule a layer takes; z_ij = x_i w_ij is what input i adds to output j.

    Attributes:
        convolution: "zplus", "alphabeta", "gamma" or "epsilon".
        dense: the same, of linear layers.
        first: of layers that read the image: "flat", "box", or "same" as any other.
        average: of means and average pools: "zplus" (by the positive inputs alone) or "epsilon" (by all).
        norm: "merge" a batch norm into the layer in front of it, or let all relevance "pass".
        bias: "share", where a bias takes its part, "none", or "twice": the whole bias in each half of z+, in
            convolutions alone.
        alpha: share of the positive parts under "alphabeta", which is 1 + beta.
        beta: share of the negative parts.
        gamma: how much more the parts count that have the output's sign, under "gamma".
        epsilon: added to what is divided by, with its sign; where that is zero and epsilon is too, so is the share.
        low: least pixel value under "box": a number, one a channel, or None for that of each image.
        high: largest pixel value.
    """

    convolution: str = "zplus"
    dense: str = "zplus"
    first: str = "same"
    average: str = "zplus"
    norm: str = "pass"
    bias: str = "none"
    alpha: float = 1.0
    beta: float = 0.0
    gamma: float = 0.25
    epsilon: float = 0.0
    low: Any = None
    high: Any = None


def divide(r: Tensor, z: Tensor, epsilon: float) -> Tensor:
    """Stabilized quotients: r / (z + epsilon sign(z)), where zero counts as positive; without epsilon r / 0 = 0."""
    if epsilon:
        return r / (z + epsilon * torch.where(z < 0, -1.0, 1.0).to(z.dtype))
    return torch.where(z == 0, 0.0, r / torch.where(z == 0, 1.0, z))


def share(r: Tensor, parts: Sequence[tuple[Function, Tensor]], epsilon: float) -> Tensor:
    """R_i = sum over the parts of x_i sum_j (df_j/dx_i) r_j / z_j, with z the sum of the parts f(x).

    Args:
        r: relevance of the output.
        parts: functions, each linear but for a bias, and their inputs, which are alike in shape.
        epsilon: see `divide`.

    Returns:
        The relevance of the inputs.
    """
    leaves = [x.detach().requires_grad_() for _, x in parts]
    with torch.enable_grad():
        z = torch.stack([f(x) for (f, _), x in zip(parts, leaves, strict=True)]).sum(0)
    back = torch.autograd.grad(z, leaves, divide(r, z.detach(), epsilon))
    return torch.stack([x.detach() * g for x, g in zip(leaves, back, strict=True)]).sum(0)


def weighted(f: Weighted, x: Tensor, w: Tensor, b: Tensor | None, r: Tensor, rule: str, rules: Rules) -> Tensor:
    """The relevance of a layer's inputs x.

    Args:
        f: (x, w, b) -> z, linear in x and in w.
        x: inputs.
        w: weights.
        b: bias.
        r: relevance of the outputs.
        rule: its name.
        rules: its numbers.
    """
    if rules.bias == "none":
        b = None
    if rule == "flat":
        return share(r, [(lambda v: f(v, torch.ones_like(w), None), torch.ones_like(x))], rules.epsilon)
    if rule == "box":
        return _box(f, x, w, r, rules)
    if rule == "epsilon":
        return share(r, [(lambda v: f(v, w, b), x)], rules.epsilon)
    if rule == "gamma":
        return _gamma(f, x, w, b, r, rules)
    up = _by_sign(f, x, w.clamp(min=0), w.clamp(max=0), b if rules.bias == "twice" else _clamped(b, min=0), r, rules)
    if rule == "zplus":
        return up
    down = _by_sign(f, x, w.clamp(max=0), w.clamp(min=0), _clamped(b, max=0), r, rules)
    return rules.alpha * up - rules.beta * down


def _by_sign(f: Weighted, x: Tensor, above: Tensor, below: Tensor, b: Tensor | None, r: Tensor, rules: Rules) -> Tensor:
    """Shares where positive inputs meet the weights `above`, negative ones the weights `below`."""
    both = rules.bias == "twice"
    parts: list[tuple[Function, Tensor]] = [(lambda v: f(v, above, b), x.clamp(min=0))]
    if both or bool((x < 0).any()):
        parts.append((lambda v: f(v, below, b if both else None), x.clamp(max=0)))
    return share(r, parts, rules.epsilon)


def _gamma(f: Weighted, x: Tensor, w: Tensor, b: Tensor | None, r: Tensor, rules: Rules) -> Tensor:
    """Parts of the output's own sign count 1 + gamma times (Montavon 2019; of either sign, Andéol 2021)."""
    z, gamma = f(x, w, b), rules.gamma
    more, less = w + gamma * w.clamp(min=0), w + gamma * w.clamp(max=0)
    bias = [None, None] if b is None else [b + gamma * b.clamp(min=0), b + gamma * b.clamp(max=0)]
    up = _by_sign(f, x, more, less, bias[0], r * (z > 0), rules)
    return up + _by_sign(f, x, less, more, bias[1], r * (z < 0), rules)


def _box(f: Weighted, x: Tensor, w: Tensor, r: Tensor, rules: Rules) -> Tensor:
    """Shares of z = x w - low w+ - high w- (Montavon 2017, section 4.2), which is never negative."""
    over = tuple(range(1, x.dim()))
    low = x.amin(over, keepdim=True) if rules.low is None else _pixel(rules.low, x)
    high = x.amax(over, keepdim=True) if rules.high is None else _pixel(rules.high, x)
    parts: list[tuple[Function, Tensor]] = [
        (lambda v: f(v, w, None), x),
        (lambda v: f(v, -w.clamp(min=0), None), low.expand_as(x)),
        (lambda v: f(v, -w.clamp(max=0), None), high.expand_as(x)),
    ]
    return share(r, parts, rules.epsilon)


def _pixel(value: Any, like: Tensor) -> Tensor:
    """A pixel value, one for all channels or one each, as it broadcasts against images."""
    found = torch.as_tensor(value, device=like.device, dtype=like.dtype)
    if found.numel() not in (1, like.shape[1]):
        raise ValueError(
            f"low and high need a number or one for each of the {like.shape[1]} channels, got {found.numel()} values"
        )
    return found.reshape(1, -1, *[1] * (like.dim() - 2))


def _clamped(b: Tensor | None, **bounds: float) -> Tensor | None:
    return None if b is None else b.clamp(**bounds)
