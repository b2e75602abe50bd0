"""Many forwards at their best batch: chunks whose size is found while the work is done, in reused buffers."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .streams import Writer

DEFAULT_MEMORY = 256 << 20  # bytes above the bare forward
TAIL_ROW = 6  # memory of a row of a tail forward, as a multiple of its activations
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TIMED = 2  # runs of each size after one to warm up; the faster counts, for other processes only slow one down
HOPELESS = 1.15  # larger sizes are not tried once one takes this much longer per row than the best
ON_DEVICE = (16, 32, 64, 128, 256, 512)  # sizes on a GPU


@dataclass(frozen=True)
class Budget:
    """What masked forwards may use.

    Attributes:
        batch_size: rows a forward, or "auto".
        max_memory: bytes of a chunk above the bare forward of one image; None is 256 MB for "auto", and no limit
            for a given size.
        compile: whether whole-model chunks run through `torch.compile`; "graphs" records them as CUDA graphs.
        runtime: what runs whole-model chunks, see `runtimes.RUNTIMES`.
    """

    batch_size: int | str = "auto"
    max_memory: int | None = None
    compile: bool | str = False
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

    def forbid(self, size: int) -> None:
        """Sizes from this one on do not fit in memory."""
        self.best = {one: rate for one, rate in self.best.items() if one < size}
        self.untried = [one for one in self.untried if one < size] or ([] if self.best else [size - 1])
        self.runs.clear()


@dataclass
class Chunks:
    """Slices [start, stop) that cover all rows, at a size found while the work is done: no forward is wasted.

    Args:
        rows: how many rows there are in all.
        row_bytes: memory that one row takes in a chunk, its activations included.
        key: what a measured size holds for (kind, shape, dtype, device).
        known: tunings by key, and what fits in memory.
        batch_size: a size, or "auto".
        max_memory: bytes for one chunk, which makes a given size smaller too; None is 256 MB for "auto".
        device: where the forwards run.
    """

    rows: int
    row_bytes: int
    key: Hashable
    known: dict[Any, Any]
    batch_size: int | str = "auto"
    max_memory: int | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def most(self) -> int:
        """Rows that the memory allows."""
        allowed = max(1, (self.max_memory or DEFAULT_MEMORY) // max(1, self.row_bytes))
        return min(allowed, self.known.get((self.key, "fits"), allowed))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The slices; the time between two of them is taken as the chunk's own."""
        tuning, given = None, self.batch_size
        if given == "auto":
            most = self.most
            sizes = [s for s in (SIZES if self.device.type == "cpu" else ON_DEVICE) if s <= most] or [most]
            tuning = self.known.setdefault((self.key, most), Tuning(sizes))
        start = 0
        while start < self.rows:
            size = min(tuning.size if tuning is not None else int(given), self._limit)
            if tuning is not None and not tuning.untried:  # even chunks: a short last one costs like a full one
                rounds = max(1, round((self.rows - start) / size))
                size = min(self.most, math.ceil((self.rows - start) / rounds))
            stop = min(start + size, self.rows)
            learning = tuning is not None and bool(tuning.untried) and stop - start == tuning.size
            began = self._now() if learning else 0.0
            yield start, stop
            if learning and tuning is not None:
                tuning.learn(stop - start, self._now() - began)
            start = stop

    @property
    def _limit(self) -> int:
        """Rows at most, whatever was asked for."""
        bounded = self.batch_size == "auto" or self.max_memory is not None
        return self.most if bounded else self.known.get((self.key, "fits"), self.rows)

    def _now(self) -> float:
        """The clock; a GPU is waited for while sizes are still compared, and never afterwards."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def too_large(self, size: int) -> None:
        """A chunk of this size did not fit in memory: none of it will be tried again, and one warning says so."""
        self.known[self.key, "fits"] = fits = size // 2
        for key, tuning in self.known.items():
            if key[0] == self.key and isinstance(tuning, Tuning):
                tuning.forbid(fits + 1)
        warnings.warn(
            f"a chunk of {size} masked rows did not fit in the memory of {self.device}; going on with {fits}. "
            f"Pass batch_size={fits} or a max_memory to silence this",
            stacklevel=6,
        )


def score_rows(
    chunks: Chunks,
    writer: Writer,
    fill: Callable[[int, int, Tensor], None],
    run: Callable[[Tensor, int, int], Any],
    score: Callable[[Any, int, int], Tensor],
) -> Tensor:
    """The scores of all rows: fill a chunk, run it, keep its scores; a chunk too large for the memory goes in halves.

    Args:
        chunks: the slices.
        writer: what the rows of each are written by.
        fill: (start, stop, out) writes the rows [start, stop).
        run: (rows, start, stop) -> logits.
        score: (logits, start, stop) -> (n, T)

    Returns:
        (T, rows) in float32 at least, on the rows' device.
    """

    def scored(start: int, stop: int) -> list[Tensor]:
        try:
            rows = writer.write(stop - start, lambda out: fill(start, stop, out))
            scores = score(run(rows, start, stop), start, stop)
            writer.done()
            return [scores.to(torch.promote_types(scores.dtype, torch.float32))]
        except RuntimeError as error:
            if stop - start == 1 or not _out_of_memory(error):
                raise
        # Here, and not in the handler: the exception holds what the chunk had allocated.
        chunks.too_large(stop - start)
        middle = (start + stop) // 2
        return scored(start, middle) + scored(middle, stop)

    return torch.cat([one for start, stop in chunks for one in scored(start, stop)]).T


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
