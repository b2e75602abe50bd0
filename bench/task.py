"""What the metrics' suite measures, one piece of work at a time, and how its rows are made."""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench import machine
from bench.clock import Timing
from bench.floors import Rate
from bench.rows import Row

MODULES = {  # what each peer is imported as; RISE's loop is written here, its blur's kernel comes from SciPy
    "OpenCV contours": "cv2",
    "OpenCV components": "cv2",
    "SciPy": "scipy",
    "cc3d": "cc3d",
    "RISE": "scipy",
    "torchcam": "torchcam",
    "pytorch-grad-cam": "pytorch_grad_cam",
    "Quantus": "quantus",
}


class WrongError(AssertionError):
    """Two that should compute the same do not: nothing of this work is worth timing."""


@dataclass(frozen=True)
class Setting:
    """How to measure.

    Attributes:
        quick: fewer rounds, and slow peers are extrapolated from a part of the work.
        device: such as "cpu".
        weights: see `models.subject`.
        data: a data set whose pictures are used where many are needed; the bundled ones otherwise.
        about: what every row records of the machine.
    """

    quick: bool
    device: str = "cpu"
    weights: Path | None = None
    data: Path | None = None
    about: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """One line of the targets.

    Attributes:
        id: T6 to T9.
        what: in words.
        measure: checks, then times: the floor's row where there is one, fastcam's, and one a peer.
        quick: whether it belongs to the short list.
        threads: of everybody, where it is not the run's own number.
    """

    id: str
    what: str
    measure: Callable[[Setting, Task], list[Row]]
    quick: bool = True
    threads: int | None = None


def installed(who: str) -> bool:
    """Whether a peer can be imported here."""
    return importlib.util.find_spec(MODULES[who]) is not None


def missing() -> list[str]:
    """Peers that cannot."""
    return [who for who in MODULES if not installed(who)]


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """This many threads for torch, fastcam's kernels and OpenCV; SciPy's and cc3d's components have one anyway."""
    before = torch.get_num_threads()
    with contextlib.ExitStack() as stack:
        torch.set_num_threads(count)
        stack.callback(torch.set_num_threads, before)
        if installed("OpenCV contours"):
            import cv2

            stack.callback(cv2.setNumThreads, cv2.getNumThreads())
            cv2.setNumThreads(count)
        yield


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the peers' own warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def row(task: Task, setting: Setting, who: str, timing: Timing, shape: object, **more: Any) -> Row:
    """One contender's row.

    Args:
        task: what it did.
        setting: how it was measured.
        who: fastcam, "floor", or a peer.
        timing: its rounds.
        shape: of what it was given.
        **more: fields of the row.
    """
    low, high = timing.quartiles
    known = {"fastcam": "fastcam", "floor": "torch"} | machine.METRIC_PEERS
    return Row(
        suite="metrics",
        id=task.id,
        what=task.what,
        who=who,
        shape="x".join(map(str, shape)) if isinstance(shape, (tuple, list)) else str(shape),
        dtype="float32",
        device=setting.device,
        median=timing.median,
        q25=low,
        q75=high,
        **{"rounds": len(timing.rounds), "version": machine.package(known[who]) if known[who] else "", **more},
    )


def floor_time(rate: Rate, forwards: int) -> Timing:
    """What so many forwards take at a rate, each time it was taken."""
    return Timing([forwards * spent / rate.rows for spent in rate.seen])


def part_row(task: Task, setting: Setting, who: str, seconds: float, shape: object, note: str, **more: Any) -> Row:
    """The row of a contender whose time is extrapolated, which its rounds, none, say."""
    return row(task, setting, who, Timing([seconds]), shape, rounds=0, note=note, **more)
