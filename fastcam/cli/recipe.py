"""From the words of `fastcam evaluate` to a job: data set, model, methods and metrics, checked before any work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fastcam
from fastcam import CAM, image
from fastcam.cli import arguments, models
from fastcam.datasets import Dataset, open_dataset
from fastcam.distributed import Job, digest
from fastcam.meta import options_of, resolve
from fastcam.metrics import PROTOCOLS, Evaluation, Protocol
from fastcam.metrics.registry import MetricInfo
from fastcam.metrics.registry import find as find_metrics

RESIZES = ("crop", "warp", "warp-crop")
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
        resize: "crop", "warp", "warp-crop" (see `fastcam.metrics.Protocol`), or None for the protocol's choice.
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
    images: str | None = None
    limit: int | None = None
    target: str | int | None = None
    layer: str | list[str] | None = None
    seed: int = 0
    batch_size: int = 16
    shard_size: int = 16
    max_memory: int | None = None
    device: str | None = None
    precision: str = "float32"
    runtime: str = "torch"
    crop: int | None = None
    resize: str | None = None
    strict: bool = False
    loaders: int = 2

    def build(self) -> Job:
        """Opens the data set, loads the model, and checks that they fit each other.

        Raises:
            ValueError: anything that cannot be evaluated as a whole; the message says how to mend it.
        """
        try:
            dataset = open_dataset(
                self.data, split=self.split, kind=self.kind, class_index=self.class_index, images=self.images
            )
        except ValueError as error:
            raise ValueError(arguments.spelled(str(error))) from error
        over = {} if self.resize is None else {"resize": self.resize}
        protocol = PROTOCOLS[self.protocol].with_options(self.options | over)
        torch.manual_seed(self.seed)  # --weights random are the same ones in every process
        loaded = models.load(self.model, self.weights, self.device, crop=self.crop)
        preprocess = self._fitted(loaded, protocol.resize)
        batch = loaded.batch or self.batch_size
        shared = {"batch_size": batch, "max_memory": self.max_memory}
        shared |= {"precision": self.precision, "runtime": self.runtime}
        own = {
            name: arguments.normalized(options, name, preprocess.mean, preprocess.std)
            for name, options in self.methods.items()
        }
        cams = {name: CAM(loaded.model, name, self.layer, **shared, **own[name]) for name in own}
        classes = _classes(next(iter(cams.values())), loaded, preprocess)
        if isinstance(self.target, int) and self.target >= classes:
            raise ValueError(f"--target {self.target}: {loaded.label} has the classes 0 to {classes - 1}")
        explained = protocol.classes
        if isinstance(self.target, int):
            explained = "target"
        else:
            dataset = dataset.within(classes)
            if any(sample.label is None and (sample.targets or sample.labels) for sample in dataset.samples):
                dataset, explained = dataset.by_target(), "target"
            explained = TARGETS.get(self.target or "", explained)
        problems = [replace(problem, reason=arguments.spelled(problem.reason)) for problem in dataset.problems]
        dataset = replace(dataset, problems=problems, notes=[arguments.spelled(note) for note in dataset.notes])
        evaluation = Evaluation(
            cams,
            self._metrics(dataset),
            protocol=protocol.with_options({"classes": self.options.get("classes", explained)}),
            seed=self.seed,
            mean=preprocess.mean,
            std=preprocess.std,
            num_classes=classes,
        )
        settings = {
            "fastcam": fastcam.__version__,
            "torch": torch.__version__,
            "data": {"kind": dataset.kind, "split": self.split, "fingerprint": dataset.fingerprint},
            "limit": self.limit,
            "model": loaded.label,
            "weights": digest(loaded.model),
            "classes": classes,
            "preprocess": asdict(preprocess),
            "layer": self.layer,
            "target": self.target,
            "precision": self.precision,
            "runtime": self.runtime,
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
            explains="target" if all(i.localizes for i in evaluation.infos) else evaluation.protocol.classes,
            strict=self.strict,
            loaders=self.loaders,
        )

    def _fitted(self, loaded: models.Loaded, resize: str) -> image.Preprocess:
        """What the model wants, resized as told; always one size."""
        preprocess = loaded.preprocess
        crop = preprocess.crop or preprocess.size
        if crop is None or (preprocess.crop is None and isinstance(crop, int)):
            raise ValueError(f"{loaded.label} takes pictures of any size, which do not fit in one batch; give --crop")
        sides = (crop, crop) if isinstance(crop, int) else crop
        size = preprocess.size
        if resize == "warp" or (resize == "warp-crop" and size is None):
            size = sides
        elif resize == "warp-crop" and isinstance(size, int):
            size = (size, size)
        return replace(preprocess, size=size, crop=sides)

    def _metrics(self, dataset: Dataset) -> list[str]:
        """The metrics asked for; patterns leave out what the data set has nothing for."""
        has = {
            "boxes": any(sample.boxes for sample in dataset.samples),
            "masks": any(
                sample.mask_paths or any(one.outline and not one.crowd for one in sample.objects)
                for sample in dataset.samples
            ),
            "target": isinstance(self.target, int) or any(sample.label is not None for sample in dataset.samples),
            "rivals": len(self.methods) > 1,
        }
        found: dict[str, MetricInfo] = {}
        lacking: dict[str, str] = {}
        for pattern in self.metrics:
            for info in find_metrics(pattern):
                needs = (*info.needs, *(["rivals"] if "other_drops" in info.evidence else []))
                missing = [need for need in needs if not any(has[one] for one in need.split(" or "))]
                if not missing:
                    found[info.name] = info
                elif info.name == pattern:
                    lacking[pattern] = missing[0]
        if lacking:
            name, need = next(iter(lacking.items()))
            if need == "rivals":
                raise ValueError(f"{name} compares methods, and there is only {next(iter(self.methods))}; give two")
            raise ValueError(f"{name} needs {NEEDS[need]}, and {self.data} has none; leave the metric out")
        if not found:
            raise ValueError(f"{self.data} has nothing that {', '.join(self.metrics)} could be measured against")
        return list(found)


def _classes(cam: CAM, loaded: models.Loaded, preprocess: image.Preprocess) -> int:
    """How many logits the model gives, by one forward."""
    blank = torch.zeros(1, 3, *preprocess.crop, device=loaded.device)  # type: ignore[misc]  # made a pair above
    logits = cam.scorer(blank)
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise ValueError(f"{loaded.label} gives no logits (B, classes); only classifiers can be evaluated")
    return logits.shape[1]


def absolute(text: str) -> str:
    """A path that holds in processes with another working folder too; what is no path here stays as it is."""
    return os.path.abspath(text) if Path(text).exists() else text


def choices(
    methods: Sequence[str],
    metrics: Sequence[str],
    protocol: str,
    options: Sequence[str],
    target: str | None,
    resize: str | None,
    seed: int,
) -> dict[str, Any]:
    """The fields of a `Recipe` that words on the command line stand for.

    Args:
        methods: names or wildcards, perhaps with commas.
        metrics: likewise.
        protocol: its name.
        options: `name=value` of methods or of the protocol.
        target: "predicted", "label", a class number or None.
        resize: "crop", "warp", "warp-crop" or None.
        seed: for the methods that have one, where `options` give no other.

    Raises:
        ValueError: a name or value that is not known.
    """
    names = arguments.find_methods(methods)
    known = {one.name: one.default for one in fields(Protocol) if one.name not in ("name", "source")}
    of_methods, of_protocol = arguments.split_options(options, names, known)
    patterns = [part.strip() for text in metrics for part in text.split(",")]
    for pattern in patterns:
        find_metrics(pattern)
    if protocol not in PROTOCOLS:
        raise ValueError(f"--protocol is {protocol!r}; choose from {', '.join(PROTOCOLS)}")
    PROTOCOLS[protocol].with_options(of_protocol)
    for name, own in of_methods.items():
        if "seed" in options_of(name):
            own.setdefault("seed", seed)
        resolve(name, own)
    if resize not in (None, *RESIZES):
        raise ValueError(f"--resize is {resize!r}; choose {', '.join(RESIZES[:-1])} or {RESIZES[-1]}")
    if target is not None and target not in TARGETS and not target.isdecimal():
        raise ValueError(f"--target is {target!r}; give predicted, label or a class number")
    return {
        "methods": of_methods,
        "metrics": patterns,
        "protocol": protocol,
        "options": of_protocol,
        "target": target if target in TARGETS or target is None else int(target),
        "resize": resize,
    }


NEEDS = {"boxes": "boxes", "masks": "masks", "boxes or masks": "boxes or masks", "target": "labels"}
