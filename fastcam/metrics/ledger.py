"""What was spent on what, as sums that add up over processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from fastcam.scorer import Tally

UNITS = ("forwards", "tails", "backwards", "seconds")


class Ledger(Metric):
    """Forwards, tails, backwards and seconds under each name, an image.

    Args:
        names: under which it books.
    """

    full_state_update = False
    spent: Tensor
    images: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = {name: row for row, name in enumerate(names)}
        self.add_state("spent", torch.zeros(len(names), len(UNITS), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros(len(names), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, name: str, tally: Tally, images: int) -> None:
        """Book what `images` more images took."""
        row = self.names[name]
        self.spent[row] += torch.tensor([getattr(tally, unit) for unit in UNITS], dtype=torch.float64)
        self.images[row] += images

    def compute(self) -> Tensor:
        """(names, units) an image."""
        return self.spent / self.images.clamp_min(1)[:, None]

    def table(self) -> dict[str, dict[str, float]]:
        """{name: {unit: an image}} of what this process has booked and merged: no other process is asked."""
        rows = self.spent / self.images.clamp_min(1)[:, None]
        return {name: dict(zip(UNITS, rows[row].tolist(), strict=True)) for name, row in self.names.items()}
