"""One call of a meta-method: the classes that the original images fix, and the inner method on versions of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastcam.explanation import Explanation
from fastcam.model.outputs import widen
from fastcam.model.structure import row_bytes
from fastcam.scorer import ROW_SLACK
from fastcam.scoring import Chunks
from fastcam.targets import Target, TargetSpec, resolve

if TYPE_CHECKING:
    from fastcam.cam import CAM


@dataclass
class Seen:
    """The inner method's maps of some versions.

    Attributes:
        start: which of the versions is the first.
        image: (n,) of which image each is a version.
        maps: (n, T, H, W) in [0, 1].
        logits: what the model gave for them.
    """

    start: int
    image: Tensor
    maps: Tensor
    logits: Any


def in_turn(batch: int, version: Callable[[int], Tensor]) -> Callable[[int, int], Tensor]:
    """Rows of versions 0, 1, ... of a batch, each version made once, for `Call.stream`.

    Args:
        batch: B.
        version: n -> the n-th version of all images (B, C, H, W).

    Returns:
        (start, stop) -> rows (n, C, H, W); row i is of image i % B.
    """
    made: tuple[int, Tensor] = (-1, torch.empty(0))

    def make(start: int, stop: int) -> Tensor:
        nonlocal made
        parts = []
        for n in range(start // batch, (stop - 1) // batch + 1):
            if made[0] != n:
                made = (n, version(n))
            parts.append(made[1][max(start - n * batch, 0) : stop - n * batch])
        return torch.cat(parts)

    return make


@dataclass
class Call:
    """What was asked, and the inner method to ask.

    Attributes:
        cam: the inner method, which may be a meta-method itself.
        images: (B, C, H, W)
        args: further inputs of the model.
        kwargs: the same by name.
        asked: the target as it was given.
        differentiable: keep the graph.
    """

    cam: CAM
    images: Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    asked: TargetSpec
    differentiable: bool

    @cached_property
    def own(self) -> Explanation:
        """The inner method's maps of the images themselves."""
        return self.cam.explain(
            self.images, *self.args, target=self.asked, differentiable=self.differentiable, **self.kwargs
        )

    @cached_property
    def logits(self) -> Any:
        """Of the images themselves; a forward of its own where `own` was not asked for before."""
        if "own" in self.__dict__:
            return self.own.logits
        logits = self.cam.scorer(self.images, *self.args, **self.kwargs)
        return logits.clone() if isinstance(logits, Tensor) and logits.is_inference() else logits

    @cached_property
    def target(self) -> Target:
        """What is explained, in every version alike."""
        return resolve(self.asked, self.logits, len(self.images))

    def target_of(self, image: Tensor) -> Target:
        """The target of a batch of versions of these images (n,)."""
        fixed = self.target
        if fixed.classes is not None:
            return Target(fixed.classes[image.to(fixed.classes.device)], (), fixed.single, len(image))
        functions = fixed.functions
        functions = functions if len(functions) == 1 else tuple(functions[i] for i in image.tolist())
        return Target(None, functions, fixed.single, len(image))

    def score(self, logits: Any, image: Tensor) -> Tensor:
        """The scores (n, T) of versions: of classes the softmax probability, of callables what they give."""
        target = self.target_of(image)
        return target.score(logits if target.classes is None else widen(logits).softmax(1)).float()

    @property
    def own_maps(self) -> Tensor:
        """Those of `own`, (B, T, H, W)."""
        maps = self.own.maps
        return self.shaped(maps)

    def shaped(self, maps: Tensor) -> Tensor:
        """An explanation's maps with the T axis that a single target leaves out."""
        return maps[:, None] if self.target.single else maps

    def stream(self, image: Tensor, make: Callable[[int, int], Tensor]) -> Iterator[Seen]:
        """The inner method on versions, as many at a time as memory allows and is fastest.

        Args:
            image: (rows,) of which image each row is a version.
            make: (start, stop) -> these rows (n, C, H, W).
        """
        network, budget = self.cam.network, self.cam.budget
        rows, known = len(image), network.facts.row_bytes

        def run(start: int, stop: int) -> Seen:
            x = make(start, stop).to(self.images)
            if x.dim() == 4 and x.shape[1] > 1:  # as the rows of every other stream: convolutions then run that way
                x = x.contiguous(memory_format=torch.channels_last)
            return self._explained(x, image[start:stop], start)

        if self.runs_many:
            yield from (run(start, min(start + len(self.images), rows)) for start in range(0, rows, len(self.images)))
            return
        first = 0
        shape = tuple(make(0, 1).shape[1:])
        layer = self.cam.layer
        layer = layer if layer is None or isinstance(layer, str) else id(layer)
        key = (self.cam.method.name, layer, shape, self.images.dtype, self.images.device, network.precision)
        if key not in known:
            found: list[Seen] = []
            known[key] = int(ROW_SLACK * row_bytes(network.model, lambda: found.append(run(0, 1))))
            yield found[0]
            first = 1
        mapped = 8 * self.target.count * math.prod(shape[1:])  # bytes of a row's maps, and of a copy
        chunks = Chunks(
            rows - first,
            known[key] + mapped,
            key,
            network.facts.tunings,
            budget.batch_size,
            budget.max_memory,
            self.images.device,
        )
        for start, stop in chunks:
            yield run(first + start, first + stop)

    @property
    def runs_many(self) -> bool:
        """Whether the inner method runs many images for each one, in chunks of its own."""
        own = self.cam.options.keys() & {"samples", "steps"}
        return bool(self.cam.metas or own) or "scores" in self.cam.method.needs

    def _of(self, value: Any, image: Tensor) -> Any:
        """A further input of the model, for versions of these images."""
        if not isinstance(value, Tensor) or not value.dim() or len(value) != len(self.images):
            return value
        return value[image.to(value.device)]

    def _explained(self, x: Tensor, image: Tensor, start: int) -> Seen:
        """The inner method on one chunk."""
        target = self.target_of(image)
        spec: TargetSpec = "all" if isinstance(self.asked, str) else target.classes
        if spec is None:
            spec = target.functions[0] if len(target.functions) == 1 else list(target.functions)
        elif isinstance(spec, Tensor) and target.single:
            spec = spec[:, 0]
        found = self.cam.explain(
            x,
            *(self._of(v, image) for v in self.args),
            target=spec,
            differentiable=self.differentiable,
            **{name: self._of(v, image) for name, v in self.kwargs.items()},
        )
        return Seen(start, image, self.shaped(found.maps), found.logits)
