"""Rows of the reproduced table: what decides them, how they are kept, and which are done already."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from bench.published import COLUMNS, Scores
from fastcam.metrics import adcc

PARTS = {  # columns that are means over images
    "drop": "average_drop",
    "increase": "increase_in_confidence",
    "deletion": "deletion",
    "insertion": "insertion",
    "coherency": "coherency",
    "complexity": "complexity",
}


@dataclass(frozen=True)
class Job:
    """One row's work.

    Attributes:
        model: its name.
        method: its name.
        kernel: of Recipro-CAM, else "".
        protocol: see `fastcam.metrics.PROTOCOLS`.
    """

    model: str
    method: str
    kernel: str = ""
    protocol: str = "paper"

    @property
    def what(self) -> str:
        kernel = f" ({self.kernel})" if self.kernel else ""
        return f"{self.model}, {self.method}{kernel}, protocol {self.protocol}"


@dataclass
class Result:
    """One row: percentages, and everything that decided them.

    Attributes:
        model, method, kernel, protocol: see `Job`.
        subset: "all" the pictures that this method saw, or "common", those that every method saw.
        images: pictures.
        curve_images: of these, the pictures for insertion and deletion.
        drop, increase, deletion, insertion, coherency, complexity: means over images, percent.
        adcc: the harmonic mean of the data set's means, percent.
        seconds: of one picture's map, in batches.
        forwards: images through the network for one map.
        bare: seconds of one picture's forward in the same batches.
        weights: where they come from.
        data: name of the data set.
        settings: what else decides the numbers.
        commit, fastcam, torch, processor, threads, date: where it was made.
    """

    model: str
    method: str
    kernel: str
    protocol: str
    subset: str
    images: int
    curve_images: int
    drop: float
    increase: float
    deletion: float
    insertion: float
    coherency: float
    complexity: float
    adcc: float
    seconds: float
    forwards: float
    bare: float
    weights: str
    data: str
    settings: str
    commit: str = ""
    fastcam: str = ""
    torch: str = ""
    processor: str = ""
    threads: str = ""
    date: str = ""

    @property
    def job(self) -> Job:
        return Job(self.model, self.method, self.kernel, self.protocol)

    @property
    def scores(self) -> Scores:
        return {column: getattr(self, column) for column in COLUMNS}


def averages(values: Mapping[str, Sequence[float]], images: int, curve_images: int) -> Scores:
    """The columns, percent, over the first pictures.

    Args:
        values: each metric's values, a picture each.
        images: how many.
        curve_images: how many for deletion and insertion, which may have been asked of fewer.
    """
    means = {}
    for column, metric in PARTS.items():
        given = values[metric][: curve_images if metric in {"deletion", "insertion"} else images]
        means[column] = math.fsum(given) / len(given) if given else math.nan
    parts = [torch.tensor([means[column]], dtype=torch.float64) for column in ("drop", "coherency", "complexity")]
    means["adcc"] = float(adcc(*parts)[0])
    return {column: 100 * means[column] for column in COLUMNS}


def write(path: Path, rows: Sequence[Any], kind: type = Result) -> None:
    """Rows of a dataclass as CSV, whole or not at all: a run may be stopped at any moment.

    Args:
        path: of the file.
        rows: of one kind.
        kind: their class, whose fields are the columns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}.part")
    with beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(kind)], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(row).items()})
    os.replace(beside, path)


def read(path: Path, kind: type = Result) -> list[Any]:
    """The rows of a file, none where there is no such file."""
    if not path.exists():
        return []
    kinds: dict[str, Any] = {"int": int, "float": float, "str": str}
    types = {field.name: kinds[str(field.type)] for field in fields(kind)}
    with path.open(newline="", encoding="utf-8") as file:
        return [kind(**{name: types[name](text) for name, text in line.items()}) for line in csv.DictReader(file)]


def replaced(rows: Iterable[Result], new: Sequence[Result]) -> list[Result]:
    """The rows with a job's old ones replaced by its new ones."""
    return [row for row in rows if row.job != new[0].job] + list(new)
