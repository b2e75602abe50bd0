"""A network with fewer passes over memory: batch norm in the weights, activation and addition in the convolution.

`torch.fx` traces the network for one image size. Nothing of the user's is changed: the folded network has copies of
the convolutions and shares every other module. What cannot be traced or gains nothing is not folded; that the result
is the same network is for the caller to prove, on a forward.
"""

from __future__ import annotations

import copy
import inspect
import operator
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Interpreter, Node, Tracer
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .onednn import BEHIND_ADDITION, DTYPES, NOTHING, Convolution, Unary, unary_of

ADDITIONS = (operator.add, operator.iadd, torch.add)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)  # of which those of pictures are fused too
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fold(model: nn.Module, row: Tensor, dtype: torch.dtype | None = None) -> nn.Module | None:
    """The network folded, or None where it cannot be traced or nothing in it can be folded.

    Args:
        model: in evaluation mode, without hooks.
        row: (1, C, H, W) such as the rows to come.
        dtype: that convolutions run in, None for their own.

    Returns:
        A module of rows (n, C, H, W), channels-last at best, that shares what it can with the model.
    """
    try:
        parameters = list(inspect.signature(model.forward).parameters.values())
        defaults = {p.name: p.default for p in parameters[1:] if p.default is not p.empty}
        graph = _Tracer().trace(model, concrete_args=defaults)
        shapes = _Shapes(GraphModule(model, graph)).of(row)
    except Exception:  # whatever a tracer meets in code that it does not know
        return None
    folding = _Folding(graph, dict(model.named_modules()), shapes, dtype)
    folding.drop_identities()
    folding.fold_norms()
    if row.device.type == "cpu" and torch.backends.mkldnn.is_available():
        folding.fuse()
    return folding.result(model) if folding.gained else None


def copied_bytes(model: nn.Module) -> int:
    """What a folded network has of its own: the weights of the convolutions."""
    weights = [m.weight for m in model.modules() if isinstance(m, CONVOLUTIONS) and _foldable(m)]
    return sum(w.numel() * w.element_size() for w in weights)


class _Tracer(Tracer):
    """Stops at convolutions and batch norms also where a library derives its own from torch's.

    `torch.fx` traces by replacing what every module's call does, in all threads: those of others go on as usual.
    """

    def __init__(self) -> None:
        super().__init__()
        self._own = threading.get_ident()

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if threading.get_ident() != self._own:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if threading.get_ident() != self._own:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        whole = isinstance(m, (*CONVOLUTIONS, *NORMS)) or _is_identity(m)
        return whole or super().is_leaf_module(m, module_qualified_name)


class _Shapes(Interpreter):
    """The shape of what each node gives."""

    def of(self, row: Tensor) -> dict[Node, tuple[int, ...]]:
        self.found: dict[Node, tuple[int, ...]] = {}
        self.run(row)
        return self.found

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.found[n] = tuple(value.shape)
        return value


