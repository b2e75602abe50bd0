"""The peers' classes through both import roots, with the same calls: the peer itself, and fastcam in its place."""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib
import io
import logging
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench import machine
from bench.clock import Timing, alternate, seconds
from bench.models import Subject, subject
from bench.rows import Row, duration, stamped, table
from bench.works import LITE0

Make = Callable[[nn.Module], tuple[Any, Callable[[], Tensor]]]  # for a network: an object, and what makes its map

NETWORKS = ("resnet18", LITE0)
GRADIENTS = ("GradCAM", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "HiResCAM", "GradCAMElementWise")
KINDS = ("call", "new object and one call", "first call on a network")
SECONDS = {True: 0.5, False: 1.0}  # for the rounds of a short one
FASTCAM = "fastcam.compat."


@dataclass(frozen=True)
class Entry:
    """One class of one peer.

    Attributes:
        peer: "pytorch_grad_cam" or "torchcam".
        name: of the class.
        options: of its constructor, besides model and layer.
        versus: least ratio of the peer's time to fastcam's.
        long: it runs hundreds of forwards, so it is timed once by the peer, object and call together.
        layers: how many.
        only: the networks where the target holds, all where none is named; on others the peer is to be no faster.
    """

    peer: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    versus: float = 1.0
    long: bool = False
    layers: int = 1
    only: tuple[str, ...] = ()

    @property
    def who(self) -> str:
        return {"pytorch_grad_cam": "pytorch-grad-cam"}.get(self.peer, self.peer)

    @property
    def line(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.name}({options})" if options else self.name

    def target(self, network: str) -> float:
        return self.versus if network in (self.only or (network,)) else 1.0

    def layers_of(self, asked: Subject, model: nn.Module) -> list[str]:
        """The subject's layer, and before it the one of the stage before, where two are asked for."""
        stages = [f"{asked.layer.rpartition('.')[0]}.{name}".lstrip(".") for name in _before(asked, model)]
        return [*stages[len(stages) - self.layers + 1 :], asked.layer] if self.layers > 1 else [asked.layer]

    def ready(self, root: str, asked: Subject, classes: list[int]) -> Make:
        """The same code for either import root."""
        make = _grad_cam if self.peer == "pytorch_grad_cam" else _torchcam
        return partial(make, self, root, asked, classes)


def _before(asked: Subject, model: nn.Module) -> list[str]:
    """The children beside the subject's layer that stand before it and have weights."""
    parent, _, own = asked.layer.rpartition(".")
    children = dict(model.get_submodule(parent).named_children())
    names = list(children)[: list(children).index(own)]
    return [name for name in names if list(children[name].children())]


def _grad_cam(
    entry: Entry, root: str, asked: Subject, classes: list[int], model: nn.Module
) -> tuple[Any, Callable[[], Tensor]]:
    library: Any = importlib.import_module(root)
    targets: Any = importlib.import_module(f"{root}.utils.model_targets")
    layers = [model.get_submodule(layer) for layer in entry.layers_of(asked, model)]
    cam = getattr(library, entry.name)(model=model, target_layers=layers, **entry.options)
    wanted = [targets.ClassifierOutputTarget(c) for c in classes]
    return cam, lambda: torch.from_numpy(cam(input_tensor=asked.images, targets=wanted))


def _torchcam(
    entry: Entry, root: str, asked: Subject, classes: list[int], model: nn.Module
) -> tuple[Any, Callable[[], Tensor]]:
    library: Any = importlib.import_module(f"{root}.methods")
    layers = entry.layers_of(asked, model)
    size = tuple(asked.images.shape[1:])
    extractor = getattr(library, entry.name)(
        model, layers if entry.layers > 1 else layers[0], input_shape=size, **entry.options
    )  # fmt: skip

    def run() -> Tensor:
        scores = model(asked.images)
        return extractor(classes, scores)[0].detach()

    return extractor, run


class PeerError(Exception):
    """What a peer says where it does not run."""


def entries() -> Iterator[Entry]:
    """Every class that both import roots have and that makes maps of a picture classifier."""
    pgc, tc = partial(Entry, "pytorch_grad_cam"), partial(Entry, "torchcam")
    yield from (pgc(name, versus=2.5) for name in GRADIENTS)
    yield from (pgc(name) for name in ("ShapleyCAM", "FinerCAM", "EigenCAM", "EigenGradCAM", "SegEigenCAM"))
    yield from (pgc(name) for name in ("KPCA_CAM", "FEM", "RandomCAM", "FullGrad"))
    yield pgc("RefineCAM", layers=2)
    yield pgc("ScoreCAM", long=True)
    yield pgc("AblationCAM", versus=1000, long=True, only=("resnet18",))
    yield pgc("SESS", {"num_scales": 3}, long=True)
    yield from (tc(name) for name in ("CAM", "GradCAM", "GradCAMpp", "XGradCAM", "LayerCAM"))
    yield from (tc("SmoothGradCAMpp"), tc("FinerCAM"), tc("RefineCAM", layers=2))
    yield tc("ScoreCAM", long=True)
    yield from (tc("SSCAM", {"num_samples": 2}, long=True), tc("ISCAM", {"num_samples": 2}, long=True))


