"""Score-CAM by its budget: how near its maps are to the full ones, their ADCC, and what they take."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import fastcam
from bench import machine, report_budget
from bench.clock import Timing, alternate
from bench.models import PICTURES, network
from bench.pictures import Pictures, bundled
from bench.rows import Row, duration, stamped
from bench.works import LITE0
from fastcam import CAM, image
from fastcam.metrics import Evaluation, adcc
from fastcam.metrics.complexity import pearson
from fastcam.runtimes import lacking

ALL = "all"
BUDGETS = ("8", "16", "32", "64", "128", ALL)
QUICK = ("8", "64", ALL)
PARTS = ("average_drop", "coherency", "complexity")
TIMED = ("torch", "onnxruntime")
SECONDS = {True: 1.0, False: 60.0}
LEAST = {True: 1, False: 5}
FEW = {True: 3, False: 8}  # pictures without a data set
SCRATCH = Path(__file__).parent.parent / "build" / "bench"
SOURCES = ("budget.py", "methods/scores.py")  # of fastcam; what decides a picture's maps, whatever runs the network

Values = dict[str, dict[str, float]]  # of one picture, by budget


@dataclass
class Kept:
    """A method that keeps the maps it gave last, and what the first of them took."""

    cam: CAM
    maps: list[Tensor] = field(default_factory=list)
    forwards: int = 0

    def __call__(self, images: Tensor, target: Tensor) -> Tensor:
        explained = self.cam.explain(images, target=target)
        if not self.maps:
            self.forwards = explained.cost.forwards
        self.maps.append(explained.maps)
        return explained.maps


def cams(model: nn.Module, budgets: tuple[str, ...], runtime: str) -> dict[str, CAM]:
    """Score-CAM under each budget."""
    return {
        name: CAM(model, "scorecam", runtime=runtime, budget=None if name == ALL else int(name)) for name in budgets
    }


class Quality:
    """Compares the maps of budgets with the full map, a picture at a time.

    Args:
        model: in evaluation mode.
        budgets: of which the last is all.
        runtime: of masked forwards.
    """

    def __init__(self, model: nn.Module, budgets: tuple[str, ...], runtime: str = "torch") -> None:
        self.kept = {name: Kept(cam) for name, cam in cams(model, budgets, runtime).items()}
        self.evaluation = Evaluation(dict(self.kept), PARTS, score=CAM(model, "gradcam").scorer)
        self.warm = False

    def of(self, images: Tensor) -> Values:
        """What each budget gives for one picture (1, C, H, W): correlation, forwards, and the parts of ADCC."""
        if not self.warm:  # the first call counts forwards that learn what a row takes
            self.kept[ALL].cam(images)
            self.warm = True
        for one in self.kept.values():
            one.maps.clear()
        found = self.evaluation.update(images)
        full = self.kept[ALL].maps[0]
        return {
            name: {
                "correlation": float(pearson(one.maps[0], full)[0]),
                "forwards": one.forwards,
                **{part: float(found[name][part][0]) for part in PARTS},
            }
            for name, one in self.kept.items()
        }


@dataclass(frozen=True)
class Scratch:
    """What is known of each picture, a line each, so that a run that was stopped goes on.

    Attributes:
        file: to append to.
        settings: what decides the values; lines of others are left alone and not read.
    """

    file: Path
    settings: str

    def read(self) -> dict[int, Values]:
        """By the picture's place; a line that was cut off by a kill counts as missing."""
        found: dict[int, Values] = {}
        for line in self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else []:
            try:
                kept = json.loads(line)
            except ValueError:
                continue
            if kept["settings"] == self.settings:
                found[kept["picture"]] = kept["values"]
        return found

    def add(self, picture: int, values: Values) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        cut = self.file.exists() and not self.file.read_bytes().endswith(b"\n")
        line = json.dumps({"settings": self.settings, "picture": picture, "values": values})
        with self.file.open("a", encoding="utf-8") as file:
            file.write("\n" * cut + line + "\n")


def run(given: argparse.Namespace) -> list[Row]:
    """The rows of quality, then those of time; `--only quality` and `--only time` are one of them.

    Raises:
        SystemExit: `--data` cannot be used.
    """
    about = machine.describe(given.device)
    budgets = QUICK if given.quick else BUDGETS
    rows: list[Row] = []
    try:
        for what, measure in (("quality", quality), ("time", times)):
            if given.only in what:
                rows += stamped(measure(given, budgets), about)
    except ValueError as error:
        raise SystemExit(f"budget: {error}") from None
    print(report_budget.text(rows))
    return rows


