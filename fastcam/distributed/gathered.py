"""From shards to one table: sums in the order of the shards, whoever computed them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fastcam.distributed.shards import Result

if TYPE_CHECKING:
    from fastcam.metrics import Evaluation


@dataclass
class Gathered:
    """What all shards have in common.

    Attributes:
        images: how many pictures were evaluated.
        rows: how many rows there are: an image by a method each.
        problems: pictures that could not be evaluated, {"file", "reason", "lost"} each.
        lists: names of the columns that hold text or whole numbers.
        numbers: names of the columns that hold a number a row.
        curves: names of the columns that hold several.
        seconds: of all workers together.
        waited: seconds of these that a worker waited for pictures.
        machines: where they ran, {…, "shards": how many} each.
    """

    images: int = 0
    rows: int = 0
    problems: list[dict[str, str]] = field(default_factory=list)
    lists: list[str] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    curves: list[str] = field(default_factory=list)
    seconds: float = 0.0
    waited: float = 0.0
    machines: list[dict[str, Any]] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Take note of a shard."""
        self.images += result.images
        self.problems += result.problems
        for name, column in result.columns.items():
            tensor = isinstance(column, Tensor)
            names = self.lists if not tensor else self.curves if column.dim() > 1 else self.numbers
            if name not in names:
                names.append(name)
        self.rows += len(next(iter(result.columns.values()), ()))
        self.seconds += result.cost.get("seconds", 0.0)
        self.waited += result.cost.get("waited", 0.0)
        where = result.cost.get("machine")
        if where is not None:
            known = next((one for one in self.machines if {**one, "shards": None} == {**where, "shards": None}), None)
            if known is None:
                self.machines.append({**where, "shards": 1})
            else:
                known["shards"] += 1


def gather(results: Iterable[Result], evaluation: Evaluation | None = None) -> Gathered:
    """Reads results once.

    Args:
        results: in the order in which their sums are added.
        evaluation: reset, and given the sums.
    """
    found = Gathered()
    if evaluation is not None:
        evaluation.reset()
    for result in results:
        found.add(result)
        if evaluation is not None:
            evaluation.merge(result.states)
    return found
