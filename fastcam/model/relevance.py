"""Layer-wise relevance propagation: a walk backward over the captured graph of a tail, one rule a kind of operation.

The user's modules are not touched. Every rule sees what its operation was given in this forward, in float32 at least,
whatever precision the network runs in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from .outputs import widen
from .relevance_ops import GATES, ROUTES, RULES, kind, refusal
from .relevance_rules import Rules


class Walk:
    """One run of a tail, and walks back over it.

    Args:
        tail: a functional graph of aten operations, its first input the activations.
        inputs: what it is given: A in the layer's own layout, then what bypasses the layer.
        constant: which of the further inputs are the same for every image, so parameters of the model.
        rules: see `Rules`.

    Attributes:
        flat: what the tail gave.
    """

    def __init__(self, tail: GraphModule, inputs: Sequence[Tensor], constant: Sequence[bool], rules: Rules) -> None:
        run = Interpreter(tail, garbage_collect_values=False)
        with torch.no_grad():
            self.flat = run.run(*inputs)
        self.rules, self.known = rules, run.env
        self.nodes = list(tail.graph.nodes)
        given = [node for node in self.nodes if node.op == "placeholder"]
        self.at = given[0]
        self.needed = self._behind([self.at])
        self.live = self._behind([self.at, *(n for n, same in zip(given[1:], constant, strict=True) if not same)])
        self.merged: dict[Node, tuple[Tensor, Tensor]] = {}

    def _behind(self, start: Sequence[Node]) -> set[Node]:
        found = set(start)
        for node in self.nodes:
            if found.intersection(node.all_input_nodes) and not isinstance(self.known.get(node), (int, float)):
                found.add(node)  # sizes carry no relevance
        return found

    def value(self, argument: Any) -> Any:
        """An argument as it was in this run, tensors in float32 at least."""
        found = map_arg(argument, self.known.__getitem__)
        return pytree.tree_map(lambda v: widen(v.detach()) if isinstance(v, Tensor) else v, found)

    def function(self, node: Node, *places: int) -> Callable[..., Tensor]:
        """The operation as a function of the arguments at these places, all others as they were."""
        args = [self.value(a) for a in node.args] + [None] * (1 + max(places) - len(node.args))
        kwargs = {name: self.value(v) for name, v in node.kwargs.items()}

        def run(*given: Tensor | None) -> Tensor:
            changed = dict(zip(places, given, strict=True))
            every = [changed.get(i, a) for i, a in enumerate(args)]
            while every and every[-1] is None:
                every.pop()
            return node.target(*every, **kwargs)  # type: ignore[operator]

        return run

    def back(self, start: Sequence[Tensor | None]) -> Tensor:
        """The relevance of the activations.

        Args:
            start: relevance of each output in `flat`.

        Returns:
            In the layer's own layout.

        Raises:
            ValueError: an operation without a rule, or no relevance arrives.
        """
        found: dict[Node, Any] = {}
        self.merged.clear()
        for node in reversed(self.nodes):
            if node.op == "output":
                shares = zip(pytree.tree_leaves(node.args[0]), start, strict=True)
            elif node in found and node.op == "call_function":
                if kind(node) not in RULES:
                    raise refusal(node)
                shares = RULES[kind(node)](self, node, found.pop(node))
            else:
                continue
            for source, r in shares:
                if isinstance(source, Node) and source in self.needed and r is not None:
                    found[source] = found[source] + r if source in found else r
        if self.at not in found:
            raise ValueError(
                "no relevance arrives at the layer: the score reads it through gates and attention weights alone, "
                "which are constants of these rules, or not at all; choose another layer, or use gradcam"
            )
        return found[self.at]

    def reads_images(self, node: Any) -> bool:
        """Whether an argument is the image, at most scaled, shifted, padded or moved."""
        if node is self.at or not isinstance(node, Node):
            return node is self.at
        inner = [n for n in node.all_input_nodes if n in self.live]
        plain = kind(node) in (*ROUTES, "add", "sub", "mul", "div", "to", "_to_copy")
        return plain and len(inner) == 1 and self.reads_images(inner[0])

    def gate(self, node: Node) -> int:
        """How much an operation looks like a gate: 2 for sigmoids and softmaxes, 1 for what saturates otherwise."""
        name, inner = kind(node), [n for n in node.all_input_nodes if n in self.live]
        if name in GATES:
            return GATES[name]
        moved = name in (*ROUTES, "mul", "div", "dropout", "to", "_to_copy") and len(inner) == 1
        return self.gate(inner[0]) if moved else 0
