"""EVET: maps of transformed images, taken back and averaged."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from fastcam.model.outputs import widen

from .base import Meta
from .call import Call, in_turn
from .geometry import Flip, Identity, Rotate, Scale, Translate
from .intensity import Bilateral, Brightness, Clahe, Contrast, Equalize, Gamma, Median

SEEN = 1e-3  # less of a pixel that a transformed image shows is rounding


class Transform(Protocol):
    """What `Evet` asks of a transformation; with an attribute `pixels = True` it gets pixel values, cut to [0, 1]."""

    def apply(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)"""
        ...

    def invert(self, maps: Tensor) -> Tensor:
        """(B, T, H, W) maps of transformed images to where the image was, zero where nothing of it was seen."""
        ...


GEOMETRIC: dict[str, list[Transform]] = {
    "flip": [Flip()],
    "rotate": [Rotate(-15), Rotate(15)],
    "scale": [Scale(0.8), Scale(1.25)],
    "translate": [Translate(right=-0.1), Translate(right=0.1), Translate(down=-0.1), Translate(down=0.1)],
}
INTENSITY: dict[str, list[Transform]] = {
    "contrast": [Contrast(0.75), Contrast(1.25)],
    "brightness": [Brightness(0.75), Brightness(1.25)],
    "gamma": [Gamma(0.75), Gamma(1.25)],
    "equalize": [Equalize()],
    "clahe": [Clahe()],
    "bilateral": [Bilateral()],
    "median": [Median()],
}
NAMED = {"identity": [Identity()], **GEOMETRIC, **INTENSITY}
GROUPS = {
    "geometric": ["identity", *GEOMETRIC],
    "intensity": ["identity", *INTENSITY],
    "all": list(NAMED),
}