def run(given: argparse.Namespace) -> list[Row]:
    """Two rows for each class, network and kind of call: fastcam's and the peer's."""
    found: list[Row] = []
    for network in NETWORKS:
        asked = subject(network, None, 1, given.device, given.weights)
        for entry in entries():
            if given.only in f"{entry.who} {entry.name} {network}" and not (given.quick and entry.long):
                try:
                    with quiet():
                        rows = measure(entry, asked, given.quick)
                except PeerError as error:
                    print(f"  {entry.who} {entry.line}, {network}: the peer does not run here: {error}", flush=True)
                    continue
                found += stamped(rows, machine.describe(given.device))
                print("\n".join(f"  {line(*pair)}" for pair in pairs(rows)), flush=True)
    print(text(found))
    return found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the peers' warnings, prints, log and progress bars."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def measure(entry: Entry, asked: Subject, quick: bool = False) -> list[Row]:
    """The rows of one class on one network, each contender on copies of its own.

    Raises:
        PeerError: the peer's class does not run on this network.
    """
    with torch.no_grad():
        classes = asked.model(asked.images).argmax(1).tolist()
    roots = {"fastcam": FASTCAM + entry.peer, entry.who: entry.peer}
    makers = {who: entry.ready(root, asked, classes) for who, root in roots.items()}
    models = {who: copy.deepcopy(asked.model) for who in roots}
    try:
        theirs = _anew(makers[entry.who], models[entry.who])
    except Exception as error:  # whatever a peer raises: it has no time to compare with
        raise PeerError(str(error).partition("\n")[0][:90]) from error
    away = float((_anew(makers["fastcam"], models["fastcam"]).double() - theirs.double()).abs().max())
    rows = []
    for kind in KINDS[1:2] if entry.long else KINDS[: 2 if quick else 3]:
        timings = _times(kind, makers, asked.model, SECONDS[quick], entry.long)
        rows += [_row(entry, asked, kind, who, timing, away) for who, timing in timings.items()]
    return rows


def _times(kind: str, makers: Mapping[str, Make], model: nn.Module, budget: float, long: bool) -> dict[str, Timing]:
    if kind == KINDS[2]:
        return _first(makers, model, 3 + int(budget))
    models = {who: copy.deepcopy(model) for who in makers}
    made = {who: makers[who](models[who]) for who in makers} if kind == KINDS[0] else {}
    calls: dict[str, Callable[[], object]] = {
        who: made[who][1] if made else partial(_anew, make, models[who]) for who, make in makers.items()
    }
    return alternate(calls, 0, least=1, most=1, warm=0) if long else alternate(calls, budget, least=5)


def _anew(make: Make, model: nn.Module) -> Tensor:
    """A new object, its map, and its end, as both READMEs show it: hooks do not stay for the next round."""
    made, call = make(model)
    with made if hasattr(type(made), "__exit__") else contextlib.nullcontext():
        return call()


def _first(makers: Mapping[str, Make], model: nn.Module, rounds: int) -> dict[str, Timing]:
    """As `alternate`, each round on a new copy of the network, whose making is not timed."""
    order, shuffle, spent = list(makers), random.Random(0).shuffle, {who: [] for who in makers}
    for _ in range(rounds):
        shuffle(order)
        for who in order:
            spent[who].append(seconds(partial(_anew, makers[who], copy.deepcopy(model))))
    return {who: Timing(times) for who, times in spent.items()}


def _row(entry: Entry, asked: Subject, kind: str, who: str, timing: Timing, away: float) -> Row:
    low, high = timing.quartiles
    ours = who == "fastcam"
    return Row(
        suite="compat",
        id="",
        what=f"{entry.who} {entry.line}, {asked.name}, {kind}",
        who=who,
        shape="x".join(map(str, asked.images.shape)),
        dtype="float32",
        device=str(asked.images.device),
        median=timing.median,
        q25=low,
        q75=high,
        rounds=len(timing.rounds),
        versus=None if ours else entry.target(asked.name),
        difference=None if ours else away,
        version=machine.package("fastcam" if ours else machine.PEERS[entry.who]),
        note=f"{asked.weights} weights, layer {asked.layer}",
    )


def pairs(rows: list[Row]) -> Iterator[tuple[Row, Row]]:
    """fastcam's row and the peer's, of each work."""
    found: dict[str, dict[bool, Row]] = {}
    for row in rows:
        found.setdefault(row.what, {})[row.who == "fastcam"] = row
    yield from ((both[True], both[False]) for both in found.values())


def line(ours: Row, peer: Row) -> str:
    return f"{ours.what}: {duration(ours.median)}, peer {duration(peer.median)}, {peer.median / ours.median:.3g} x"


def verdict(ours: Row, peer: Row) -> str:
    return "pass" if peer.median / ours.median >= (peer.versus or 0) else "MISS"


def text(rows: list[Row]) -> str:
    """The table of a run, and how many targets it meets."""
    lines = [
        (
            ours.what,
            duration(ours.median),
            duration(peer.median),
            f"{peer.median / ours.median:.3g}",
            f"{peer.difference:.1e}",
            f">= {peer.versus:g}",
            verdict(ours, peer),
        )
        for ours, peer in pairs(rows)
    ]
    met = sum(found[-1] == "pass" for found in lines)
    shown = table(("work", "fastcam", "peer", "peer/fastcam", "maps differ", "target", ""), lines)
    return f"{shown}\n{met} of {len(lines)} targets met"
