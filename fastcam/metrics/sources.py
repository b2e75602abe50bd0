"""Where maps come from: a `CAM`, or any function; and several of them on one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fastcam.cam import CAM, Explanation
from fastcam.scorer import Tally, counting
from fastcam.scoring import Budget, Chunks, score_rows
from fastcam.streams import Writer
from fastcam.targets import ClassesOf
from fastcam.together import explain_together

from .protocols import Protocol
from .registry import MetricInfo

if TYPE_CHECKING:
    from .batch import Batch


LINEAR = {2: "linear", 3: "bilinear", 4: "trilinear"}  # by the axes of maps (B, ...)


@dataclass
class Seen:
    """The maps of a batch for one class an image.

    Attributes:
        maps: (B, H, W) in [0, 1].
        small: (B, h, w) in [0, 1] at the layer's size, where there is such a thing.
        logits: (B, classes)
        classes: (B,) explained.
        cost: what the maps took.
    """

    maps: Tensor
    small: Tensor | None
    logits: Tensor
    classes: Tensor
    cost: Tally


def min_max(maps: Tensor) -> Tensor:
    """(m - min) / (max - min) of each map, zeros where it is constant. (B, h, w), (B, l) or (B, d, h, w)"""
    low, high = (one.view(-1, *[1] * (maps.dim() - 1)) for one in maps.flatten(1).aminmax(dim=1))
    return ((maps - low) / torch.where(high > low, high - low, 1)).masked_fill(high <= low, 0)


class FunctionScorer:
    """Runs a function of images as a `fastcam.scorer.Scorer` runs a model, in fixed chunks.

    Args:
        score: images (n, C, H, W) -> logits (n, classes).
        batch_size: images in one call.
    """

    def __init__(self, score: Callable[[Tensor], Tensor], batch_size: int = 16) -> None:
        self.score, self.budget = score, Budget(batch_size)

    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, classes)"""
        logits = self.score(images)
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(images):
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"score must give logits ({len(images)}, classes) for {len(images)} images, got {shape}")
        return logits

    def stream(
        self,
        like: Tensor,
        rows: int,
        fill: Callable[[int, int, Tensor], None],
        score: Callable[[Any, int, int], Tensor],
    ) -> Tensor:
        """See `fastcam.scorer.Scorer.stream`."""
        if rows == 0:
            return like.new_zeros((1, 0))
        chunks = Chunks(rows, 1, "function", {}, self.budget.batch_size, None, like.device)
        shape = tuple(like.shape[1:])
        writer = Writer(shape, like.dtype, like.device, channels_last=len(shape) == 3 and shape[0] > 1)
        return score_rows(chunks, writer, fill, lambda images, start, stop: self(images), score)


@dataclass
class Source:
    """A method under its name.

    Attributes:
        name: in results.
        cam: a `CAM`, or (images, target=(B,)) -> maps (B, H, W) in [0, 1].
        scorer: runs the model alone.
    """

    name: str
    cam: Any
    scorer: Any

    def explain(self, images: Tensor, classes: Tensor, protocol: Protocol) -> Seen:
        """The maps of other images for these classes (B,)."""
        if isinstance(self.cam, CAM):
            return seen(self.cam, self.cam.explain(images, target=classes), protocol)[0]
        with counting() as cost:
            logits = self.scorer(images)
            maps = self._call(images, classes)
        return Seen(maps, None, logits, classes, cost)

    def _call(self, images: Tensor, classes: Tensor) -> Tensor:
        maps = self.cam(images, target=classes)
        expected = (len(images), *images.shape[2:])
        if not isinstance(maps, Tensor) or tuple(maps.shape) != expected:
            shape = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
            raise ValueError(f"{self.name} must give maps {expected} for these images, got {shape}")
        low, high = float(maps.amin()), float(maps.amax())
        if not (low >= 0 and high <= 1):
            raise ValueError(f"{self.name} gave maps from {low:g} to {high:g}; scale them to [0, 1]")
        return maps.float()

    def check(self, infos: Sequence[MetricInfo], protocol: Protocol) -> None:
        """Raise if a metric or the protocol asks for what only a `CAM` has."""
        if isinstance(self.cam, CAM):
            return
        if any(info.name == "randomization" for info in infos):
            raise ValueError(f"randomization changes a copy of the model: {self.name} must be a CAM, or leave it out")
        if protocol.grid == "layer" or protocol.upsample != "bilinear":
            raise ValueError(
                f"protocol {protocol.name!r} works on maps at the layer's size: {self.name} must be a CAM, or "
                "choose another protocol"
            )

    def settings(self) -> dict[str, Any]:
        """What decides its maps, as plain values."""
        if not isinstance(self.cam, CAM):
            return {"method": self.name}
        layer = self.cam.layer if self.cam.layer is None or isinstance(self.cam.layer, str) else self.cam.layer_names
        return {"method": self.cam.name, "options": self.cam.settings, "layer": layer}


