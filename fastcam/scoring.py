"""Many forwards at their best batch: chunks whose size is found while the work is done, in one reused buffer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

DEFAULT_MEMORY = 256 << 20  # bytes above the bare forward
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TIMED = 2  # runs of each size after one to warm up; the faster counts, for other processes only slow one down
HOPELESS = 1.15  # larger sizes are not tried once one takes this much longer per row than the best
ON_DEVICE = 64  # rows a chunk on a GPU, where timing would need a synchronization


@dataclass(frozen=True)
class Budget:
    """What masked forwards may use.

    Attributes:
        batch_size: rows a forward, or "auto".
        max_memory: bytes of a chunk above the bare forward of one image; None is 256 MB for "auto", and no limit
            for a given size.
        compile: whether whole-model chunks run through `torch.compile`.
        runtime: what runs whole-model chunks, see `runtimes.RUNTIMES`.
    """

    batch_size: int | str = "auto"
    max_memory: int | None = None
    compile: bool = False
    runtime: str = "torch"


@dataclass
class Tuning:
    """What is known of the best chunk size of one kind of forward; kept for the process.

    Sizes are tried from the smallest on. Each runs once to warm up (buffers, kernels and caches of that shape are
    made then), then for the clock.
    """

    untried: list[int]
    runs: list[float] = field(default_factory=list)
    best: dict[int, float] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Rows to take next."""
        return self.untried[0] if self.untried else min(self.best, key=self.best.__getitem__, default=1)

    def learn(self, size: int, seconds: float) -> None:
        """Take note of one chunk of `size` rows."""
        if not self.untried or size != self.untried[0]:
            return
        self.runs.append(seconds / size)
        if len(self.runs) > TIMED:
            self.best[size] = min(self.runs[1:])
            self.runs.clear()
            self.untried.pop(0)
            if self.best[size] > HOPELESS * min(self.best.values()):
                self.untried.clear()


@dataclass
class Chunks:
    """Slices [start, stop) that cover all rows, at a size found while the work is done: no forward is wasted.

    Args:
        rows: how many rows there are in all.
        row_bytes: memory that one row takes in a chunk, its activations included.
        key: what a measured size holds for (kind, shape, dtype, device).
        known: tunings by key.
        batch_size: a size, or "auto".
        max_memory: bytes for one chunk, which makes a given size smaller too; None is 256 MB for "auto".
        device: where the forwards run.
    """

    rows: int
    row_bytes: int
    key: Hashable
    known: dict[Any, Tuning]
    batch_size: int | str = "auto"
    max_memory: int | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def most(self) -> int:
        """Rows that the memory allows."""
        return max(1, (self.max_memory or DEFAULT_MEMORY) // max(1, self.row_bytes))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The slices; the time between two of them is taken as the chunk's own."""
        tuning = None
        if self.batch_size == "auto" and self.device.type == "cpu":
            sizes = [s for s in SIZES if s <= self.most] or [self.most]
            tuning = self.known.setdefault((self.key, self.most), Tuning(sizes))
        start = 0
        while start < self.rows:
            if tuning is not None:
                size = tuning.size
            else:
                size = ON_DEVICE if self.batch_size == "auto" else int(self.batch_size)
                if self.batch_size == "auto" or self.max_memory is not None:
                    size = min(self.most, size)
            if tuning is not None and not tuning.untried:  # even chunks: a short last one costs like a full one
                rounds = max(1, round((self.rows - start) / size))
                size = min(self.most, math.ceil((self.rows - start) / rounds))
            stop = min(start + size, self.rows)
            began = time.perf_counter()
            yield start, stop
            if tuning is not None and stop - start == size:
                tuning.learn(size, time.perf_counter() - began)
            start = stop


@dataclass
class Buffer:
    """One block of memory that every chunk is written into.

    Args:
        row: shape of a row.
        dtype: of the rows.
        device: of the rows.
        channels_last: lay out (C, H, W) rows as (H, W, C).
    """

    row: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    channels_last: bool = False
    _memory: Tensor | None = None

    def rows(self, count: int) -> Tensor:
        """The first `count` rows, overwritten by the next chunk. (count, *row)"""
        if self._memory is None or len(self._memory) < count:
            form = torch.channels_last if self.channels_last else torch.contiguous_format
            self._memory = None
            self._memory = torch.empty((count, *self.row), dtype=self.dtype, device=self.device, memory_format=form)
        return self._memory[:count]


def score_rows(
    chunks: Chunks,
    buffer: Buffer,
    fill: Callable[[int, int, Tensor], None],
    run: Callable[[Tensor], Any],
    score: Callable[[Any, int, int], Tensor],
) -> Tensor:
    """The scores of all rows: fill a chunk, run it, keep its scores.

    Args:
        chunks: the slices.
        buffer: what the rows of each are written into.
        fill: (start, stop, out) writes the rows [start, stop).
        run: rows -> logits.
        score: (logits, start, stop) -> (n, T)

    Returns:
        (T, rows) in float32 at least, on the rows' device.
    """
    kept = []
    for start, stop in chunks:
        rows = buffer.rows(stop - start)
        fill(start, stop, rows)
        scores = score(run(rows), start, stop)
        kept.append(scores.to(torch.promote_types(scores.dtype, torch.float32)))
    return torch.cat(kept).T
