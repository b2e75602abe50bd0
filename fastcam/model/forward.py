"""One forward of a network, and what can be asked of it: gradients, and a tail to run again."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from . import tally
from .capture import Captured
from .layers import INPUT
from .pooled import PooledTail
from .reshape import Reshaped
from .split import Split, cut
from .tails import CutTail, WholeModel

if TYPE_CHECKING:
    from .network import Network


@dataclass
class Forward:
    """One forward of the network, seen at one layer.

    Attributes:
        captured: the layer's output; `.maps` are the activations (B, C, h, w).
        output: what the model returned.
        logits: what is scored.
        pooled: the pooled tail, if this forward proved one.
        shared: whether several methods ask it: their gradients are then computed once, and the graph kept.
        watch: under what it ran, see `rules.ruled`.
    """

    network: Network
    images: Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    captured: Captured
    output: Any
    logits: Any
    pooled: PooledTail | None
    shared: bool = False
    watch: Any = None

    def __post_init__(self) -> None:
        self._known: list[tuple[Tensor, Tensor]] = []

    @cached_property
    def split(self) -> Split | None:
        """The network cut at the layer, made once for a model, layer and input shape; None where it cannot be."""
        model, images = self.network.model, self.images
        if isinstance(self.captured.layout, Reshaped):
            self.captured.layout.require_one()
        # What torch.export holds for constant: inputs that are no tensors, shapes, and the modules themselves.
        leaves = pytree.tree_leaves((self.args, self.kwargs))
        inputs = tuple((tuple(v.shape[1:]), v.dtype) if isinstance(v, Tensor) else repr(v) for v in leaves)
        key = (
            self.captured.name,
            tuple(images.shape[1:]),
            images.device,
            self.network.precision,
            len(self.args),
            tuple(self.kwargs),
            inputs,
            (tuple(map(id, model.modules())), tuple((p.data_ptr(), p.dtype) for p in model.parameters())),
        )
        splits = self.network.facts.splits
        if key not in splits:
            for stale in [k for k in splits if k[:-1] == key[:-1]]:
                del splits[stale]
            with self.network.running(images.device, autograd=True):
                splits[key] = (
                    isinstance(self.logits, Tensor)
                    and cut(
                        model,
                        self.captured.name,
                        (images, *self.args),
                        self.kwargs,
                        self.captured.output.detach(),
                        self.logits.detach(),
                        self.network.select,
                    )
                ) or None
            if splits[key] is None and self.captured.name != INPUT:
                warnings.warn(
                    f"{type(model).__name__} cannot be cut at {self.captured.name!r} by torch.export; masked "
                    "forwards there run the whole model, which is exact but slower",
                    stacklevel=2,
                )
        return splits[key]

    @cached_property
    def parts(self) -> tuple[Tensor, list[Tensor]]:
        """A in the layer's own layout, and what bypasses the layer; where nothing does, no second head runs."""
        assert self.split is not None
        if not self.split.batched:
            return self.captured.output.detach(), []
        with self.network.running(self.images.device, autograd=True):
            return self.split.run_head((self.images, *self.args), self.kwargs)

    @cached_property
    def tail(self) -> Callable[[Tensor, int], Any]:
        """The cheapest proved way from activations of one image to logits: (maps (n, C, h, w), image) -> (n, ...)."""
        if self.pooled is not None:
            return self.pooled
        return CutTail(self, self.split) if self.split is not None else WholeModel(self)

    def gradients(
        self, score: Callable[[Any], Tensor], classes: Tensor | None, *, create_graph: bool = False
    ) -> Tensor:
        """dS/dA: closed form behind a pooled tail, a backward through the tail elsewhere.

        Args:
            score: logits -> (B, T)
            classes: (B, T) when the score is these classes' logits, else None.
            create_graph: keep the graph of the gradients.

        Returns:
            (B, T, C, h, w), or (B, T, C, 1, 1) where it is the same at every cell.
        """
        if self.pooled is not None and not create_graph:
            with torch.no_grad():
                return self.pooled.gradients(self.captured.maps.detach(), score, classes)
        for known, gradients in self._known:
            if classes is not None and torch.equal(known, classes):
                return gradients
        (gradients,) = gradients_together([self], score, create_graph=create_graph)
        if self.shared and classes is not None and not create_graph:
            self._known.append((classes, gradients))
        return gradients

    def no_gradient(self) -> ValueError:
        """What to raise where the score does not depend on the layer."""
        return ValueError(
            f"the score does not depend on layer {self.captured.name!r} through differentiable operations; choose "
            "a layer on the path to the output, a target that is a function of the logits, or a method without "
            "gradients (scorecam, ablationcam, reciprocam, eigencam)"
        )


def gradients_together(
    forwards: list[Forward], score: Callable[[Any], Tensor], *, create_graph: bool = False
) -> list[Tensor]:
    """dS/dA at several layers of one recorded forward, with one backward for each target.

    Args:
        forwards: of one run of the network, each seen at another layer.
        score: logits -> (B, T)
        create_graph: keep the graph of the gradients.

    Returns:
        (B, T, C, h, w) of each layer.

    Raises:
        ValueError: the score does not depend on one of the layers.
    """
    first, outputs = forwards[0], [one.captured.output for one in forwards]
    with torch.inference_mode(False), torch.enable_grad():
        scores = score(first.logits)
        columns = scores.shape[1]
        rows: list[list[Tensor]] = [[] for _ in forwards]
        for t in range(columns):
            tally.count(backwards=len(first.images))
            if not scores.requires_grad:
                raise first.no_gradient()
            keep = create_graph or first.shared or t + 1 < columns
            found = torch.autograd.grad(
                scores[:, t].sum(), outputs, retain_graph=keep, create_graph=create_graph, allow_unused=True
            )
            for one, g, row in zip(forwards, found, rows, strict=True):
                if g is None:
                    raise one.no_gradient()
                row.append(one.captured.layout.maps(g))
    return [torch.stack(row, 1) for row in rows]
