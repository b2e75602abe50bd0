"""Metrics by name: `@metric("average_drop", ("before", "after"), direction="down", ...)`."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from .protocols import PROTOCOLS

METRICS: dict[str, MetricInfo] = {}
M = TypeVar("M", bound=type[Any])


@dataclass(frozen=True)
class MetricInfo:
    """What is known of a metric.

    Attributes:
        name: its id.
        kind: the `torchmetrics.Metric` class.
        evidence: what its `update` takes, by name, see `evidence.Observed`.
        formula: in one line.
        direction: "up" where higher is better, else "down".
        range: of the value.
        paper: where it comes from.
        cost: forwards F an image and method, beyond the one that gave the map.
        reads: fields of the `Protocol` that change its number where the others are the paper's. Scaling a map to
            [0, 1] is no such field of what only orders pixels, and `resize` is none of any: it changes the images.
        needs: what the data must hold: "target", "boxes", "masks", "boxes or masks".
    """

    name: str
    kind: type[Any]
    evidence: tuple[str, ...]
    formula: str
    direction: str
    range: str
    paper: str
    cost: str
    reads: tuple[str, ...]
    needs: tuple[str, ...]

    @property
    def protocols(self) -> tuple[str, ...]:
        """The paper's, and those that change its number of the same images."""
        paper = PROTOCOLS["paper"]
        return tuple(
            name
            for name, one in PROTOCOLS.items()
            if one is paper or any(getattr(one, field) != getattr(paper, field) for field in self.reads)
        )

    @property
    def cheap(self) -> bool:
        """Whether it takes at most the one forward under the map that all such metrics share."""
        return self.cost == "0" or self.cost.startswith("1 F, shared")

    @property
    def localizes(self) -> bool:
        """Whether it compares maps with where the object is."""
        return any(need != "target" for need in self.needs)


def metric(
    name: str,
    evidence: tuple[str, ...],
    *,
    formula: str,
    direction: str,
    paper: str,
    cost: str,
    reads: tuple[str, ...],
    range: str = "0 to 1",  # noqa: A002 - the word for it
    needs: tuple[str, ...] = (),
) -> Callable[[M], M]:
    """Register a `torchmetrics.Metric`; see `MetricInfo` for the arguments."""

    def add(kind: M) -> M:
        kind.name = name
        kind.higher_is_better = direction == "up"
        METRICS[name] = MetricInfo(name, kind, evidence, formula, direction, range, paper, cost, reads, needs)
        return kind

    return add


def list_metrics(pattern: str = "*") -> list[str]:
    """Names of the metrics that match a pattern with wildcards.

    Args:
        pattern: e.g. "*box*".

    Returns:
        Sorted names.
    """
    return sorted(fnmatch.filter(METRICS, pattern.lower()))


GROUPS: dict[str, Callable[[], list[str]]] = {
    "all": lambda: list(METRICS),
    "cheap": lambda: [name for name, info in METRICS.items() if info.cheap],
}


def find(names: str | Iterable[str]) -> list[MetricInfo]:
    """The metrics of these names or patterns, in the registry's order, each once.

    Args:
        names: "all"; "cheap", those of at most one forward under the map; a name; a pattern with wildcards; or
            several of them.

    Raises:
        ValueError: nothing matches one of them.
    """
    asked = [names] if isinstance(names, str) else list(names)
    found: set[str] = set()
    for name in asked:
        key = name.lower().replace("-", "_").replace(" ", "_")
        matches = GROUPS[key]() if key in GROUPS else fnmatch.filter(METRICS, key)
        if not matches:
            near = difflib.get_close_matches(key, [*METRICS, *GROUPS], n=4, cutoff=0.3) or list(METRICS)
            raise ValueError(f"no metric named {name!r}; nearest: {', '.join(near)} (fastcam.list_metrics() lists all)")
        found.update(matches)
    if not found:
        raise ValueError("no metrics given; fastcam.list_metrics() lists all")
    return [info for name, info in METRICS.items() if name in found]
