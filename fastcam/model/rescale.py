"""DeepLIFT's Rescale rule through a captured tail, without touching the user's modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter

NEAR = 1e-10  # below this difference of inputs the rule's quotient is the gradient (captum's constant)
aten = torch.ops.aten
ELEMENTWISE = frozenset(
    getattr(aten, name).default
    for name in (
        *("relu", "relu_", "relu6", "hardtanh", "leaky_relu", "prelu", "_prelu_kernel", "elu", "selu", "celu"),
        *("sigmoid", "log_sigmoid", "hardsigmoid", "tanh", "silu", "hardswish", "gelu", "mish", "softplus"),
        *("clamp", "clamp_min", "threshold", "hardshrink", "softshrink", "exp", "abs"),
    )
)
MAX_POOLS = frozenset({aten.max_pool2d.default, aten.max_pool2d_with_indices.default})


class _Rescale(torch.autograd.Function):
    """y = f(x) for an elementwise f; backward multiplies by (y - y0) / (x - x0).

    The batch holds the inputs in its first half and their references in the second; the gradient of the
    second half is zero, since only the first half is scored.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        y = f(x)
        ctx.f = f
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        x, y = ctx.saved_tensors
        upstream = grads[0].chunk(2)[0]
        dx, dy = _difference(x), _difference(y)
        with torch.enable_grad():
            inner = x.chunk(2)[0].detach().requires_grad_()
            (slope,) = torch.autograd.grad(ctx.f(inner), inner, upstream)
        near = (dx.abs() < NEAR) | (dx == 0)  # float16 rounds NEAR to zero
        multiplied = torch.where(near, slope, upstream * dy / torch.where(near, 1.0, dx))
        return torch.cat([multiplied, torch.zeros_like(multiplied)]), None


class _RescalePool(torch.autograd.Function):
    """Max pooling under Rescale.

    The rise above max(y, y0) - y0 goes back to the maximum of the input, the fall below it to that of the
    reference, so that the contributions still add up to the difference of the outputs.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, pool: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        y, indices = pool(x)
        ctx.save_for_backward(x, y, indices)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        x, y, indices = ctx.saved_tensors
        upstream = grads[0].chunk(2)[0]
        (y1, y0), (at, at0) = y.chunk(2), indices.chunk(2)
        top = torch.maximum(y1, y0)
        dx = _difference(x)

        def back(values: Tensor, where: Tensor) -> Tensor:
            flat = torch.zeros_like(dx).flatten(2)
            return flat.scatter_add_(2, where.flatten(2), values.flatten(2)).view_as(dx)

        contribution = back(upstream * (top - y0), at) + back(upstream * (y1 - top), at0)
        near = (dx.abs() < NEAR) | (dx == 0)  # float16 rounds NEAR to zero
        multiplied = torch.where(near, back(upstream, at), contribution / torch.where(near, 1.0, dx))
        return torch.cat([multiplied, torch.zeros_like(multiplied)]), None


def _difference(doubled: Tensor) -> Tensor:
    first, second = doubled.chunk(2)
    return first - second


class _Tail(Interpreter):
    """Runs a tail with every non-linearity under the Rescale rule."""

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        depends = bool(args) and isinstance(args[0], Tensor) and args[0].requires_grad
        if depends and target in ELEMENTWISE:
            plain = aten.relu.default if target is aten.relu_.default else target
            return _Rescale.apply(args[0], lambda x: plain(x, *args[1:], **kwargs))
        if depends and target in MAX_POOLS:
            pool = aten.max_pool2d_with_indices.default
            y = _RescalePool.apply(args[0], lambda x: pool(x, *args[1:], **kwargs))
            return y if target is aten.max_pool2d.default else (y, None)
        return super().call_function(target, args, kwargs)


def multipliers(
    tail: GraphModule, activations: Tensor, bypass: list[Tensor], score: Callable[[tuple[Any, ...]], Tensor]
) -> Tensor:
    """DeepLIFT-Rescale multipliers of the activations against zero.

    Products of two activations (gates, attention) take the ordinary gradient, as captum does.

    Args:
        tail: a functional graph of aten operations.
        activations: A in the layer's own layout, batch B first.
        bypass: further inputs of the tail, each for the doubled batch [A; 0].
        score: the tail's flat output for the doubled batch -> (T,) sums of the scores of its first half.

    Returns:
        (T, *activations.shape); times the activations they are the contributions.
    """
    with torch.enable_grad():
        a = activations.detach().requires_grad_()
        flat = _Tail(tail).run(torch.cat([a, torch.zeros_like(a)]), *bypass)
        sums = score(flat)
        rows = [torch.autograd.grad(s, a, retain_graph=True)[0] for s in sums]
    return torch.stack(rows)
