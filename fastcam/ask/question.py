"""One call's question to a network, and what every kind of evidence needs to answer it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fastcam import ops
from fastcam.methods.activations import principal
from fastcam.methods.registry import Method
from fastcam.model import rules
from fastcam.model.forward import Forward
from fastcam.model.layers import LayerSpec
from fastcam.model.network import Network
from fastcam.model.outputs import widen
from fastcam.model.tokens import cells_of, spread
from fastcam.scoring import Budget
from fastcam.targets import Target, TargetSpec

Options = dict[str, Any]


@dataclass
class Sights:
    """Forwards that several questions share, and which of those need gradients."""

    forwards: dict[Any, list[Forward]] = field(default_factory=dict)
    with_gradients: set[Any] = field(default_factory=set)


@dataclass
class Question:
    """One call: a method, what it is asked about, and what it may use.

    Attributes:
        method: with its resolved `options`.
        network: to ask.
        images: (B, C, H, W)
        args: further inputs of the model.
        kwargs: the same by name.
        layer: where.
        target: what is explained.
        budget: chunk size and memory of masked forwards.
        differentiable: keep the graph.
        sights: forwards of these images that other questions share.
        combine: how the weighed channels become one map, see `combine`.
    """

    method: Method
    options: Options
    network: Network
    images: Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    layer: LayerSpec
    target: TargetSpec
    budget: Budget
    differentiable: bool = False
    sights: Sights | None = None
    combine: str = "sum"

    @property
    def sight(self) -> Any:
        """What questions must have in common to share a forward; their images and other inputs are the same."""
        layer = self.layer if self.layer is None or isinstance(self.layer, str) else id(self.layer)
        network = self.network
        return (id(network.model), repr(network.selector), network.precision, id(network.reshape), layer, self.rule)

    @property
    def rule(self) -> str | None:
        """Under which rule its forwards run, see `rules.ruled`."""
        return getattr(self.method.evidence, "rule", None)

    def look(self, images: Tensor, times: int = 1) -> list[Forward]:
        """One forward at the layers, with gradients where the method needs them.

        Args:
            images: (times * B, C, H, W), versions of the B images, all in turn.
            times: how many.
        """
        grad = self.method.evidence.grad
        shared = self.sights if images is self.images else None
        if shared is not None and self.sight in shared.forwards:
            return shared.forwards[self.sight]
        if shared is not None:
            grad = self.sight in shared.with_gradients
        args = [self._repeated(v, times) for v in self.args]
        kwargs = {name: self._repeated(v, times) for name, v in self.kwargs.items()}
        with rules.ruled(self.rule) as watch:
            forwards = self.network.forward(
                images, tuple(args), kwargs, self.layer, grad=grad, differentiable=self.differentiable
            )
        for forward in forwards:
            forward.watch = watch
        if shared is not None:
            shared.forwards[self.sight] = forwards
            for forward in forwards:
                forward.shared = True
        return forwards

    def _repeated(self, value: Any, times: int) -> Any:
        """A further input of the model, for so many versions of each image."""
        if times == 1 or not isinstance(value, Tensor) or not value.dim() or len(value) != len(self.images):
            return value
        return value.repeat(times, *[1] * (value.dim() - 1))

    def weigh(self, *evidence: Any) -> Tensor:
        """The method's weights, or its map."""
        return self.method(self.options, *evidence)


@dataclass
class Answer:
    """Signed maps of one layer, (B, T, h, w), and the forward they stand on.

    Attributes:
        raw: (B, T, h, w), of signals and volumes as `Layout.maps` shows them.
        forward: of the images.
        target: as it was resolved.
        attributions: (B, T, C, H, W) signed, of methods that explain the image itself; likewise.
        layers: names of the layers that the maps join, where they join several.
    """

    raw: Tensor
    forward: Forward
    target: Target
    attributions: Tensor | None = None
    layers: tuple[str, ...] = ()

    def spread(self, size: tuple[int, ...]) -> Tensor:
        """`raw` in the shape of the layer's cells, or of the images: (B, T, l), (B, T, h, w) or (B, T, d, h, w).

        Args:
            size: of the images, (L,), (H, W) or (D, H, W).
        """
        shape = self.forward.captured.layout.shape
        return spread(self.raw, shape if tuple(self.raw.shape[-2:]) == cells_of(shape) else size)

    def spread_attributions(self, size: tuple[int, ...]) -> Tensor | None:
        """`attributions` in the shape of the images."""
        return None if self.attributions is None else spread(self.attributions, size)


def activations_of(forward: Forward) -> Tensor:
    """The activations in float32 at least. (B, C, h, w)"""
    return widen(forward.captured.maps)


def combine(question: Question, a: Tensor, evidence: tuple[Tensor, ...]) -> Tensor:
    """Weigh and sum: Σ_k w_k A_k, or the map the method gives itself; or the principal component of the w_k A_k.

    Args:
        question: its method weighs.
        a: (B, C, h, w)
        evidence: what the method asked for besides a.

    Returns:
        (B, T, h, w), signed.
    """
    weights = question.weigh(a[:, None], *evidence)
    if question.method.gives_map:
        return weights
    if question.combine == "eigen":
        weighed = weights * a[:, None]
        return principal(weighed, centered=True).to(weighed.dtype)
    if weights.shape[-2:] == (1, 1):
        return ops.weighted_sum(a, weights[..., 0, 0])
    return (weights * a[:, None]).sum(-3)


def every_class_in_one_pass(question: Question, forward: Forward, what: str) -> None:
    """Raise where target="all" would need a pass for each class."""
    if isinstance(question.target, str) and question.target == "all" and forward.pooled is None:
        raise ValueError(
            f"target='all' needs {what} for every class from one pass, which {question.method.name} has only where "
            f"global average pooling follows layer {forward.captured.name!r}; pass TopK(k) or the classes you need, "
            "or use reciprocam or scorecam"
        )


def own_pass_a_class(question: Question, what: str) -> None:
    """Raise where target="all" would need a pass for each class, wherever the layer."""
    if isinstance(question.target, str) and question.target == "all":
        raise ValueError(
            f"target='all' would take {what} of its own for every class, {question.method.name} shares none between "
            "classes; pass TopK(k) or the classes you need, or use reciprocam or scorecam"
        )
