"""Time and memory of a call: contenders take turns, so a slow moment of the machine hits all of them."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

Call = Callable[[], object]
STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Timing:
    """Seconds of each round of one contender."""

    rounds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.rounds) < 2:
            return self.rounds[0], self.rounds[0]
        low, _, high = statistics.quantiles(self.rounds, n=4, method="inclusive")
        return low, high

    def over(self, other: Timing) -> float:
        """The median of the ratios round by round: what slows a whole round down cancels."""
        return statistics.median(a / b for a, b in zip(self.rounds, other.rounds, strict=True))


def synchronize() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def seconds(call: Call) -> float:
    """One call, until the device is done."""
    synchronize()
    began = time.perf_counter()
    call()
    synchronize()
    return time.perf_counter() - began


REST = 0.05  # seconds before each: NumPy's threads go on spinning after its linear algebra, and would slow the next one


def alternate(
    calls: Mapping[str, Call], budget: float, least: int = 5, most: int = 60, warm: int = 2
) -> dict[str, Timing]:
    """Contenders in turns, in another order each round, so that none always follows the same one.

    Args:
        calls: by name.
        budget: seconds for all rounds; the first round decides how many fit.
        least: rounds at least.
        most: rounds at most.
        warm: calls of each before the clock starts.
    """
    for call in calls.values():
        for _ in range(warm):
            call()
    synchronize()
    order, shuffle = list(calls), random.Random(0).shuffle
    rounds: dict[str, list[float]] = {name: [] for name in calls}
    began, wanted = time.perf_counter(), least
    while len(rounds[order[0]]) < wanted:
        shuffle(order)
        for name in order:
            time.sleep(REST)
            rounds[name].append(seconds(calls[name]))
        done = len(rounds[order[0]])
        each = (time.perf_counter() - began) / done
        wanted = max(least, min(most, int(budget / each)))
    return {name: Timing(times) for name, times in rounds.items()}


def extrapolate(part: Callable[[int], object], step: int, whole: int) -> float:
    """Seconds of a long loop from a short piece of it: one step, then three, and the difference is the time of two.

    The medians of three rounds: one slow moment in a single step would make the whole loop seem free.

    What is done once, before the loop, so counts once.

    Args:
        part: does this much of the loop.
        step: a small piece.
        whole: how much there is.
    """
    part(step)
    rounds = [[seconds(lambda n=n: part(n * step)) for n in (1, 3)] for _ in range(3)]
    one, three = (statistics.median(times) for times in zip(*rounds, strict=True))
    return one + (three - one) * (whole - step) / (2 * step)


def memory_gauge() -> str:
    """How `peak` measures, for the header."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return "torch.cuda.max_memory_allocated"
    return "VmHWM of /proc/self/status, reset before each call" if RESET.exists() else "not measured on this system"


def peak(call: Call) -> int | None:
    """Bytes that a call takes at most above what was in use before, or None where this cannot be read.

    The kernel's own high-water mark misses nothing between two samples and costs nothing. What the allocator
    keeps of earlier calls is given back first, else the call would reuse it unseen.
    """
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    if not RESET.exists():
        call()
        return None
    RESET.write_text("5")
    before = _resident("VmRSS")
    call()
    return max(0, _resident("VmHWM") - before)


def _resident(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024
