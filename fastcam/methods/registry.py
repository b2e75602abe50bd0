"""Methods by name: `@method("gradcam", Gradients(), paper="arXiv:1610.02391")`."""

from __future__ import annotations

import difflib
import fnmatch
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .evidence import Evidence, Options

METHODS: dict[str, Method] = {}
COUNTS = ("samples", "budget")  # options that are positive integers


@dataclass(frozen=True)
class Method:
    """A class activation map: relu(Σ_k w_k A_k), its weights a function of its evidence.

    Attributes:
        name: its id.
        evidence: what it asks of the network.
        formula: in one line.
        paper: where it comes from.
        weigh: evidence -> weights (B, T, C, h|1, w|1), or with `gives_map` the signed map (B, T, h, w).
        options: names and defaults.
        choices: the values allowed for the options that name a variant.
        clip: options -> where negative values are cut: "before" resizing, "after" it, or "never".
        gives_map: whether `weigh` returns the map itself.
        check: raises a ValueError for options that cannot be served.
    """

    name: str
    evidence: Evidence
    formula: str
    paper: str
    weigh: Callable[..., Tensor]
    options: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    clip: Callable[[Options], str] = lambda options: "before"
    gives_map: bool = False
    check: Callable[[Options], None] = lambda options: None

    @functools.cached_property
    def weighed(self) -> frozenset[str]:
        """The options that `weigh` takes itself."""
        return frozenset(inspect.signature(self.weigh).parameters)

    @property
    def ranks(self) -> tuple[int, ...]:
        """Numbers of spatial axes that it explains: 1 of signals, 2 of pictures, 3 of volumes; its evidence may say."""
        return getattr(self.evidence, "ranks", (1, 2, 3))

    @property
    def needs(self) -> str:
        """What it asks of the network, in words."""
        return self.evidence.needs

    @property
    def cost(self) -> str:
        """In forwards F."""
        return self.evidence.cost

    def resolve(self, options: Options) -> Options:
        """All options, the given ones over the defaults.

        Raises:
            TypeError: an option that the method does not have.
            ValueError: a value outside the choices.
        """
        for name, value in options.items():
            if name not in self.options:
                known = ", ".join(f"{k}={v!r}" for k, v in self.options.items()) or "none"
                raise TypeError(f"{self.name} has no option {name!r}; its options are: {known}")
            if name in self.choices and value not in self.choices[name]:
                raise ValueError(
                    f"{self.name}: {name}={value!r} is not one of {', '.join(map(repr, self.choices[name]))}"
                )
            if name in COUNTS:
                self._require_count(name, value)
        resolved = {**self.options, **options}
        self.check(resolved)
        return resolved

    def _require_count(self, name: str, value: Any) -> None:
        optional = self.options[name] is None
        whole = isinstance(value, int) and not isinstance(value, bool) and value > 0
        if not whole and not (optional and value is None):
            raise ValueError(f"{self.name}: {name}={value!r} must be a positive int{' or None' if optional else ''}")

    def __call__(self, options: Options, *evidence: Any) -> Tensor:
        """Weights, or the map, of this evidence under these options."""
        return self.weigh(*evidence, **{k: v for k, v in options.items() if k in self.weighed})


def method(
    name: str,
    evidence: Evidence,
    *,
    paper: str,
    clip: str | Callable[[Options], str] = "before",
    gives_map: bool = False,
    formula: str | None = None,
    check: Callable[[Options], None] = lambda options: None,
    **options: Any,
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Register a formula; its docstring's first line is what `fastcam methods` shows.

    Args:
        name: the method's id.
        evidence: what it asks of the network.
        paper: where it comes from.
        clip: where negative values are cut, see `Method`.
        gives_map: whether the formula returns the map itself and not weights.
        formula: the line to show where several methods share one function.
        check: raises a ValueError for options that cannot be served, when they are given.
        **options: defaults; a tuple lists the choices, its first entry is the default.
    """
    choices = {k: v for k, v in options.items() if isinstance(v, tuple)}
    defaults = {k: v[0] if isinstance(v, tuple) else v for k, v in options.items()}
    chosen = clip if callable(clip) else lambda _: clip

    def add(weigh: Callable[..., Tensor]) -> Callable[..., Tensor]:
        line = formula or (inspect.getdoc(weigh) or "").splitlines()[0]
        METHODS[name] = Method(name, evidence, line, paper, weigh, defaults, choices, chosen, gives_map, check)
        return weigh

    return add


def find(name: str) -> Method:
    """The method of this name.

    Raises:
        ValueError: no such method; the message names the nearest ones.
    """
    key = name.lower().replace("-", "").replace("_", "").replace("++", "pp").replace(" ", "")
    if key not in METHODS:
        near = difflib.get_close_matches(key, METHODS, n=4, cutoff=0.3) or list(METHODS)
        raise ValueError(f"no method named {name!r}; nearest: {', '.join(near)} (fastcam.list_methods() lists all)")
    return METHODS[key]


def list_methods(pattern: str = "*") -> list[str]:
    """Names of the methods that match a pattern with wildcards.

    Args:
        pattern: e.g. "*score*".

    Returns:
        Sorted names.
    """
    return sorted(fnmatch.filter(METHODS, pattern.lower()))
