"""Head (images -> A, bypass) and tail (A, bypass -> output), by cutting the graph of `torch.export` at a layer."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from .layers import INPUT

EXPORT_BATCH = 2  # torch.export takes a batch of 1 for a constant
CANDIDATES = 8  # nodes of the layer tried as its output, last first


@dataclass
class Split:
    """A cut network.

    Attributes:
        head: flat inputs -> (A, *bypass), A in the layer's own layout.
        tail: (A, *bypass) -> flat output.
        batched: which bypassing tensors carry the batch.
        spec: how to rebuild the model's output from the flat one.
    """

    head: GraphModule
    tail: GraphModule
    batched: list[bool]
    spec: Any

    def run_head(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, list[Tensor]]:
        """A and the bypassing tensors of these inputs."""
        activations, *bypass = self.head(*pytree.tree_leaves((args, kwargs)))
        return activations, bypass

    def run_tail(self, activations: Tensor, bypass: list[Tensor]) -> Any:
        """The model's output for these activations; the bypass must have their batch."""
        return self.rebuild(self.tail(activations, *bypass))

    def rebuild(self, flat: Any) -> Any:
        """The model's output, from what the tail's graph returns."""
        return pytree.tree_unflatten(list(flat), self.spec)

    def expand(self, bypass: list[Tensor], image: int, count: int) -> list[Tensor]:
        """The bypass of one image, seen `count` times without a copy."""
        return [
            t[image : image + 1].expand(count, *t.shape[1:]) if batched else t
            for t, batched in zip(bypass, self.batched, strict=True)
        ]


def cut(
    model: nn.Module,
    layer: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    activations: Tensor,
    logits: Tensor,
    select: Callable[[Any], Any],
) -> Split | None:
    """Cut the model at a layer, and check the cut against the model's own forward.

    Args:
        model: in evaluation mode.
        layer: its dotted name, or `layers.INPUT` for the images themselves.
        args: the forward's inputs, batch first.
        kwargs: the same by name.
        activations: what the layer gave for them.
        logits: what `select` found in the model's output for them.
        select: model output -> logits.

    Returns:
        The split, or None where the graph cannot be captured or the parts do not reproduce the model.
    """
    batch = len(activations)
    try:
        program = _export(model, args, kwargs, batch)
        module = program.module()
    except Exception:
        return None
    assert isinstance(module, GraphModule)
    inside = [node for node in module.graph.nodes if _runs_in(node, layer)]
    if layer == INPUT:
        inside = [node for node in module.graph.nodes if node.op == "placeholder"][:1]
    shape = tuple(activations.shape[1:])
    fitting = [n for n in inside if isinstance(_value(n), Tensor) and tuple(_value(n).shape[1:]) == shape]
    for node in reversed(fitting[-CANDIDATES:]):
        try:
            split = _cut_at(module, node, program.call_spec.out_spec)
            if _reproduces(split, args, kwargs, activations, logits, select):
                return split
        except (RuntimeError, TypeError, KeyError, ValueError, AssertionError):
            continue
    return None


def _export(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], batch: int) -> Any:
    def twice(leaf: Any) -> Any:
        batched = isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == batch
        return leaf[:1].repeat_interleave(EXPORT_BATCH, 0) if batched else leaf

    def dynamic(leaf: Any) -> Any:
        batched = isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == batch
        return {0: torch.export.Dim.AUTO} if batched else None

    wide_args, wide_kwargs = pytree.tree_map(twice, args), pytree.tree_map(twice, kwargs)
    shapes = (pytree.tree_map(dynamic, args), pytree.tree_map(dynamic, kwargs))
    named = _by_parameter(model, *shapes)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, wide_args, wide_kwargs, dynamic_shapes=named, strict=False)
        return program.run_decompositions({})  # functional: no in-place ReLU may change A


def _by_parameter(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Dynamic shapes as torch.export wants them: a tuple, or with keyword inputs a dict by parameter name."""
    if not kwargs:
        return args
    return {**dict(zip(inspect.signature(model.forward).parameters, args, strict=False)), **kwargs}


def _value(node: Node) -> Any:
    return node.meta.get("val")


def _runs_in(node: Node, layer: str) -> bool:
    stack = node.meta.get("nn_module_stack") or {}
    return any(path.split("@")[0] == layer for path, _ in stack.values())


def _cut_at(module: GraphModule, at: Node, spec: Any) -> Split:
    nodes = list(module.graph.nodes)
    after = {at}
    for node in nodes:
        if after.intersection(node.all_input_nodes):
            after.add(node)
    bypass: list[Node] = []
    for node in nodes:
        if node in after and node is not at:
            bypass += [n for n in node.all_input_nodes if n not in after and n.op != "get_attr" and n not in bypass]
    carried = [n for n in bypass if isinstance(_value(n), Tensor)]
    sizes = [n for n in bypass if n not in carried]
    batch = str(_value(at).shape[0])
    batched = [bool(len(_value(n).shape)) and str(_value(n).shape[0]) == batch for n in carried]
    if any(str(_value(n)) != batch for n in sizes):
        raise ValueError("a size other than the batch bypasses the layer")

    head, known = Graph(), {}
    for node in nodes:
        if (node not in after or node is at) and node.op != "output":
            known[node] = head.node_copy(node, known.__getitem__)
    head.output(tuple(known[n] for n in (at, *carried)))

    tail = _tail(nodes, after, at, carried, sizes)
    parts = [GraphModule(module, graph) for graph in (head, tail)]
    for part in parts:
        part.graph.eliminate_dead_code()
        part.recompile()
    return Split(parts[0], parts[1], batched, spec)


def _tail(nodes: list[Node], after: set[Node], at: Node, carried: list[Node], sizes: list[Node]) -> Graph:
    tail, known = Graph(), {}
    for index, node in enumerate((at, *carried)):
        known[node] = tail.placeholder(f"bypass_{index}" if index else "activations")
    for node in sizes:
        known[node] = tail.call_function(torch.ops.aten.sym_size.int, (known[at], 0))
    for node in nodes:
        if node.op == "get_attr" and any(user in after for user in node.users):
            known[node] = tail.node_copy(node)
        elif node.op == "output":
            tail.output(map_arg(node.args[0], known.__getitem__))
        elif node in after and node is not at:
            known[node] = tail.node_copy(node, known.__getitem__)
    return tail


def _reproduces(
    split: Split,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    activations: Tensor,
    logits: Tensor,
    select: Callable[[Any], Any],
) -> bool:
    """Whether tail(head(x)) equals the model, for the batch and for one image taken several times."""

    def close(one: Tensor, other: Tensor) -> bool:
        return torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))

    with torch.no_grad():
        a, bypass = split.run_head(args, kwargs)
        if a.shape != activations.shape or not close(a, activations):
            return False
        if not close(select(split.run_tail(a, bypass)), logits):
            return False
        count = EXPORT_BATCH + 1  # another batch than the exported one
        many = select(split.run_tail(a[:1].expand(count, *a.shape[1:]), split.expand(bypass, 0, count)))
        return close(many, logits[:1].expand_as(many))
