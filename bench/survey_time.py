"""What a map of every method takes: beside the forwards and backwards that it needs, and beside the nearest peer."""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from bench import floors, machine
from bench.clock import Timing, alternate, extrapolate, seconds
from bench.entries import Entry, entries
from bench.models import Subject, network, subject
from bench.peers import Peer
from bench.rows import Row, duration, stamped, table
from bench.survey_peers import nearest
from bench.works import LITE0

SECONDS = {True: 1.0, False: 6.0}  # for the rounds of a short method
LONG = 8  # forwards or backwards from which a method is timed once, beside rates
ROUNDS = {True: 1, False: 3}  # of a long method


@dataclass
class Floor:
    """What the network alone takes: forwards at their best batch, and forwards with a backward to the image.

    Attributes:
        subject: network and picture.
    """

    subject: Subject

    def __post_init__(self) -> None:
        self.rate = floors.images_rate(self.subject)
        self.bare = floors.forward(self.subject)

    def both(self) -> object:
        """A forward, and a backward to the image, parameters left out."""
        x = self.subject.images.detach().clone().requires_grad_()
        return torch.autograd.grad(self.subject.model(x).amax(1).sum(), x)

    def calls(self, forwards: float, backwards: float) -> Callable[[], object] | None:
        """So many forwards, of which some with a backward, one after the other; None where they are too many."""
        alone = round(forwards - backwards)
        if max(alone, backwards) >= LONG:
            return None

        def run() -> object:
            return [self.bare() for _ in range(alone)] + [self.both() for _ in range(round(backwards))]

        return run

    def seconds(self, forwards: float, backwards: float) -> float:
        """The same by rates: forwards at the best batch, backwards as one of a picture takes."""
        self.rate.again()
        each = Timing([seconds(self.both) for _ in range(5)]).median if backwards else 0.0
        return (forwards - backwards) / self.rate.per_second + backwards * each


def run(given: argparse.Namespace) -> list[Row]:
    """Three rows a method: the floor's, fastcam's, and the nearest peer's where there is one."""
    asked = subject(LITE0, None, 1, given.device, given.weights)
    floor, groups = Floor(asked), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers' own, like their log
        logging.disable(logging.WARNING)
        for entry in entries():
            if given.only in f"time {entry.name}":
                groups.append(stamped(_Timed(entry, asked, floor, given.quick).rows(), machine.describe(given.device)))
                print(f"  {line(groups[-1])}", flush=True)
    rows = [row for group in groups for row in group]
    print(text(rows))
    return rows


class _Timed:
    """One method on the subject."""

    def __init__(self, entry: Entry, asked: Subject, floor: Floor, quick: bool) -> None:
        self.entry, self.subject, self.floor, self.quick = entry, asked, floor, quick
        self.cam = entry.on(asked.model, network(LITE0, None)[1])
        self.target = floor.bare().argmax(1)  # type: ignore[attr-defined]
        for _ in range(2):  # structure, cuts, folded copies and chunk sizes are found once for a network's life
            self.cost = self.explain().cost

    def explain(self) -> Any:
        return self.cam.explain(self.subject.images, target=self.target)

    @property
    def needed(self) -> tuple[float, float]:
        """Forwards, and how many of them with a backward through the whole network."""
        whole = self.entry.through_the_image
        return self.cost.forwards, self.cost.backwards if whole else 0

    def rows(self) -> list[Row]:
        alone, peer = (
            self.floor.calls(*self.needed),
            nearest(self.entry.name, self.subject, self.target.tolist(), {**self.cam.options, **self.entry.options}),
        )
        return self._short(alone, peer) if alone is not None else self._long(peer)

    def _short(self, alone: Callable[[], object], peer: Peer | None) -> list[Row]:
        calls = {"floor": alone, "fastcam": self.explain}
        if peer is not None and peer.part is None:
            calls[peer.who] = peer.run
        timings = alternate(calls, SECONDS[self.quick], least=3)
        rows = [self._row(who, timing, timing.over(timings["floor"])) for who, timing in timings.items()]
        return rows + [self._part(peer, timings["floor"].median) for _ in [0] if peer and peer.part is not None]

    def _long(self, peer: Peer | None) -> list[Row]:
        spent, bare = [], [self.floor.seconds(*self.needed)]
        for _ in range(ROUNDS[self.quick]):
            spent.append(seconds(self.explain))
            bare.append(self.floor.seconds(*self.needed))
        least = Timing(bare)
        rows = [
            self._row("floor", least, 1.0),
            self._row("fastcam", Timing(spent), Timing(spent).median / least.median),
        ]
        if peer is not None and peer.part is not None:
            rows.append(self._part(peer, least.median))
        elif peer is not None:
            timing = Timing([seconds(peer.run)])
            rows.append(self._row(peer.who, timing, timing.median / least.median))
        return rows

    def _part(self, peer: Peer, floor: float) -> Row:
        assert peer.part is not None
        total = extrapolate(peer.part, peer.step, peer.masks)
        row = self._row(peer.who, Timing([total]), total / floor)
        row.rounds, row.note = 0, f"extrapolated from {3 * peer.step} of {peer.masks} masks"
        return row

    def _row(self, who: str, timing: Timing, of_floor: float) -> Row:
        low, high = timing.quartiles
        forwards, backwards = self.cost.forwards, self.cost.backwards
        return Row(
            suite="survey",
            id="",
            what=self.entry.line,
            who=who,
            shape="x".join(map(str, self.subject.images.shape)),
            dtype="float32",
            device=str(self.subject.images.device),
            median=timing.median,
            q25=low,
            q75=high,
            rounds=len(timing.rounds),
            of_floor=of_floor,
            floor=f"{forwards} forwards" + (f", {backwards} backwards" if backwards else ""),
            forwards=forwards,
            version=machine.package(machine.PEERS.get(who, "fastcam" if who == "fastcam" else "torch")),
        )


def line(rows: list[Row]) -> str:
    """What was found of a method."""
    return ", ".join(f"{row.who} {duration(row.median)}" for row in rows)


def groups_of(rows: list[Row]) -> Iterator[tuple[Row, Row, list[Row]]]:
    """The floor's row, fastcam's, and the peers', of each method."""
    names = dict.fromkeys(row.what for row in rows)
    for name in names:
        own = [row for row in rows if row.what == name]
        by = {row.who: row for row in own}
        yield by["floor"], by["fastcam"], [row for row in own if row.who not in {"floor", "fastcam"}]


def text(rows: list[Row]) -> str:
    """The table of a run."""
    lines = []
    for floor, ours, peers in groups_of(rows):
        theirs = [f"{p.who} {p.median / ours.median:.3g}{'' if p.rounds else '*'}" for p in peers]
        share = f"{ours.of_floor:.2f}"
        lines.append((ours.what, floor.floor, duration(ours.median), share, ", ".join(theirs)))
    return table(("method", "needs", "fastcam", "x floor", "peer / fastcam"), lines)
