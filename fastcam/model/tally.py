"""How often the network ran: images through the whole of it, rows through a tail, backwards through a tail."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class Tally:
    """What was run, counted in images.

    Attributes:
        forwards: images through the whole network.
        tails: rows through what follows a layer.
        backwards: gradients of one score of one image.
        seconds: of the clock; a GPU may still be at work.
    """

    forwards: int = 0
    tails: int = 0
    backwards: int = 0
    seconds: float = 0.0

    def add(self, other: Tally) -> None:
        """Add another's counts."""
        self.forwards += other.forwards
        self.tails += other.tails
        self.backwards += other.backwards
        self.seconds += other.seconds


_tally: ContextVar[Tally | None] = ContextVar("tally", default=None)


@contextlib.contextmanager
def counting() -> Iterator[Tally]:
    """Count what runs inside; an outer count goes on afterwards and includes it."""
    outer, own = _tally.get(), Tally()
    token = _tally.set(own)
    start = time.perf_counter()
    try:
        yield own
    finally:
        _tally.reset(token)
        own.seconds = time.perf_counter() - start
        if outer is not None:
            count(own.forwards, own.tails, own.backwards)


def count(forwards: int = 0, tails: int = 0, backwards: int = 0) -> None:
    """Add to the count, where one is open."""
    tally = _tally.get()
    if tally is not None:
        tally.forwards += forwards
        tally.tails += tails
        tally.backwards += backwards
