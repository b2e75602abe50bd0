"""Where chunks are written and run: one buffer on a CPU; on a GPU two, so that one fills while the other is read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

WARM = 2  # plain runs of a shape before its graph is recorded: libraries choose their kernels in the first


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

    def grows(self, count: int) -> bool:
        """Whether `count` rows need new memory."""
        return self._memory is None or len(self._memory) < count


@dataclass
class Writer:
    """Hands out each chunk written: on the spot on a CPU; on a GPU by a stream of its own, never waiting for it.

    A GPU's chunks go into two buffers in turn. The side stream waits until the run that last read its buffer is done,
    the current stream until the chunk is written; both waits are the device's, the host goes on.

    Args:
        row: shape of a row.
        dtype: of the rows.
        device: of the rows.
        channels_last: layout of the rows.
        turns: buffers on a GPU.
    """

    row: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    channels_last: bool = False
    turns: int = 2
    _buffers: list[Buffer] = field(default_factory=list)
    _read: list[Any] = field(default_factory=list)
    _side: Any = None
    _turn: int = -1

    def __post_init__(self) -> None:
        aside = self.device.type == "cuda"
        count = self.turns if aside else 1
        self._buffers = [Buffer(self.row, self.dtype, self.device, self.channels_last) for _ in range(count)]
        self._read = [None] * count
        if aside:
            self._side = torch.cuda.Stream(self.device)

    @property
    def row_bytes(self) -> int:
        """Memory of a row in all buffers."""
        return math.prod(self.row) * self.dtype.itemsize * len(self._buffers)

    def write(self, count: int, fill: Callable[[Tensor], None]) -> Tensor:
        """The next chunk, filled. The one before it may still be read, the one before that may not.

        Args:
            count: rows.
            fill: writes all of the rows it is given.

        Returns:
            (count, *row)
        """
        self._turn = (self._turn + 1) % len(self._buffers)
        buffer = self._buffers[self._turn]
        if self._side is None:
            rows = buffer.rows(count)
            fill(rows)
            return rows
        current = torch.cuda.current_stream(self.device)
        last = self._read[self._turn]
        fresh = last is None or buffer.grows(count)
        rows = buffer.rows(count)
        # New memory, and what the rows are made from, belong to whatever the current stream has been given so far.
        self._side.wait_stream(current) if fresh else self._side.wait_event(last)
        with torch.cuda.stream(self._side):
            fill(rows)
        current.wait_stream(self._side)
        return rows

    def done(self) -> None:
        """The chunk handed out last has been given to all that reads it."""
        if self._side is not None:
            self._read[self._turn] = torch.cuda.current_stream(self.device).record_event()


class Graphs:
    """A function of rows on a GPU, recorded as a CUDA graph for each shape; launching it then costs one call.

    Args:
        run: (n, ...) -> logits (n, ...), the same kernels for the same shape, no synchronization.
    """

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        self.run = run
        self._seen: dict[Any, int] = {}
        self._recorded: dict[Any, tuple[Any, Tensor, Tensor]] = {}
        self._pool: Any = None

    def __call__(self, rows: Tensor) -> Tensor:
        """What `run` gives; overwritten by the next call of the same shape."""
        key = (tuple(rows.shape), rows.dtype, rows.stride())
        if key not in self._recorded:
            self._seen[key] = self._seen.get(key, 0) + 1
            if self._seen[key] <= WARM:
                return self.run(rows)
            self._recorded[key] = self._record(rows)
        graph, given, logits = self._recorded[key]
        given.copy_(rows)
        graph.replay()
        return logits

    def _record(self, rows: Tensor) -> tuple[Any, Tensor, Tensor]:
        given, graph = torch.empty_like(rows), torch.cuda.CUDAGraph()
        given.copy_(rows)
        with torch.cuda.graph(graph, pool=self._pool):
            logits = self.run(given)
        self._pool = graph.pool()
        return graph, given, logits