@dataclass
class _Folding:
    """The work on one graph."""

    graph: Graph
    modules: dict[str, nn.Module]
    shapes: dict[Node, tuple[int, ...]]
    dtype: torch.dtype | None
    weights: dict[Node, tuple[Tensor, Tensor | None]] = field(default_factory=dict)  # with the norm in them
    gained: bool = False

    def result(self, model: nn.Module) -> nn.Module:
        """The graph as a module, of which the user's model is no part."""
        for node, (weight, bias) in self.weights.items():  # those that were not fused
            conv = copy.copy(self.modules[str(node.target)])
            given = {"weight": weight, "bias": bias}
            conv._parameters = {k: None if v is None else nn.Parameter(v, False) for k, v in given.items()}
            self._call(node, conv)
        root: dict[str, Any] = {}
        for node in self.graph.nodes:
            if node.op in ("call_module", "get_attr"):
                name = str(node.target)
                root[name] = self.modules[name] if name in self.modules else operator.attrgetter(name)(model)
        return GraphModule(root, self.graph)

    def drop_identities(self) -> None:
        """Dropout and its like."""
        for node in list(self.graph.nodes):
            module = self._module(node)
            if module is not None and _is_identity(module) and len(node.args) == 1:
                self._replace(node, node.args[0])

    def fold_norms(self) -> None:
        """Batch norm into the weights of the convolution before it."""
        for node in list(self.graph.nodes):
            conv, user = self._module(node), _only_user(node)
            norm = None if user is None else self._module(user)
            if user is None or not isinstance(conv, CONVOLUTIONS) or not isinstance(norm, NORMS):
                continue
            inner, mean, variance = _inside(norm), norm.running_mean, norm.running_var
            if not _foldable(conv) or mean is None or variance is None or inner is None or user.args != (node,):
                continue
            weight, bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, mean, variance, norm.eps, norm.weight, norm.bias
            )
            form = torch.channels_last if weight.dim() == 4 else torch.contiguous_format
            self.weights[node] = (weight.detach().contiguous(memory_format=form), bias.detach())
            end = node
            with self.graph.inserting_before(user):
                for name in inner:
                    end = self.graph.call_module(f"{user.target}.{name}", (end,))
                    self.shapes[end] = self.shapes[node]
            self._replace(user, end)
            self.gained = True

    def fuse(self) -> None:
        """Addition and activation into the convolution before them."""
        for node in list(self.graph.nodes):
            conv = self._module(node)
            if not isinstance(conv, nn.Conv2d) or not _foldable(conv) or not _zero_padded(conv):
                continue
            if (self.dtype or conv.weight.dtype) not in DTYPES:
                continue
            sum_, other = self._addition(node)
            end = sum_ or node
            unary, after = self._activation(end)
            if other is not None and unary[0] not in BEHIND_ADDITION:
                unary, after = NOTHING, None
            new = self._convolution(node, after or end, other, unary)
            self.shapes[new] = self.shapes[end]
            for gone in (after, sum_, node):
                if gone is not None:
                    self._replace(gone, new)
            self.gained = self.gained or bool(after or sum_)

    def _convolution(self, node: Node, before: Node, other: Node | None, unary: Unary) -> Node:
        """The node of a fused convolution in front of another node."""
        conv, source = self.modules[str(node.target)], node.args[0]
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(source, Node)
        own = (conv.weight.detach(), None if conv.bias is None else conv.bias.detach())
        weight, bias = (None if t is None else t.to(self.dtype or t.dtype) for t in self.weights.pop(node, own))
        assert weight is not None
        size, padding = self.shapes[source][1:], tuple(int(n) for n in conv.padding)
        with self.graph.inserting_before(before):
            if type(conv) is not nn.Conv2d:
                pads, padding = _same_padding(conv, size), (0, 0)
                source = self.graph.call_function(functional.pad, (source, pads))
            new = self.graph.call_module("", (source,) if other is None else (source, other))
        self._call(new, Convolution(conv, padding, weight, bias, unary, size))
        return new

    def _addition(self, node: Node) -> tuple[Node | None, Node | None]:
        """The addition that is all that a convolution's output is for, and what it adds; of one shape."""
        user = _only_user(node)
        if user is None or user.op != "call_function" or user.target not in ADDITIONS or user.kwargs:
            return None, None
        others = [a for a in user.args if a is not node]
        other = others[0] if len(user.args) == 2 and len(others) == 1 else None
        alike = isinstance(other, Node) and self.shapes.get(other) == self.shapes[node]
        return (user, other) if alike and isinstance(other, Node) else (None, None)

    def _activation(self, node: Node) -> tuple[Unary, Node | None]:
        """The activation that is all that a node's output is for."""
        user = _only_user(node)
        if user is None or user.args[:1] != (node,):
            return NOTHING, None
        unary = unary_of(user, self._module(user))
        return (NOTHING, None) if unary is None else (unary, user)

    def _module(self, node: Node) -> nn.Module | None:
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def _call(self, node: Node, module: nn.Module) -> None:
        """Let a node call a module of our own."""
        node.target = f"folded_{len(self.modules)}"
        self.modules[node.target] = module

    def _replace(self, node: Node, by: Any) -> None:
        node.replace_all_uses_with(by)
        self.graph.erase_node(node)


def _only_user(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is_identity(module: nn.Module) -> bool:
    """Whether a module gives what it is given, in evaluation mode."""
    kinds = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
    return isinstance(module, kinds) or type(module).__name__ in ("DropPath", "StochasticDepth")


def _foldable(conv: nn.Module) -> bool:
    """Whether a convolution uses its weight as it is: torch's own, and timm's with TensorFlow's padding."""
    return type(conv) in CONVOLUTIONS or type(conv).__name__ == "Conv2dSame"


def _zero_padded(conv: nn.Conv2d) -> bool:
    return conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


def _same_padding(conv: nn.Conv2d, size: tuple[int, ...]) -> tuple[int, ...]:
    """Left, right, top and bottom padding that gives ceil(size / stride) outputs, the odd one at the end."""
    pads: list[int] = []
    for axis in (1, 0):
        step, reach = conv.stride[axis], (conv.kernel_size[axis] - 1) * conv.dilation[axis] + 1
        total = max((-(-size[1 + axis] // step) - 1) * step + reach - size[1 + axis], 0)
        pads += [total // 2, total - total // 2]
    return tuple(pads)


def _inside(norm: nn.Module) -> list[str] | None:
    """What runs inside of a batch norm behind it, by name: timm's carry an activation. None where that is unknown."""
    if type(norm).forward is nn.BatchNorm2d.forward:
        return []
    children = [name for name, _ in norm.named_children()]
    known = type(norm).__name__ == "BatchNormAct2d" and children == ["drop", "act"]
    return [name for name in children if not _is_identity(norm.get_submodule(name))] if known else None