def sources_of(cams: Any, score: Callable[[Tensor], Tensor] | None) -> dict[str, Source]:
    """Methods under their names, all scored by the same model.

    Args:
        cams: one, or several by name.
        score: images -> logits, where none is a `CAM`.

    Raises:
        TypeError: one can give no maps, or nothing can score its images.
        ValueError: `CAM`s that run different models, or one beside another `score`: the scores of two models
            would enter one number; or names that cannot be.
    """
    if not isinstance(cams, Mapping):
        cams = {cams.name if isinstance(cams, CAM) else getattr(cams, "__name__", "method"): cams}
    elif not cams or "center" in cams:
        raise ValueError(f"cams must name at least one method, and none 'center', got {list(cams)}")
    for name, cam in cams.items():
        if not callable(cam):
            kind = type(cam).__name__
            raise TypeError(f"{name} must be a CAM or a callable (images, target=...) -> maps, got {kind}")
    own = {name: cam for name, cam in cams.items() if isinstance(cam, CAM)}
    if not own and score is None:
        name = next(iter(cams))
        raise TypeError(f"{name} is no CAM, so nothing here can run its model: give score=, images -> logits")
    if own and score is not None:
        raise ValueError(f"{next(iter(own))} is a CAM and scored by its own model; leave out score=")
    runs = {
        name: (id(cam.network.model), repr(cam.network.selector), cam.network.precision) for name, cam in own.items()
    }
    odd = [name for name, run in runs.items() if run != next(iter(runs.values()))]
    if odd:
        raise ValueError(
            f"{odd[0]} and {next(iter(runs))} run different models, outputs or precisions; make an Evaluation for each"
        )
    scorer = next(iter(own.values())).scorer if score is None else FunctionScorer(score)
    return {name: Source(name, cam, cam.scorer if isinstance(cam, CAM) else scorer) for name, cam in cams.items()}


def seen(cam: CAM, explanation: Explanation, protocol: Protocol) -> list[Seen]:
    """An explanation as the protocol looks at it, one for each of its T classes."""
    assert isinstance(explanation.target, Tensor)
    several = explanation.target.dim() == 2
    classes = explanation.target if several else explanation.target[:, None]
    maps = explanation.maps if several else explanation.maps[:, None]
    found = []
    for t in range(classes.shape[1]):
        full, small = maps[:, t], None
        if protocol.grid == "layer" or protocol.upsample != "bilinear" or not protocol.rescale:
            if not isinstance(explanation.raw, Tensor):
                raise ValueError(f"protocol {protocol.name!r} works on maps of one layer, got {explanation.layer}")
            raw = explanation.raw if several else explanation.raw[:, None]
            signed = cam.method.clip(cam.options) == "never"
            small = min_max((raw[:, t] if signed else raw[:, t].relu()).float())
            if protocol.upsample != "bilinear" or not protocol.rescale:
                # Pillow's bicubic has a = -0.5, which torch takes with antialias only; OpenCV's has a = -0.75.
                mode = LINEAR[full.dim()] if protocol.upsample == "bilinear" else "bicubic"
                size, pillow = tuple(full.shape[1:]), protocol.upsample == "pillow"
                full = interpolate(small[:, None], size, mode=mode, antialias=pillow)[:, 0]
                full = min_max(full) if protocol.rescale else full
        found.append(Seen(full, small, explanation.logits, classes[:, t], explanation.cost))
    return found


def together(sources: Sequence[Source], batch: Batch, which: Sequence[str]) -> tuple[list[list[Seen]], Tally]:
    """The maps of every method for the predicted classes, for the labels, or for both in this order.

    Args:
        sources: the methods.
        batch: its images and labels.
        which: "predicted", "target", or both.

    Returns:
        For each method one `Seen` for each of `which`; and what all of it took.
    """
    images, labels = batch.images, batch.target
    cams = [source for source in sources if isinstance(source.cam, CAM)]

    def choose(logits: Tensor) -> Tensor:
        chosen = [logits.argmax(1) if name == "predicted" else labels for name in which]
        return torch.stack([one for one in chosen if one is not None], 1)

    found: dict[str, list[Seen]] = {}
    with counting() as cost:
        explanations = explain_together([source.cam for source in cams], images, ClassesOf(choose)) if cams else []
        for source, explanation in zip(cams, explanations, strict=True):
            found[source.name] = seen(source.cam, explanation, batch.protocol)
        others = [source for source in sources if source.name not in found]
        logits = explanations[0].logits if explanations else batch.scorer(images) if others else None
        for source in others:
            assert logits is not None
            with counting() as own:
                columns = choose(logits).unbind(1)
                maps = [source._call(images, classes) for classes in columns]
            found[source.name] = [Seen(m, None, logits, c, own) for m, c in zip(maps, columns, strict=True)]
    return [found[source.name] for source in sources], cost
