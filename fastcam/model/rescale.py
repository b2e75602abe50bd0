"""DeepLIFT's rules through a captured tail, without touching the user's modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

NEAR = 1e-10  # up to this difference of inputs the rule's quotient is the gradient (captum's constant)
aten = torch.ops.aten
ELEMENTWISE = frozenset(
    getattr(aten, name).default
    for name in (
        *("relu", "relu_", "relu6", "hardtanh", "leaky_relu", "prelu", "_prelu_kernel", "elu", "selu", "celu"),
        *("sigmoid", "log_sigmoid", "hardsigmoid", "tanh", "silu", "hardswish", "gelu", "mish", "softplus"),
        *("clamp", "clamp_min", "threshold", "hardshrink", "softshrink", "exp", "abs"),
    )
)
RELUS = frozenset({aten.relu.default, aten.relu_.default})
WITH_INDICES = {
    aten.max_pool1d.default: aten.max_pool1d_with_indices.default,
    aten.max_pool2d.default: aten.max_pool2d_with_indices.default,
    aten.max_pool3d.default: aten.max_pool3d_with_indices.default,
}
MAX_POOLS: dict[Any, Any] = {**WITH_INDICES, **{pool: pool for pool in WITH_INDICES.values()}}


class _Rescale(torch.autograd.Function):
    """y = f(x) for an elementwise f; backward multiplies by (y - y0) / (x - x0), or by f'(x) where x = x0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, x0: Tensor, y0: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        y = f(x)
        ctx.f = f
        ctx.save_for_backward(x, x0, y, y0)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, x0, y, y0 = ctx.saved_tensors
        dx = x - x0
        near = _near(dx)
        back = (y - y0).mul_(grads[0]).div_(dx)
        # On a CPU looking is cheaper than a derivative that no cell needs; a GPU would have to wait for the answer.
        if dx.device.type != "cpu" or bool(near.any()):
            with torch.enable_grad():
                inner = x.detach().requires_grad_()
                (slope,) = torch.autograd.grad(ctx.f(inner), inner, grads[0])
            back = torch.where(near, slope, back)
        return back, None, None, None


class _RescalePool(torch.autograd.Function):
    """Max pooling under Rescale.

    The rise above max(y, y0) - y0 goes back to the maximum of the input, the fall below it to that of the
    reference, so that the contributions still add up to the difference of the outputs.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, x0: Tensor, pool: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        (y, at), (y0, at0) = pool(x), pool(x0)
        ctx.save_for_backward(x, x0, y, y0, at, at0)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, x0, y, y0, at, at0 = ctx.saved_tensors
        dx, top = x - x0, torch.maximum(y, y0)

        def back(values: Tensor, where: Tensor) -> Tensor:
            flat = torch.zeros_like(dx).flatten(2)
            return flat.scatter_add_(2, where.flatten(2), values.flatten(2)).view_as(dx)

        contribution = back(grads[0] * (top - y0), at) + back(grads[0] * (y - top), at0)
        near = _near(dx)
        return torch.where(near, back(grads[0], at), contribution / torch.where(near, 1.0, dx)), None, None


class _RevealCancel(torch.autograd.Function):
    """relu(W x + b); backward by RevealCancel, which follows what raises and what lowers W x + b apart.

    With p and n the sums of the positive and negative terms of W (x - x0), z0 = W x0 + b and f = relu:
    Δ+ = (f(z0 + p) - f(z0) + f(z0 + n + p) - f(z0 + n)) / 2, Δ- likewise with p and n exchanged; a weight hands back
    R Δ+ / p where its term is positive, R Δ- / n where it is negative, their mean where x = x0.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, x0: Tensor, weight: Tensor, z: Tensor, z0: Tensor) -> Tensor:
        ctx.save_for_backward(x, x0, weight, z0)
        return z.relu()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, x0, weight, z0 = ctx.saved_tensors
        dx, plus, minus = x - x0, weight.relu(), -(-weight).relu()
        up, down = dx.relu(), -(-dx).relu()
        p, n = up @ plus.T + down @ minus.T, up @ minus.T + down @ plus.T
        f = torch.relu
        rise = (f(z0 + p) - f(z0) + f(z0 + p + n) - f(z0 + n)) / 2
        fall = (f(z0 + n) - f(z0) + f(z0 + p + n) - f(z0 + p)) / 2
        slope = (z0 + p + n > 0).to(p.dtype)
        by_p, by_n = (
            grads[0] * torch.where(_near(part), slope, change / torch.where(_near(part), 1.0, part))
            for part, change in ((p, rise), (n, fall))
        )
        raised, lowered = by_p @ plus + by_n @ minus, by_p @ minus + by_n @ plus
        back = torch.where(dx > 0, raised, torch.where(dx < 0, lowered, (raised + lowered) / 2))
        return back, None, None, None, None


