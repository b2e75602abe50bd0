"""What a network's nonlinearities hand back, and its biases get, seen and changed during one forward.

The forward runs in a `TorchFunctionMode`, which sees the functions that any module or plain code calls: no module is
swapped and none is hooked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

OTHERS = {
    *("leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "glu", "silu", "gelu", "mish", "softplus", "hardswish"),
    *("hardsigmoid", "sigmoid", "logsigmoid", "tanh", "hardtanh", "softsign", "tanhshrink", "relu", "relu6"),
}  # nonlinearities, by the name of the function without the underscore of in-place forms
CONVOLUTIONS = {f"conv{way}{rank}d" for way in ("", "_transpose") for rank in (1, 2, 3)}


def argument(args: tuple[Any, ...], kwargs: dict[str, Any], index: int, name: str, default: Any = None) -> Any:
    """An argument that may have been given by place or by name."""
    return args[index] if len(args) > index else kwargs.get(name, default)


def relu_top(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | None:
    """Where this call of this function cuts from above if it is a ReLU (infinity for the plain one), else None."""
    if name in ("relu", "relu6"):
        return 6.0 if name == "relu6" else float("inf")
    if name == "hardtanh":
        low, high = argument(args, kwargs, 1, "min_val", -1.0), argument(args, kwargs, 2, "max_val", 1.0)
    elif name in ("clamp", "clip"):
        low, high = argument(args, kwargs, 1, "min"), argument(args, kwargs, 2, "max")
    elif name == "clamp_min":
        low, high = argument(args, kwargs, 1, "min"), None
    elif name == "threshold":
        low, high = argument(args, kwargs, 1, "threshold"), None
        if argument(args, kwargs, 2, "value") != 0:
            return None
    else:
        return None
    if isinstance(low, Tensor) or isinstance(high, Tensor) or low != 0:
        return None
    return float("inf") if high is None else float(high)


class _Relu(torch.autograd.Function):
    """min(relu(x), top); backward R -> relu(R), with `guided` only where the forward let x through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, top: float, guided: bool, in_place: bool) -> Tensor:
        plain = top == float("inf")
        if in_place:
            ctx.mark_dirty(x)
            y = x.relu_() if plain else x.clamp_(0, top)
        else:
            y = x.relu() if plain else x.clamp(0, top)
        ctx.top = top
        if guided:
            ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        back = grads[0].relu()
        if ctx.saved_tensors:
            # The derivative of hardtanh, in one pass: zero where y is not between 0 and top.
            back = torch.ops.aten.hardtanh_backward(back, ctx.saved_tensors[0], 0.0, ctx.top)
        return back, None, None, None


class Nonlinearities(TorchFunctionMode):
    """Sees every call of a nonlinearity, in order; what `change` gives takes the place of its result."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        plain = name.strip("_")
        top = relu_top(plain, args, kwargs)
        if top is None and plain not in OTHERS:
            return func(*args, **kwargs)
        x = argument(args, kwargs, 0, "input")
        # The flag of an in-place form may stand last: relu(x, True).
        in_place = name.endswith("_") or bool(kwargs.get("inplace")) or any(value is True for value in args[1:])
        return self.changed(plain, top, x, in_place, lambda: func(*args, **kwargs))

    def changed(self, name: str, top: float | None, x: Tensor, in_place: bool, call: Callable[[], Tensor]) -> Tensor:
        """The result in place of the function's own, which it is unless a subclass says otherwise.

        Args:
            name: of the function.
            top: of a ReLU, see `relu_top`.
            x: what it is given.
            in_place: whether x must hold the result afterwards.
            call: the function itself on x.
        """
        return call()


class ReluRule(Nonlinearities):
    """ReLUs hand back by the rule "deconvnet" or "guided"."""

    def __init__(self, rule: str) -> None:
        super().__init__()
        self.guided = rule == "guided"
        self.relus = 0
        self.others: set[str] = set()

    def changed(self, name: str, top: float | None, x: Tensor, in_place: bool, call: Callable[[], Tensor]) -> Tensor:
        """A ReLU under the rule, anything else as it is."""
        if top is None:
            self.others.add(name)
            return call()
        self.relus += 1
        return _Relu.apply(x, top, self.guided, in_place)

    def require_relus(self, method: str, model: nn.Module) -> None:
        """Raise a ValueError where the forward ran no ReLU, so that the rule changes nothing."""
        if self.relus:
            return
        runs = f"runs {', '.join(sorted(self.others))}" if self.others else "runs no nonlinearity that torch can see"
        raise ValueError(
            f"{method} changes what ReLUs hand back, and {type(model).__name__} has none on its way: it {runs}; use "
            "saliency, smoothgrad or integratedgradients, which work for every network"
        )


class Outputs(Nonlinearities):
    """Keeps what every nonlinearity gives."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []

    def changed(self, name: str, top: float | None, x: Tensor, in_place: bool, call: Callable[[], Tensor]) -> Tensor:
        """The result itself, after a copy was kept where something may write over it."""
        y = call()
        self.kept.append(y.detach().clone())
        return y


