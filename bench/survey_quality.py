"""How good the maps of every method are on labeled pictures with boxes: faithfulness and localization in one table."""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from typing import Any

import torch

from bench import machine
from bench.entries import Entry, entries
from bench.pictures import Pictures
from bench.reproduce import Network, network, weights_of
from bench.results_table import read, write
from bench.rows import RESULTS, duration
from bench.works import LITE0
from fastcam.metrics import Evaluation, adcc

MODELS = ("resnet18", LITE0)
TRANSFORMERS = ("vit_tiny", "vit_b_16")
PARTS = ("average_drop", "coherency", "complexity")
CURVES = ("insertion", "deletion")
BOXES = ("energy_pointing_game", "max_box_acc_v2")
LEAST = 8  # pictures of the costliest methods
WORK = 4000  # forwards for the maps of one line; a backward counts as two
STEPS = 28  # of insertion and deletion
CURVED = 24  # pictures of insertion and deletion
BATCH = 8
LABELS = {"classes": "target"}  # what is explained: for localization it must be the label, so it is for all


@dataclass
class Result:
    """One line: percentages, and what decided them.

    Attributes:
        model, method, options: what was asked.
        images: pictures; the costlier a method, the fewer.
        curve_images: of these, for insertion and deletion.
        drop, coherency, complexity, insertion, deletion, energy, boxes: means over the pictures, percent; `boxes` is
            MaxBoxAccV2 of the labels' boxes.
        adcc: the harmonic mean of the means, percent.
        forwards, backwards: images through the network for one map.
        weights, data, settings: what else decides the numbers.
        commit, torch, processor, date: where it was made.
    """

    model: str
    method: str
    options: str
    images: int
    curve_images: int
    adcc: float
    drop: float
    coherency: float
    complexity: float
    insertion: float
    deletion: float
    energy: float
    boxes: float
    forwards: float
    backwards: float
    weights: str
    data: str
    settings: str
    commit: str = ""
    torch: str = ""
    processor: str = ""
    date: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """What a finished line is known by."""
        return self.model, self.method, self.options, self.weights, self.settings


def pictures_for(forwards: float, backwards: float, limit: int, least: int = LEAST) -> int:
    """How many pictures a method is asked about: as many as WORK pays for, two maps a picture."""
    each = 2 * (forwards + 2 * backwards)
    return min(limit, max(least, int(WORK / each)))


def evaluate(entry: Entry, asked: Network, pictures: Pictures, curves: int = CURVED, **settings: Any) -> dict[str, Any]:
    """The values of a method over the first pictures, every score of the picture's label."""
    cam = entry.on(asked.model, asked.preprocess, **settings)
    first = next(pictures.batches(asked.preprocess, 1), None)
    if first is None:
        raise ValueError(f"no picture of {pictures.name} could be read")
    cam.explain(first.images, target=first.labels)  # may run more, to learn what the network is made of
    cost = cam.explain(first.images, target=first.labels).cost
    images = pictures_for(
        cost.forwards, cost.backwards, min(len(pictures), entry.most or len(pictures)), entry.least or LEAST
    )
    curved = min(images, curves)
    values: dict[str, list[float]] = {}
    boxes = math.nan
    for stop, names in ((images, (*PARTS, *BOXES)), (curved, CURVES)):
        part = Evaluation(cam, names, options=LABELS | ({"steps": STEPS} if names is CURVES else {}))
        for batch in pictures.batches(asked.preprocess, BATCH, 0, stop):
            found = part.update(batch.images, batch.labels, boxes=batch.boxes, ids=batch.ids)[part_name(part)]
            for name in names:
                values.setdefault(name, []).extend(found[name].tolist())
        boxes = boxes if names is CURVES else part.compute()[part_name(part)][BOXES[1]]
    means = {name: math.fsum(given) / len(given) for name, given in values.items()}
    harmonic = adcc(*(torch.tensor(means[part], dtype=torch.float64) for part in PARTS))
    return {
        "images": len(values[PARTS[0]]),
        "curve_images": len(values[CURVES[0]]),
        "adcc": 100 * float(harmonic),
        "drop": 100 * means["average_drop"],
        "boxes": 100 * boxes,
        "energy": 100 * means[BOXES[0]],
        "forwards": cost.forwards,
        "backwards": cost.backwards,
        **{name: 100 * means[name] for name in ("coherency", "complexity", *CURVES)},
    }


def part_name(part: Evaluation) -> str:
    """The one method's name in an evaluation."""
    return next(iter(part.sources))


def run(given: argparse.Namespace) -> None:
    """Makes the lines that are missing, cheap ones first, and keeps rows and table after each.

    Raises:
        SystemExit: `--data` cannot be used, or a method cannot explain its pictures.
    """
    try:
        pictures = Pictures.open(given.data, given.limit)
    except ValueError as error:
        raise SystemExit(f"survey: {error}") from None
    file = RESULTS / f"{given.save or 'survey-quality'}.csv"
    models = [name.strip() for name in given.models.split(",") if name.strip()] or list(MODELS)
    curves = CURVED if given.curve_limit is None else given.curve_limit
    settings = f"{pictures.fingerprint} {len(pictures)} work={WORK} steps={STEPS} curves={curves} seed=0"
    about = machine.describe(given.device)
    where = {name: about[name] for name in ("commit", "torch", "processor", "date")}
    for model in models:
        weights = weights_of(model, given.weights)
        for entry in entries(transformer=model in TRANSFORMERS):
            key = (model, entry.name, entry.what, weights, settings)
            if given.only not in f"quality {model} {entry.name}" or key in {row.key for row in read(file, Result)}:
                continue
            began = time.perf_counter()
            asked = network(model, given.weights, given.device)
            try:
                found = evaluate(entry, asked, pictures, curves, runtime=given.runtime)
            except ValueError as error:
                raise SystemExit(f"survey: {model}, {entry.line}: {error}") from None
            found |= {"model": model, "method": entry.name, "options": entry.what, **where}
            new = Result(**found, weights=weights, data=pictures.name, settings=settings)
            old = [row for row in read(file, Result) if row.key[:3] != new.key[:3]]
            write(file, [*old, new], Result)
            print(
                f"  {model}, {entry.name}: ADCC {new.adcc:.1f} of {new.images} pictures, "
                f"{duration(time.perf_counter() - began)}",
                flush=True,
            )
