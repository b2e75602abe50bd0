"""What a worker does: keep the model, the methods and the metrics, and turn one shard after the other into a result."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor

from fastcam import CAM, image
from fastcam.datasets import Dataset, Problem, Sample, fit_boxes, fit_corners, fit_mask, prefetch
from fastcam.distributed.identity import machine
from fastcam.distributed.rows import Columns, interleave, join
from fastcam.distributed.shards import Plan, Result

if TYPE_CHECKING:
    from fastcam.metrics import Evaluation

Loaded = tuple[Sample, Tensor | Problem]


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
        explains: which class faithfulness explains, "predicted" or "target": for the rows.
        settings: everything that decides the numbers, as JSON can hold it.
        strict: stop at the first picture that cannot be evaluated.
        loaders: threads that read pictures ahead.
    """

    dataset: Dataset
    cams: Mapping[str, CAM]
    evaluation: Evaluation
    preprocess: image.Preprocess
    device: torch.device
    batch_size: int
    target: int | None
    boxes: bool
    settings: dict[str, Any]
    explains: str = "predicted"
    strict: bool = False
    loaders: int = 2

    @property
    def fingerprint(self) -> str:
        """Equal for equal settings."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()


@dataclass
class Picture:
    """A sample, ready for the model.

    Attributes:
        index: in the data set.
        sample: with its key and label.
        images: (3, H, W) float32
        boxes: (n, 4) in pixels of the model's input, far edges exclusive.
        corners: (n, 4), their first and last pixels as WSOL evaluations have them.
        mask: (H, W) bool, or None.
        ignored: (H, W) bool, pixels that are neither object nor background, or None.
        problems: boxes of which the model sees nothing.
    """

    index: int
    sample: Sample
    images: Tensor
    boxes: Tensor
    corners: Tensor
    mask: Tensor | None
    ignored: Tensor | None
    problems: tuple[Problem, ...] = ()


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

    def results(self, plan: Plan, shards: Sequence[int]) -> Iterator[Result]:
        """The results of shards, one after the other; pictures are read ahead meanwhile.

        Raises:
            ValueError: a picture cannot be evaluated, and the job is strict.
        """
        job = self.job
        samples = (job.dataset.samples[index] for shard in shards for index in plan.shard(shard))
        loading = cast(
            "Generator[Loaded, None, None]", prefetch(samples, job.preprocess, job.loaders, 2 * job.batch_size)
        )
        try:
            for shard in shards:
                result = self._compute(shard, plan.shard(shard), loading)
                result.stamp = plan.stamp(shard)
                yield result
        finally:
            loading.close()

    def _compute(self, shard: int, indices: list[int], loading: Iterator[Loaded]) -> Result:
        """The result of a shard: its rows image by image and method by method, its states alone."""
        began, waited, images = time.perf_counter(), 0.0, 0
        evaluation, step = self.job.evaluation, self.job.batch_size
        evaluation.reset()
        pieces: list[Columns] = []
        problems: list[dict[str, str]] = []
        for start in range(0, len(indices), step):
            asked = time.perf_counter()
            numbers = indices[start : start + step]
            found = [self._picture(index, *loaded) for index, loaded in zip(numbers, loading)]  # noqa: B905
            waited += time.perf_counter() - asked
            problems += [asdict(p) for one in found for p in ([one] if isinstance(one, Problem) else one.problems)]
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
        cost = {"seconds": time.perf_counter() - began, "waited": waited, "machine": machine(self.job.device)}
        return Result(shard, images, rows, evaluation.states(), problems, cost)

    def _picture(self, index: int, sample: Sample, loaded: Tensor | Problem) -> Picture | Problem:
        """The picture with its boxes and its mask where the model sees them; or what is wrong with them."""
        if isinstance(loaded, Problem) or sample.size is None:
            return loaded if isinstance(loaded, Problem) else Problem(sample.key, "its size is not known")
        try:
            place = (sample.size, self.job.preprocess)
            boxes, corners = (fit(sample.boxes, *place) for fit in (fit_boxes, fit_corners))
            mask = fit_mask(sample, *place)
            ignored = None if mask is None else fit_mask(sample, *place, ignored=True)
            return Picture(index, sample, loaded, boxes, corners, mask, ignored, self._cut(sample, len(boxes)))
        except ValueError as reason:
            return Problem(sample.source.name, str(reason))

    def _cut(self, sample: Sample, kept: int) -> tuple[Problem, ...]:
        """The boxes of which the model sees nothing."""
        found, reason = [], "is cut away by the crop; resize 'warp' keeps the whole picture"
        for box in sample.boxes if kept < len(sample.boxes) else ():
            if sample.size and not len(fit_boxes([box], sample.size, self.job.preprocess)):
                corners = ", ".join(f"{side:g}" for side in box)
                found.append(Problem(sample.source.name, f"box ({corners}) {reason}", "box"))
        return tuple(found)

    def _label(self, picture: Picture) -> int | None:
        return picture.sample.label if self.job.target is None else self.job.target

    def _alike(self, pictures: Sequence[Picture]) -> list[list[Picture]]:
        """Groups that have a label all or none, and a mask all or none, as a batch must."""
        groups: dict[tuple[bool, bool], list[Picture]] = {}
        for picture in pictures:
            groups.setdefault((self._label(picture) is not None, picture.mask is not None), []).append(picture)
        return list(groups.values())

    def _evaluate(self, pictures: Sequence[Picture]) -> Columns:
        """The rows of one batch."""
        job = self.job
        images = torch.stack([picture.images for picture in pictures]).to(job.device)
        indices = [picture.index for picture in pictures]
        labels = [self._label(picture) for picture in pictures]
        masks = [picture.mask for picture in pictures if picture.mask is not None]
        ignored = [picture.ignored for picture in pictures]
        if any(one is not None for one in ignored):
            ignored = [torch.zeros_like(m) if one is None else one for m, one in zip(masks, ignored, strict=True)]
        else:
            ignored = []
        values = job.evaluation.update(
            images,
            None if labels[0] is None else torch.tensor(labels, device=job.device),
            [picture.boxes for picture in pictures] if job.boxes else None,
            torch.stack(masks) if masks else None,
            ids=indices,
            ignored=torch.stack(ignored) if ignored else None,
            corners=[picture.corners for picture in pictures] if job.boxes else None,
        )
        assert job.evaluation.logits is not None
        probability, predicted = job.evaluation.logits.float().softmax(1).max(1)
        labeled = labels[0] is not None and job.explains == "target"
        shared = {
            "index": indices,
            "key": [picture.sample.key for picture in pictures],
            "label": [picture.sample.label for picture in pictures],
            "explained": labels if labeled else predicted.tolist(),
            "predicted": predicted.tolist(),
            "probability": probability.tolist(),
        }
        return interleave(values, shared)