def quality(given: argparse.Namespace, budgets: tuple[str, ...]) -> list[Row]:
    """One row a budget, over the pictures of `--data` or some cuts of the bundled ones."""
    model, preprocess, _ = network(LITE0, given.weights)
    limit = given.limit or (FEW[True] if given.quick else None)
    if given.data is None:
        count, name, mark = limit or FEW[False], "cuts of the bundled pictures", "bundled"
        batches = bundled(count, preprocess, 1)
    else:
        pictures = Pictures.open(given.data, limit)
        count, name, mark = len(pictures), pictures.name, pictures.fingerprint
        batches = pictures.batches(preprocess, 1)
    settings = f"{LITE0} {mark} {' '.join(budgets)} {given.runtime} torch {torch.__version__} {_digest()}"
    scratch = Scratch(SCRATCH / f"{given.save or 'budget'}.jsonl", settings)
    known = scratch.read()
    print(f"budget, quality: {count} pictures of {name}, {len(known)} known from {scratch.file}", flush=True)
    asked = Quality(model.to(given.device), budgets, given.runtime)
    seen: list[Values] = []
    size: Sequence[int] = ()
    for batch in batches:
        (place,), size = batch.ids, batch.images.shape[1:]
        if place not in known:
            began = time.perf_counter()
            known[place] = asked.of(batch.images.to(given.device))
            scratch.add(place, known[place])
            spent, least = time.perf_counter() - began, min(of["correlation"] for of in known[place].values())
            print(f"  {place + 1}/{count}: {duration(spent)}, least correlation {least:.3f}", flush=True)
        seen.append(known[place])
    if not seen:
        raise ValueError(f"no picture of {name} could be read")
    shape = f"{len(seen)}x{'x'.join(map(str, size))}"
    return [
        _row("quality", name_, shape, given.device, Timing([math.nan]), note=f"{name}, by {given.runtime}", **of)
        for name_, of in averages(seen).items()
    ]


def averages(seen: list[Values]) -> dict[str, dict[str, float]]:
    """Of each budget: the mean and the least correlation, the mean forwards, and ADCC of the means, percent.

    A map that is the same everywhere correlates with nothing and is left out of the correlations.
    """
    found = {}
    for name in seen[0]:
        rows = [values[name] for values in seen]
        means = {part: math.fsum(row[part] for row in rows) / len(rows) for part in (*PARTS, "forwards")}
        alike = [row["correlation"] for row in rows if not math.isnan(row["correlation"])]
        found[name] = {
            "agreement": math.fsum(alike) / len(alike) if alike else math.nan,
            "least": min(alike, default=math.nan),
            "forwards": means["forwards"],
            "adcc": 100 * float(adcc(*(torch.tensor(means[part], dtype=torch.float64) for part in PARTS))),
        }
    return found


def times(given: argparse.Namespace, budgets: tuple[str, ...]) -> list[Row]:
    """One row a budget and runtime: all take turns on the bundled pictures, one picture a call."""
    model, preprocess, _ = network(LITE0, given.weights)
    model = model.to(given.device)
    pictures = [image.preprocess(image.read(path), preprocess)[0][None].to(given.device) for path in PICTURES]
    pictures = pictures[:1] if given.quick else pictures
    runtimes = [name for name in TIMED if not lacking(name) and (name == "torch" or given.device == "cpu")]
    asked = {(runtime, name): cam for runtime in runtimes for name, cam in cams(model, budgets, runtime).items()}
    forwards: dict[Any, float] = {}
    for at, cam in asked.items():  # exports the network, and learns the best size of a chunk
        cam(pictures[0])
        forwards[at] = sum(cam.explain(one).cost.forwards for one in pictures) / len(pictures)
    calls = {at: (lambda cam=cam: [cam(one) for one in pictures]) for at, cam in asked.items()}
    timings = alternate(calls, SECONDS[given.quick], LEAST[given.quick], most=20, warm=0)  # type: ignore[arg-type]
    rows = []
    for (runtime, name), timing in timings.items():
        each = Timing([spent / len(pictures) for spent in timing.rounds])
        shape = "x".join(map(str, pictures[0].shape))
        note = f"mean of {len(pictures)} bundled picture{'s' * (len(pictures) > 1)}"
        rows.append(
            _row(f"time, {runtime}", name, shape, given.device, each, note=note, forwards=forwards[runtime, name])
        )
        print(f"  {rows[-1].what}: {duration(each.median)}", flush=True)
    return rows


def _row(kind: str, budget: str, shape: str, device: str, timing: Timing, **more: Any) -> Row:
    low, high = timing.quartiles
    return Row(
        suite="budget",
        id="",
        what=f"scorecam, {LITE0}, {kind}, budget {budget}",
        who="fastcam",
        shape=shape,
        dtype="float32",
        device=device,
        median=timing.median,
        q25=low,
        q75=high,
        rounds=len(timing.rounds) if kind != "quality" else 0,
        budget=budget,
        version=machine.package("fastcam"),
        **more,
    )


def _digest() -> str:
    folder = Path(fastcam.__file__).parent
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in SOURCES)).hexdigest()[:12]
