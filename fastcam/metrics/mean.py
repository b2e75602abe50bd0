"""The state that most metrics have: a sum over images and how many there were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric


class Mean(Metric):
    """Mean over the images of what `values` gives for each; images that have no value (NaN) do not count.

    States are float64 sums, so they add up over batches, processes and machines. `last` holds the first number
    of each image of the last update.

    Args:
        width: numbers that an image has.
        **kwargs: of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    name: ClassVar[str] = ""
    total: Tensor
    count: Tensor

    def __init__(self, width: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros(width, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(width, dtype=torch.float64), dist_reduce_fx="sum")
        self.last = torch.zeros(0, dtype=torch.float64)

    values: Callable[..., Tensor]  # evidence -> what each image has, (B,) or (B, width)

    def update(self, *evidence: Tensor) -> None:
        """Add a batch."""
        self.add(self.values(*evidence))

    def add(self, values: Tensor) -> None:
        """Add values that are computed already: (B,) or (B, width)."""
        values = values.to(self.total)
        rows = values[:, None] if values.dim() == 1 else values
        known = ~rows.isnan()
        self.total += rows.nan_to_num(0).sum(0)
        self.count += known.sum(0)
        self.last = rows[:, 0]

    def images(self) -> int:
        """How many images had a value."""
        return round(float(self.count[0]))

    def mean(self) -> Tensor:
        """(width,), NaN where no image had a value."""
        return self.total / self.count

    def compute(self) -> Any:
        """The mean, a scalar; where an image has several numbers, whatever the metric makes of them."""
        return self.mean()[0]