class Gates(Nonlinearities):
    """Cuts the gradient of every nonlinearity where it gives more, or another sign, than in an earlier forward."""

    def __init__(self, bounds: list[Tensor]) -> None:
        super().__init__()
        self.bounds = iter(bounds)

    def changed(self, name: str, top: float | None, x: Tensor, in_place: bool, call: Callable[[], Tensor]) -> Tensor:
        """The result, whose gradient is cut where it is not between 0 and the bound."""
        y = call()
        bound = next(self.bounds, None)
        if bound is None or bound.shape != y.shape:
            raise ValueError(
                "the network runs other nonlinearities on a masked image than on the image itself, so their outputs "
                "cannot be compared; use defense=False"
            )
        if not y.requires_grad:
            return y
        seen = y.detach()
        # What a ReLU gives is never below 0, so its bound is the upper end and there is no other.
        gate = seen <= bound if top is not None else (seen <= bound.clamp(min=0)) & (seen >= bound.clamp(max=0))
        y.register_hook(lambda g: g * gate)
        return y


class Biases(TorchFunctionMode):
    """Watches what adds a bias, see `visiting`.

    Attributes:
        visit: (which backward, gradient of what was added to, bias (C,), whether channels come last) -> None
    """

    def __init__(self) -> None:
        super().__init__()
        self.visit: Callable[[int, Tensor, Tensor, bool], None] | None = None
        self.backwards: dict[int, int] = {}
        self.count = 0

    @contextlib.contextmanager
    def visiting(self, visit: Callable[[int, Tensor, Tensor, bool], None]) -> Iterator[None]:
        """Count backwards, and call `visit` in each, inside.

        Afterwards nothing of it is kept: the graph holds this watch, so what `visit` holds could never be freed.
        """
        self.visit, self.backwards = visit, {}
        try:
            yield
        finally:
            self.visit = None

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        bias = None
        if name in CONVOLUTIONS or name == "linear":
            bias = argument(args, kwargs, 2, "bias")
        elif func is functional.batch_norm:
            bias = _folded_bias(args, kwargs)
        if bias is not None and output.requires_grad:
            self._watch(output, bias, name == "linear")
        return output

    def _watch(self, output: Tensor, bias: Tensor, last: bool) -> None:
        index, self.count = self.count, self.count + 1

        def seen(g: Tensor) -> None:
            if self.visit is None:
                return
            t = self.backwards.get(index, 0)
            self.backwards[index] = t + 1
            self.visit(t, g, bias, last)

        output.register_hook(seen)


def _folded_bias(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """What a batch norm with statistics of its own adds: beta - mean gamma / sqrt(var + eps)."""
    mean, var = argument(args, kwargs, 1, "running_mean"), argument(args, kwargs, 2, "running_var")
    if mean is None or var is None or argument(args, kwargs, 5, "training", False):
        return None
    weight, bias = argument(args, kwargs, 3, "weight"), argument(args, kwargs, 4, "bias")
    scale = (var.double() + argument(args, kwargs, 7, "eps", 1e-5)).rsqrt()
    folded = -mean.double() * scale if weight is None else -mean.double() * scale * weight.double()
    return (folded if bias is None else folded + bias.double()).to(mean.dtype)


def ruled(rule: str | None) -> contextlib.AbstractContextManager[Any]:
    """The state in which a forward is watched, or ruled, by this name; None for none."""
    if rule is None:
        return contextlib.nullcontext()
    return Biases() if rule == "biases" else ReluRule(rule)