def _dense(tail: GraphModule) -> dict[str, str]:
    """Linear layers whose output one ReLU alone reads: name of each -> of its ReLU."""
    found = {}
    for node in tail.graph.nodes:
        readers = list(node.users)
        if node.target is aten.linear.default and len(readers) == 1 and readers[0].target in RELUS:
            found[node.name] = readers[0].name
    return found


def _near(dx: Tensor) -> Tensor:
    return dx.abs() <= NEAR  # float16 rounds NEAR to zero


class _Reference(Interpreter):
    """Runs a tail on the references and keeps what each non-linearity takes and gives."""

    def __init__(self, tail: GraphModule, dense: dict[str, str]) -> None:
        super().__init__(tail)
        self.dense = dense
        self.kept: dict[str, tuple[Tensor, Any]] = {}

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if n.name in self.dense:
            first = n.args[0]
            assert isinstance(first, Node)
            self.kept[n.name] = (self.env[first], result)
        if n.op == "call_function" and (n.target in ELEMENTWISE or n.target in MAX_POOLS):
            first = n.args[0]
            assert isinstance(first, Node)
            self.kept[n.name] = (self.env[first], result)
        return result


class _Tail(Interpreter):
    """Runs a tail with every non-linearity under the Rescale rule, or under RevealCancel behind a dense layer."""

    def __init__(self, tail: GraphModule, known: _Reference) -> None:
        super().__init__(tail)
        self.kept, self.dense = known.kept, known.dense
        self.behind: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    def run_node(self, n: Node) -> Any:
        if n.name not in self.kept:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if not args[0].requires_grad:  # a constant of the model
            return super().run_node(n)
        if n.name in self.dense:
            with torch.no_grad():
                result = super().run_node(n)
            self.behind[self.dense[n.name]] = (args[0], self.kept[n.name][0], args[1])
            return result.requires_grad_()
        if n.name in self.behind:
            return _RevealCancel.apply(*self.behind.pop(n.name), args[0].detach(), self.kept[n.name][0])
        given, gave = self.kept[n.name]
        if n.target in ELEMENTWISE:
            plain: Any = aten.relu.default if n.target is aten.relu_.default else n.target
            return _Rescale.apply(args[0], given, gave, lambda x: plain(x, *args[1:], **kwargs))
        pool = MAX_POOLS[n.target]
        y = _RescalePool.apply(args[0], given, lambda x: pool(x, *args[1:], **kwargs))
        return y if n.target in WITH_INDICES else (y, None)


def multipliers(
    tail: GraphModule,
    activations: Tensor,
    bypass: list[Tensor],
    score: Callable[[tuple[Any, ...]], Tensor],
    *,
    reference: Tensor | None = None,
    cancel: bool = False,
) -> Tensor:
    """DeepLIFT multipliers of the activations, by the Rescale rule.

    Products of two activations (gates, attention) take the ordinary gradient, as captum does.

    Args:
        tail: a functional graph of aten operations.
        activations: A in the layer's own layout, batch B first.
        bypass: further inputs of the tail.
        score: the tail's flat output -> (T,) sums of the scores over the batch.
        reference: what the activations are compared with, in their shape; None for zeros.
        cancel: take RevealCancel for every linear layer whose output only a ReLU reads.

    Returns:
        (T, *activations.shape); times the difference from the reference they are the contributions.
    """
    with torch.no_grad():
        known = _Reference(tail, _dense(tail) if cancel else {})
        known.run(torch.zeros_like(activations) if reference is None else reference, *bypass)
    with torch.enable_grad():
        a = activations.detach().requires_grad_()
        sums = score(_Tail(tail, known).run(a, *bypass))
        rows = [torch.autograd.grad(s, a, retain_graph=t + 1 < len(sums))[0] for t, s in enumerate(sums)]
    return torch.stack(rows)
