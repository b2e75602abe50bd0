"""What a worker does: keep the model, the methods and the metrics, and turn one shard after the other into a result."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from fastcam import CAM, image
from fastcam.datasets import fit_boxes
from fastcam.distributed.identity import machine
from fastcam.distributed.rows import Columns, interleave, join
from fastcam.distributed.shards import Plan, Result

if TYPE_CHECKING:
    from fastcam.metrics import Evaluation


class Recipe(Protocol):
    """Everything a worker is built from; it can be pickled and sent to another machine."""

    def build(self) -> Job:
        """Loads the model and opens the data set."""
        ...


@dataclass
class Job:
    """What stays the same from shard to shard.

    Attributes:
        dataset: of `fastcam.datasets.open_dataset`.
        cams: by the names that their rows have.
        evaluation: of these cams.
        preprocess: what the model wants; every picture must come out at the same size.
        device: where the model is.
        batch_size: pictures at a time, never across shards.
        target: a class that every picture is evaluated for; None takes its label, where it has one.
        boxes: whether the data set has any.
        settings: everything that decides the numbers, as JSON can hold it.
        strict: stop at the first picture that cannot be evaluated.
        loaders: threads that read pictures ahead.
    """

    dataset: Any
    cams: Mapping[str, CAM]
    evaluation: Evaluation
    preprocess: image.Preprocess
    device: torch.device
    batch_size: int
    target: int | None
    boxes: bool
    settings: dict[str, Any]
    strict: bool = False
    loaders: int = 2

    @property
    def fingerprint(self) -> str:
        """Equal for equal settings."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()


@dataclass
class Unreadable:
    """A sample that cannot be evaluated."""

    file: str
    reason: str


@dataclass
class Picture:
    """A sample, ready for the model.

    Attributes:
        index: in the data set.
        images: (3, H, W) float32
        boxes: (n, 4) in pixels of the model's input, far edges exclusive.
        mask: (H, W) bool, or None.
    """

    index: int
    images: Tensor
    boxes: Tensor
    mask: Tensor | None


class Worker:
    """Computes shards.

    Args:
        job: what to compute.
        fingerprint: of the job that the run was started with; None where it is this one.

    Raises:
        ValueError: the same recipe makes another job here.
    """

    def __init__(self, job: Job, fingerprint: str | None = None) -> None:
        if fingerprint not in (None, job.fingerprint):
            raise ValueError(
                f"{platform.node()} has another model, data set or version than the machine that started the run; "
                "give all of them the same files and packages, and weights from a file rather than random ones"
            )
        self.job = job
        self.pool = ThreadPoolExecutor(job.loaders, "load")

    def results(self, plan: Plan, shards: Sequence[int]) -> Iterator[Result]:
        """The results of shards, one after the other; the pictures of the next one are read meanwhile."""
        ahead = [self.load(plan, shard) for shard in shards[:1]]
        try:
            for number, shard in enumerate(shards):
                ahead += [self.load(plan, following) for following in shards[number + 1 : number + 2]]
                yield self.compute(shard, ahead.pop(0))
        finally:
            for future in (future for loading in ahead for future in loading):
                future.cancel()

    def close(self) -> None:
        """Ends the threads that read pictures."""
        self.pool.shutdown(cancel_futures=True)

    def load(self, plan: Plan, shard: int) -> list[Future[Picture | Unreadable]]:
        """Starts to read the pictures of a shard; each future holds one, or why it cannot be evaluated."""
        return [self.pool.submit(self._picture, index) for index in plan.shard(shard)]

    def _picture(self, index: int) -> Picture | Unreadable:
        sample = self.job.dataset.samples[index]
        try:
            picture = sample.read()
            images, view = image.preprocess(picture, self.job.preprocess)
            mask = sample.mask(*view.shape[:2])
        except (ValueError, OSError) as reason:
            return Unreadable(sample.key, str(reason))
        boxes = fit_boxes(sample.boxes, (int(picture.shape[0]), int(picture.shape[1])), self.job.preprocess)
        return Picture(index, images, torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4), mask)

    def compute(self, shard: int, loading: Sequence[Future[Picture | Unreadable]]) -> Result:
        """Evaluates a shard.

        Args:
            shard: its number.
            loading: what `load` gave.

        Returns:
            Rows image by image and within an image method by method; the states of this shard alone.

        Raises:
            ValueError: a picture cannot be read, and the job is strict.
        """
        began, waited, images = time.perf_counter(), 0.0, 0
        evaluation, step = self.job.evaluation, self.job.batch_size
        evaluation.reset()
        pieces: list[Columns] = []
        problems: list[dict[str, str]] = []
        for start in range(0, len(loading), step):
            asked = time.perf_counter()
            found = [future.result() for future in loading[start : start + step]]
            waited += time.perf_counter() - asked
            problems += [vars(one) for one in found if isinstance(one, Unreadable)]
            if problems and self.job.strict:
                raise ValueError("{file}: {reason}".format(**problems[0]))
            for group in self._alike([one for one in found if isinstance(one, Picture)]):
                pieces.append(self._evaluate(group))
                images += len(group)
        rows = join(pieces)
        if images:
            costs = evaluation.costs()
            seconds = [costs.get(f"method {name}", {}).get("seconds", math.nan) for name in rows["method"]]
            rows["seconds"] = torch.tensor(seconds, dtype=torch.float64)
        cost = {
            "seconds": time.perf_counter() - began,
            "waited": waited,
            "machine": machine(self.job.device),
        }
        return Result(shard, images, rows, evaluation.states(), problems, cost)

    def _label(self, index: int) -> int | None:
        return self.job.dataset.samples[index].label if self.job.target is None else self.job.target

    def _alike(self, pictures: Sequence[Picture]) -> list[list[Picture]]:
        """Groups that have a label all or none, and a mask all or none, as a batch must."""
        groups: dict[tuple[bool, bool], list[Picture]] = {}
        for picture in pictures:
            known = (self._label(picture.index) is not None, picture.mask is not None)
            groups.setdefault(known, []).append(picture)
        return list(groups.values())

    def _evaluate(self, pictures: Sequence[Picture]) -> Columns:
        """The rows of one batch."""
        job = self.job
        images = torch.stack([picture.images for picture in pictures]).to(job.device)
        indices = [picture.index for picture in pictures]
        labels = [self._label(index) for index in indices]
        masks = [picture.mask for picture in pictures if picture.mask is not None]
        values = job.evaluation.update(
            images,
            None if labels[0] is None else torch.tensor(labels, device=job.device),
            [picture.boxes for picture in pictures] if job.boxes else None,
            torch.stack(masks) if masks else None,
            ids=indices,
        )
        logits = getattr(job.evaluation, "logits", None)
        if logits is None:
            logits = next(iter(job.cams.values())).scorer(images)
        probability, predicted = logits.float().softmax(1).max(1)
        samples = [job.dataset.samples[index] for index in indices]
        shared = {
            "index": indices,
            "key": [sample.key for sample in samples],
            "label": [sample.label for sample in samples],
            "predicted": predicted.tolist(),
            "probability": probability.tolist(),
        }
        return interleave(values, shared)
