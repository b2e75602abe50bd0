"""One line of the work list measured: fastcam, its floor, and every peer that has the method."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from bench import floors, machine
from bench.agreement import compare
from bench.clock import Timing, alternate, extrapolate, peak, seconds
from bench.models import Subject, subject
from bench.peers import Peer, peers
from bench.rows import Row, stamped
from bench.works import Work
from fastcam import CAM

SECONDS = {True: 1.5, False: 8.0}  # for the rounds of one work, by quick
QUICK_BATCHES = (4, 8, 16, 64)
COLD_ROUNDS = {True: 7, False: 15}
LONG_RUNS = {True: 1, False: 3}
EXTRAPOLATED = "extrapolated from {} of {} masks"


@dataclass
class Bench:
    """How to measure.

    Attributes:
        quick: fewer rounds; peers that mask are extrapolated from some of their masks.
        device: such as "cpu".
        weights: see `models.subject`.
    """

    quick: bool
    device: str
    weights: Path | None = None
    about: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.about = machine.describe(self.device)

    def rows(self, work: Work) -> list[Row]:
        """The floor's row, fastcam's, and one of each peer."""
        asked = subject(work.network, work.layer, work.batch, self.device, self.weights, work.side)
        one = _One(self, work, asked)
        measured = {"forward": one.in_turns, "rescale": one.in_turns, "cold": one.cold}.get(work.floor, one.long)()
        return stamped(measured, self.about)


@dataclass
class _One:
    bench: Bench
    work: Work
    subject: Subject

    def __post_init__(self) -> None:
        self.bare = floors.forward(self.subject)
        self.classes: list[int] = self.bare().argmax(1).tolist()
        self.target = torch.tensor(self.classes, device=self.subject.images.device)
        engine: dict[str, Any] = {"runtime": self.work.runtime, "precision": self.work.precision}
        if self.work.samples > 1:
            engine["samples"] = self.work.samples
        self.cam = CAM(self.subject.model, self.work.method, self.subject.layer, **engine)
        self.base = peak(self.bare)

    def explain(self) -> Any:
        return self.cam(self.subject.images, target=self.target)

    def in_turns(self) -> list[Row]:
        """Short calls: the floor, fastcam and the peers alternate."""
        rescale = self.work.floor == "rescale"
        floor = floors.rescale_pass(self.subject) if rescale else self.bare
        whole, partial = self._peers()
        agreement = {
            peer.who: compare(self.work.method, self.subject, self.classes, peer.who, peer.run()) for peer in whole
        }
        calls: dict[str, Callable[[], object]] = {"floor": floor, "fastcam": self.explain}
        calls.update({peer.who: peer.run for peer in whole})
        timings = alternate(calls, SECONDS[self.bench.quick])
        peaks = {who: self._above(peak(call)) for who, call in calls.items() if who != "floor"}
        label = "head, tail forward and backward of A and its reference" if rescale else "the bare forward"
        rows = [self._row(who, timings[who], timings["floor"]) for who in calls]
        for row in rows:
            row.floor, row.peak, row.agreement = label, peaks.get(row.who), agreement.get(row.who)
        return rows + [self._partial(peer, timings["floor"].median) for peer in partial]

    def cold(self) -> list[Row]:
        """A new object's first call on a network that it has never seen, but that has run."""
        bare, first = [], []
        for index in range(COLD_ROUNDS[self.bench.quick] + 1):
            fresh = replace(self.subject, model=copy.deepcopy(self.subject.model))
            run = floors.forward(fresh)
            run()
            run()
            before = seconds(run)
            spent = seconds(lambda fresh=fresh: CAM(fresh.model, self.work.method)(fresh.images))
            if index:  # the first round imports and compiles what Python loads once
                bare.append((before + seconds(run)) / 2)
                first.append(spent)
        rows = [self._row("floor", Timing(bare), Timing(bare)), self._row("fastcam", Timing(first), Timing(bare))]
        for row in rows:
            row.floor = "the bare forward"
        return rows

    def long(self) -> list[Row]:
        """Many forwards: the floor's rate is taken before and after each run."""
        whole, partial = self._peers()
        batches = QUICK_BATCHES if self.bench.quick else floors.BATCHES
        head: Callable[[], object] | None = None
        if self.work.floor == "masks":
            work = self.work
            rate = floors.images_rate(self.subject, batches, work.runtime, work.precision)
            count = floors.masks(self.subject) * work.samples
            if work.runtime != "torch":
                self.explain()  # exports the network, once for its life
        else:
            head, rate = floors.tail_rate(self.subject, batches)
            for _ in range(2):  # cuts the network and finds the chunk size, once for its life
                self.explain()
            shape = floors.activations(self.subject).shape
            count = shape[1] if self.work.method == "ablationcam" else shape[2] * shape[3]
        runs, heads, above = [], [], None
        for _ in range(LONG_RUNS[self.bench.quick]):
            used = peak(lambda: runs.append(seconds(self.explain)))
            above = above or self._above(used)
            rate.again()
            heads += [seconds(head)] if head else []
        floor = count / rate.per_second + (Timing(heads).median if heads else 0.0)
        label = f"{count} forwards at {rate.label}" + (", and the head" if heads else "")
        rows = [self._row("floor", Timing([floor]), None), self._row("fastcam", Timing(runs), None)]
        rows[1].peak, rows[1].peak_limit = above, self.work.peak_limit
        for peer in whole:
            maps: list[torch.Tensor] = []
            spent: list[float] = []
            used = peak(
                lambda peer=peer, maps=maps, spent=spent: spent.append(seconds(lambda: maps.append(peer.run())))
            )
            rows.append(self._row(peer.who, Timing(spent), None))
            rows[-1].peak = self._above(used)
            rows[-1].agreement = compare(self.work.method, self.subject, self.classes, peer.who, maps[0])
        rows += [self._partial(peer, floor) for peer in partial]
        for row in rows:
            row.floor, row.of_floor = label, row.median / floor
        return rows

    def _peers(self) -> tuple[list[Peer], list[Peer]]:
        """Those to run as they are, and those to extrapolate."""
        found = list(peers(self.work.method, self.subject, self.classes, self.work.samples))
        short = [peer for peer in found if self.bench.quick and peer.part is not None]
        return [peer for peer in found if peer not in short], short

    def _agreement(self, peer: Peer, maps: torch.Tensor) -> float:
        return compare(self.work.method, self.subject, self.classes, peer.who, maps)

    def _partial(self, peer: Peer, floor: float) -> Row:
        assert peer.part is not None
        total = extrapolate(peer.part, peer.step, peer.masks)
        row = self._row(peer.who, Timing([total]), None)
        row.rounds, row.of_floor = 0, total / floor
        row.note = EXTRAPOLATED.format(3 * peer.step, peer.masks)
        return row

    def _above(self, used: int | None) -> int | None:
        return None if used is None or self.base is None else max(0, used - self.base)

    def _row(self, who: str, timing: Timing, floor: Timing | None) -> Row:
        low, high = timing.quartiles
        images = self.subject.images
        return Row(
            suite=self.work.suite,
            id=self.work.id,
            what=self.work.what,
            who=who,
            shape="x".join(map(str, images.shape)),
            dtype=str(images.dtype).removeprefix("torch."),
            device=self.bench.device,
            median=timing.median,
            q25=low,
            q75=high,
            rounds=len(timing.rounds),
            of_floor=timing.over(floor) if floor else None,
            limit=self.work.limit if who == "fastcam" else None,
            versus=self.work.versus.get(who),
            version=machine.package(machine.PEERS.get(who, "fastcam" if who == "fastcam" else "torch")),
            note=f"{self.subject.weights} weights",
        )
