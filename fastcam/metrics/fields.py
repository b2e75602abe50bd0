"""What the fields of a protocol may be."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """What a value may be.

    Attributes:
        words: what is allowed, for a message.
        fits: whether a value is that.
    """

    words: str
    fits: Callable[[Any], bool]


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _shares(value: Any, top: Callable[[float], bool]) -> bool:
    return isinstance(value, tuple) and bool(value) and all(_number(one) and one > 0 and top(one) for one in value)


def _positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _one_of(*allowed: Any) -> Kind:
    # 8.0 == 8, but the op wants the int; True == 1 likewise.
    words = f"one of {', '.join(map(repr, allowed))}"
    return Kind(words, lambda value: any(type(value) is type(one) and value == one for one in allowed))


# Fields that many metrics read: those behind a map's values, and behind the score of a class.
MAP = ("upsample", "rescale")
SCORE = ("classes", "score")

TEXT = Kind("a text", lambda value: isinstance(value, str))
SWITCH = Kind("True or False", lambda value: isinstance(value, bool))
COUNT = Kind("a positive int", _positive)
START = _one_of("blur", "zero", "mean", "black")
NOT_NEGATIVE = Kind("a number of 0 or above", lambda value: _number(value) and value >= 0)

KINDS: dict[str, Kind] = {
    "name": TEXT,
    "source": TEXT,
    "score": _one_of("probability", "logit"),
    "classes": _one_of("predicted", "target"),
    "resize": _one_of("crop", "warp", "warp-crop"),
    "masking": _one_of("after", "before"),
    "upsample": _one_of("bilinear", "bicubic", "pillow"),
    "rescale": SWITCH,
    "grid": _one_of("image", "layer"),
    "drop": _one_of("relative", "absolute", "guarded"),
    "adcc": _one_of("means", "images"),
    "steps": Kind("a positive int, or None for one image row a step", lambda v: v is None or _positive(v)),
    "patch": Kind("a positive int, or None for single pixels", lambda v: v is None or _positive(v)),
    "auc": _one_of("steps", "fractions", "points"),
    "insertion_first": _one_of("nothing", "one"),
    "insertion_start": START,
    "deletion_end": START,
    "road_percentiles": Kind(
        "a tuple of shares in (0, 1), such as (0.1, 0.5)", lambda v: _shares(v, lambda one: one < 1)
    ),
    "road_noise": NOT_NEGATIVE,
    "threshold": Kind("a number from 0 to below 1", lambda value: _number(value) and 0 <= value < 1),
    "connectivity": _one_of(4, 8),
    "thresholds": COUNT,
    "ious": Kind("a tuple of shares in (0, 1], such as (0.3, 0.5)", lambda v: _shares(v, lambda one: one <= 1)),
    "quantize": SWITCH,
    "plus_one": SWITCH,
    "edges": _one_of("exclusive", "inclusive"),
    "tolerance": NOT_NEGATIVE,
    "by_class": SWITCH,
    "sensitivity_radius": Kind("a number above 0", lambda value: _number(value) and value > 0),
    "sensitivity_samples": COUNT,
    "randomization_steps": COUNT,
    "similarity": _one_of("spearman", "pearson", "ssim"),
}


def check(name: str, value: Any) -> None:
    """Says what is wrong with a field's value.

    Args:
        name: of the field.
        value: given for it.

    Raises:
        ValueError: it cannot have this value.
    """
    if not KINDS[name].fits(value):
        raise ValueError(f"protocol: {name}={value!r} is not allowed; give {KINDS[name].words}")
