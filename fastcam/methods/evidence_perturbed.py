"""What methods ask that change images and look at the scores: perturbations, grouped and layered masks, searches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from .evidence import Options


class Versions(Protocol):
    """Changed versions of any image of one size, made as they are needed."""

    @property
    def count(self) -> int:
        """How many there are, N."""
        ...

    def write(self, image: Tensor, start: int, stop: int, out: Tensor) -> None:
        """Write versions [start, stop) of the image (1, C, H, W) into out (n, C, H, W)."""
        ...


@dataclass(frozen=True)
class PerturbedScores:
    """The versions, `s` (B, T, N) their scores, and `y` (B, T): scores of the image itself.

    All images and targets of a batch share the versions, and all versions of all images go in one stream.

    Attributes:
        make: (options, images (B, C, H, W)) -> the versions, the same for every image.
        count: how many forwards the versions take, in words.
    """

    make: Callable[[Options, Tensor], Versions]
    count: str
    at: ClassVar[str] = "input"
    grad: ClassVar[bool] = False
    needs: ClassVar[str] = "scores of perturbed images"

    @property
    def cost(self) -> str:
        """In forwards F."""
        return f"(1 + {self.count}) F"


@dataclass(frozen=True)
class GroupScores:
    """`maps` (B, T, G, h, w), `s` (B, T, G): scores of the image seen through each, `base` (B, T): of none of it.

    Attributes:
        group: (activations, gradients, options) -> the maps.
        hide: (images, options) -> the images as they look where a mask is zero, in float32 at least.
    """

    group: Callable[[Tensor, Tensor, Options], Tensor]
    hide: Callable[[Tensor, Options], Tensor]
    at: ClassVar[str] = "layer"
    ranks: ClassVar[tuple[int, ...]] = (2,)
    grad: ClassVar[bool] = True
    needs: ClassVar[str] = "gradients at the layer, and scores of masked images"
    cost: ClassVar[str] = "(2 + targets x groups) F + 1 tail backward; GAP tail: no backward"


@dataclass(frozen=True)
class LayeredGradients:
    """For each of several layers `a` (B, C, h, w) and `g` = dS/dA (B, T, C, h, w); and the images' (H, W)."""

    at: ClassVar[str] = "layers"
    ranks: ClassVar[tuple[int, ...]] = (2,)
    grad: ClassVar[bool] = True
    needs: ClassVar[str] = "gradients at several layers"
    cost: ClassVar[str] = "1 F + 1 backward down to the first layer"


@dataclass(frozen=True)
class LayeredScores:
    """For each of several layers `a` (B, C, h, w) and the scores of the image under its masks; and `y` (B, T).

    Attributes:
        masks: activations (C, h, w) -> masks in [0, 1] before they are resized.
        signs: options -> which images are scored: "+" through each mask, "-" without what it shows.
    """

    masks: Callable[[Tensor], Tensor]
    signs: Callable[[Options], tuple[str, ...]]
    at: ClassVar[str] = "layers"
    ranks: ClassVar[tuple[int, ...]] = (2,)
    grad: ClassVar[bool] = False
    needs: ClassVar[str] = "scores of images masked by several layers"
    cost: ClassVar[str] = "(1 + signs x K) F, K the distinct channels of all layers"


@dataclass(frozen=True)
class OptimizedScores:
    """`weights` (B, T, C) of the activations `a` (B, 1, C, h, w), found by steps along the gradient of a score.

    Attributes:
        start: activations (B, C, h, w) -> the first parameters (B, C).
        mask: (parameters (n, C), activations (n, C, h, w), (H, W)) -> masks (n, 1, H, W), with a graph.
        loss: (scores of the images (n,), scores under the masks (n,), options) -> (n,)
    """

    start: Callable[[Tensor], Tensor]
    mask: Callable[[Tensor, Tensor, tuple[int, int]], Tensor]
    loss: Callable[[Tensor, Tensor, Options], Tensor]
    at: ClassVar[str] = "layer"
    ranks: ClassVar[tuple[int, ...]] = (2,)
    grad: ClassVar[bool] = False
    needs: ClassVar[str] = "gradients of the scores of masked images"
    cost: ClassVar[str] = "1 F + targets x steps x (1 F + 1 backward)"


class Search(Protocol):
    """A search for the places of an image that matter: ask for places, tell what each is worth, until done."""

    @property
    def done(self) -> bool:
        """Whether it asks for no more."""
        ...

    def ask(self) -> list[tuple[float, float]]:
        """Places (x, y) in [0, 1] x [0, 1]."""
        ...

    def tell(self, points: list[tuple[float, float]], values: list[float]) -> None:
        """Take the values of these places, the less the better."""
        ...


@dataclass(frozen=True)
class SearchedScores:
    """`spots` (B, T, S, N, 2), the places (x, y) that S searches looked at, and what each is worth, (B, T, S, N).

    All searches of all images and targets go on side by side, and what they ask for in a round goes in one stream.

    Attributes:
        searches: options -> the S searches of one image and target.
        make: (which search and where, of each spot: (n,), (n, 2), options, images) -> the versions to score.
        worth: (scores (T, rows) of the versions, options) -> (T, n), the more the better.
    """

    searches: Callable[[Options], Sequence[Search]]
    make: Callable[[Tensor, Tensor, Options, Tensor], Versions]
    worth: Callable[[Tensor, Options], Tensor]
    at: ClassVar[str] = "input"
    ranks: ClassVar[tuple[int, ...]] = (2,)
    grad: ClassVar[bool] = False
    needs: ClassVar[str] = "scores of perturbed images, one round after another"
    cost: ClassVar[str] = "(1 + targets x widths x samples x objectives) F"


Perturbed = PerturbedScores | GroupScores | LayeredGradients | LayeredScores | OptimizedScores | SearchedScores