@dataclass(frozen=True)
class Evet(Meta):
    """Enhancing visual explanations by transformations (Oh 2021): mean_t t⁻¹(m(t(x))), for the class of x itself.

    The paper's text could not be had, nor is there code: that maps of four kinds of geometrically transformed images
    are taken back and combined is known from what others write of it. Ours are the kinds and their sizes (a horizontal
    flip; 15 degrees both ways; 0.8 and 1.25 times; a tenth of the sides in four directions; and the image itself), that
    each map is scaled to [0, 1] before the mean, that edges are mirrored into what opens, that a pixel's mean is over
    the images which show it, and the weights by score. The intensity transformations are an extension, their sizes
    ours too.

    Args:
        base: the method inside.
        transforms: "geometric", "intensity", "all", or a list of names (identity, flip, rotate, scale, translate,
            contrast, brightness, gamma, equalize, clahe, bilateral, median) and objects with `apply` and `invert`.
        weight: "uniform", or "score": by the softmax probability of the class in t(x); of callables by their value, at
            least 0.
        mean: of the images' normalization, one a channel, for transformations of pixel values; None where the images
            are in [0, 1] themselves.
        std: likewise.

    Raises:
        ValueError: an unknown transformation or one without an inverse; when images are given, a normalization that
            is needed and not known.
    """

    _: KW_ONLY
    transforms: str | Sequence[str | Transform] = "geometric"
    weight: str = "uniform"
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    formula: ClassVar[str] = "mean_t t^-1(m(t(x)))"
    paper: ClassVar[str] = "Oh 2021, WACV; its text could not be had"
    cost: ClassVar[str] = "transformations x R (10 geometric, 11 intensity, 20 all)"

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        if self.weight not in ("uniform", "score"):
            raise ValueError(f"evet: weight={self.weight!r} is not one of 'uniform', 'score'")
        if (self.mean is None) != (self.std is None):
            raise ValueError("evet: mean and std are given together, one number a channel")
        if not self.chosen:
            raise ValueError("evet: transforms is empty; give 'geometric', 'intensity', 'all' or a list of names")

    @cached_property
    def chosen(self) -> list[Transform]:
        """The transformations as objects."""
        given = self.transforms
        if isinstance(given, str):
            given = GROUPS.get(given, [given])
        found: list[Transform] = []
        for one in given:
            found += _named(one) if isinstance(one, str) else [_checked(one)]
        return found

    def combine(self, call: Call) -> Tensor:
        """Average."""
        x, batch, chosen = widen(call.images), len(call.images), self.chosen
        own = [t for t in chosen if isinstance(t, Identity)]
        total: Any = 0.0
        seen: Any = 0.0
        if own:  # first: this forward tells the classes, too
            maps = call.own_maps
            total = seen = torch.zeros_like(maps)
            weight = self._weight(call, call.logits, torch.arange(batch))
            for transform in own:
                total, seen = total + weight * transform.invert(maps), seen + weight
        others = [t for t in chosen if not isinstance(t, Identity)]
        if not others:
            return _ratio(total, seen)
        rows = in_turn(batch, lambda n: self._applied(others[n], x))
        shown: dict[int, Tensor] = {}
        for part in call.stream(torch.arange(batch).repeat(len(others)), rows):
            weight = self._weight(call, part.logits, part.image)
            which = [(part.start + i) // batch for i in range(len(part.maps))]
            if not isinstance(total, Tensor):
                total = seen = part.maps.new_zeros((batch, *part.maps.shape[1:]))
            for n in sorted(set(which)):
                own_rows = [i for i, one in enumerate(which) if one == n]
                if n not in shown:
                    shown = {n: others[n].invert(torch.ones_like(part.maps[:1, :1]))}
                    shown[n] = torch.where(shown[n] > SEEN, shown[n], 0)
                maps, image = part.maps[own_rows], part.image[own_rows].to(part.maps.device)
                back = others[n].invert(maps)
                _require_shape(others[n], "invert", back, maps)
                back = torch.where(shown[n] > 0, back, 0)
                total = total.index_add(0, image, weight[own_rows] * back)
                seen = seen.index_add(0, image, (weight[own_rows] * shown[n]).expand_as(back).contiguous())
        return _ratio(total, seen)

    def _weight(self, call: Call, logits: Any, image: Tensor) -> Tensor:
        """(n, T, 1, 1)"""
        if self.weight == "uniform":
            return torch.ones((len(image), 1, 1, 1), device=call.images.device)
        s = call.score(logits, image).clamp_min(0)[..., None, None]
        return s if call.differentiable else s.detach()

    def _applied(self, transform: Transform, x: Tensor) -> Tensor:
        """The transformed images, as the model takes them."""
        if not getattr(transform, "pixels", False):
            found = transform.apply(x)
            _require_shape(transform, "apply", found, x)
            return found
        mean, std = self._normalization(transform, x)
        found = transform.apply((x * std + mean).clamp(0, 1))  # noisy images go beyond
        _require_shape(transform, "apply", found, x)
        return (found - mean) / std

    def _normalization(self, transform: Transform, x: Tensor) -> tuple[Tensor, Tensor]:
        channels = x.shape[1]
        if self.mean is None or self.std is None:
            low, high = float(x.min()), float(x.max())
            if low < 0 or high > 1:
                raise ValueError(
                    f"evet: {_name(transform)} changes pixel values in [0, 1], and the images go from {low:.3g} to "
                    f"{high:.3g}; give the normalization they went through, mean= and std= of {channels} numbers"
                )
            return x.new_zeros((1, 1, 1)), x.new_ones((1, 1, 1))
        if not len(self.mean) == len(self.std) == channels:
            raise ValueError(
                f"evet: the images have {channels} channels, mean has {len(self.mean)} numbers and std {len(self.std)}"
            )
        return x.new_tensor(self.mean)[:, None, None], x.new_tensor(self.std)[:, None, None]


def _ratio(total: Tensor, seen: Tensor) -> Tensor:
    """Zero where nothing was seen."""
    return torch.where(seen > 0, total / torch.where(seen > 0, seen, 1), 0)


def _named(name: str) -> list[Transform]:
    if name not in NAMED:
        near = difflib.get_close_matches(name, [*NAMED, *GROUPS], n=3, cutoff=0.4) or list(NAMED)
        raise ValueError(
            f"evet: no transformation named {name!r}; nearest: {', '.join(near)}. Groups are {', '.join(GROUPS)}"
        )
    return NAMED[name]


def _name(transform: Any) -> str:
    return type(transform).__name__


def _checked(transform: Any) -> Transform:
    if not callable(getattr(transform, "apply", None)):
        raise TypeError(f"evet: a transformation is a name or has apply(images) and invert(maps), got {transform!r}")
    if not callable(getattr(transform, "invert", None)):
        raise ValueError(
            f"evet: {_name(transform)} has no inverse; give it invert(maps), which takes maps (B, T, H, W) back to "
            "where the image was, or returns them as they are where only values change"
        )
    return transform


def _require_shape(transform: Any, what: str, found: Any, expected: Tensor) -> None:
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"evet: {_name(transform)}.{what} must keep the shape, {tuple(expected.shape)}, and gave {got}; resize to "
            "it inside"
        )
