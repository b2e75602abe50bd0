"""From the words of `fastcam evaluate` to a job: data set, model, methods and metrics, checked before any work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fastcam
from fastcam import CAM
from fastcam.cli import models
from fastcam.datasets import open_dataset
from fastcam.distributed import Job, Plan, digest
from fastcam.metrics import Evaluation
from fastcam.metrics.registry import METRICS, MetricInfo
from fastcam.metrics.registry import find as find_metrics

TARGETS = {"label": "target", "predicted": "predicted"}


@dataclass
class Recipe:
    """The command's settings, as they can be sent to another machine; see `fastcam evaluate --help`.

    Attributes:
        data: path of the data set; absolute, so that it holds in every process.
        methods: options by name of the method.
        options: fields of the protocol that differ.
        target: "predicted" or "label" for the metrics of faithfulness, a class number for all, or None for the
            protocol's choice.
    """

    data: str
    model: str | None
    weights: str | None
    methods: dict[str, dict[str, Any]]
    metrics: list[str]
    protocol: str = "paper"
    options: dict[str, Any] = field(default_factory=dict)
    kind: str | None = None
    split: str | None = None
    class_index: str | None = None
    limit: int | None = None
    target: str | int | None = None
    layer: str | list[str] | None = None
    seed: int = 0
    batch_size: int = 16
    shard_size: int = 16
    max_memory: int | None = None
    device: str | None = None
    precision: str = "float32"
    crop: int | None = None
    warp: bool = False
    strict: bool = False
    loaders: int = 2

    def build(self) -> Job:
        """Opens the data set, loads the model, and checks that they fit each other.

        Raises:
            ValueError: anything that cannot be evaluated as a whole; the message says how to mend it.
        """
        dataset = open_dataset(
            self.data, split=self.split, kind=self.kind, class_index=self.class_index and Path(self.class_index)
        )
        if not dataset.samples:
            raise ValueError(f"there is nothing to evaluate in {self.data}: {_first(dataset.problems)}")
        torch.manual_seed(self.seed)  # --weights random are the same ones in every process
        loaded = models.load(self.model, self.weights, self.device, crop=self.crop)
        preprocess = loaded.preprocess
        if self.warp:
            crop = preprocess.crop or preprocess.size
            preprocess = replace(preprocess, size=(crop, crop) if isinstance(crop, int) else crop, crop=None)
        size = preprocess.crop or preprocess.size
        if size is None or (preprocess.crop is None and isinstance(size, int)):
            raise ValueError(f"{loaded.label} takes pictures of any size, which do not fit in one batch; give --crop")
        height, width = (size, size) if isinstance(size, int) else size
        batch = loaded.batch or self.batch_size
        cams = {
            name: CAM(
                loaded.model, name, self.layer, batch_size=batch, max_memory=self.max_memory,
                precision=self.precision, **options,
            )
            for name, options in self.methods.items()
        }  # fmt: skip
        blank = torch.zeros(1, 3, height, width, device=loaded.device)
        logits = next(iter(cams.values())).scorer(blank)
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            raise ValueError(f"{loaded.label} gives no logits (B, classes); only classifiers can be evaluated")
        count = logits.shape[1]
        if isinstance(self.target, int) and not 0 <= self.target < count:
            raise ValueError(f"--target {self.target}: {loaded.label} has the classes 0 to {count - 1}")
        evaluation = Evaluation(
            cams,
            self._metrics(dataset),
            protocol=self.protocol,
            options=self.options | ({"classes": "target"} if isinstance(self.target, int) else {})
            | ({"classes": TARGETS[self.target]} if isinstance(self.target, str) else {}),
            seed=self.seed,
            mean=preprocess.mean,
            std=preprocess.std,
            num_classes=count,
        )  # fmt: skip
        settings = {
            "fastcam": fastcam.__version__,
            "torch": torch.__version__,
            "data": {"kind": dataset.kind, "split": self.split, "fingerprint": dataset.fingerprint},
            "limit": self.limit,
            "model": loaded.label,
            "weights": digest(loaded.model),
            "classes": count,
            "preprocess": asdict(preprocess),
            "layer": self.layer,
            "target": self.target,
            "precision": self.precision,
            "batch_size": batch,
            "shard_size": self.shard_size,
            "seed": self.seed,
            "evaluation": evaluation.settings(),
        }
        return Job(
            dataset=dataset,
            cams=cams,
            evaluation=evaluation,
            preprocess=preprocess,
            device=loaded.device,
            batch_size=batch,
            target=self.target if isinstance(self.target, int) else None,
            boxes=any(sample.boxes for sample in dataset.samples),
            settings=settings,
            strict=self.strict,
            loaders=self.loaders,
        )

    def _metrics(self, dataset: Any) -> list[str]:
        """The metrics asked for; patterns leave out what the data set has nothing for."""
        has = {
            "boxes": any(sample.boxes for sample in dataset.samples),
            "masks": any(sample.polygons or sample.mask_path for sample in dataset.samples),
            "target": isinstance(self.target, int) or any(sample.label is not None for sample in dataset.samples),
        }
        found: dict[str, MetricInfo] = {}
        lacking: dict[str, str] = {}
        for pattern in self.metrics:
            for info in find_metrics(pattern):
                missing = [need for need in info.needs if not has[need]]
                if not missing:
                    found[info.name] = info
                elif info.name == pattern:
                    lacking[pattern] = missing[0]
        if lacking:
            name, need = next(iter(lacking.items()))
            raise ValueError(f"{name} needs {NEEDS[need]}, and {self.data} has none; leave the metric out")
        if not found:
            raise ValueError(f"{self.data} has nothing that {', '.join(self.metrics)} could be measured against")
        return list(found)


def plan_of(job: Job, recipe: Recipe) -> tuple[Plan, list[dict[str, str]]]:
    """Which samples to evaluate, in shards, and what is wrong with the others.

    Args:
        job: made from the recipe.
        recipe: how many there may be.

    Raises:
        ValueError: something is wrong, and the recipe is strict; or nothing is left.
    """
    problems = [{"file": problem.file, "reason": problem.reason} for problem in job.dataset.problems]
    classes = job.settings["classes"]
    labelled = any(METRICS[name].needs == ("target",) for name in job.settings["evaluation"]["metrics"])
    kept = []
    for index, sample in enumerate(job.dataset.samples[: recipe.limit]):
        if job.target is None and sample.label is None and labelled:
            problems.append({"file": sample.key, "reason": "no label, which a metric needs"})
        elif job.target is None and sample.label is not None and not 0 <= sample.label < classes:
            reason = f"label {sample.label} is outside the model's classes 0 to {classes - 1}"
            problems.append({"file": sample.key, "reason": reason})
        else:
            kept.append(index)
    if problems and (recipe.strict or not kept):
        raise ValueError("{file}: {reason}".format(**problems[0]))
    return Plan(kept, recipe.shard_size), problems


NEEDS = {"boxes": "boxes", "masks": "masks", "target": "labels"}


def _first(problems: Iterable[Any]) -> str:
    found = [f"{problem.file}: {problem.reason}" for problem in problems]
    return f"{len(found)} problems, such as {found[0]}" if found else "no pictures"
