"""Many pictures for an evaluation: those of a data set with labels and boxes, or cuts of the bundled ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from bench.models import PICTURES
from fastcam import image
from fastcam.datasets import fit_boxes, open_dataset, prefetch
from fastcam.datasets.sample import Problem, Sample
from fastcam.image import Preprocess

BATCH = 16


@dataclass(frozen=True)
class Batch:
    """Images as the model takes them, and what is known of them.

    Attributes:
        images: (B, 3, H, W)
        labels: (B,)
        boxes: B tensors (n, 4), pixels of the images, far edges exclusive.
        ids: place of each in the data set.
    """

    images: Tensor
    labels: Tensor
    boxes: list[Tensor]
    ids: list[int]


@dataclass
class Pictures:
    """The labeled pictures of a data set, the first `limit` of them.

    Attributes:
        name: of the data set, for rows.
        samples: with one label each.
        warp: whether whole pictures are resized to the input, without a crop.
        problems: what could not be used.
        fingerprint: of the data set's names and annotations.
    """

    name: str
    samples: list[Sample]
    warp: bool
    problems: list[Problem] = field(default_factory=list)
    fingerprint: str = ""

    @classmethod
    def open(cls, path: Path, limit: int | None = None) -> Pictures:
        """The data set at a path, its classes numbered as ImageNet's where folders are named by WordNet ids.

        The pictures of an `annotations.json` were warped to a square, and are again.

        Raises:
            ValueError: nothing there that can be used, or no picture with one label.
        """
        found = open_dataset(path)
        if found.kind == "imagefolder":
            with contextlib.suppress(ValueError):  # folders of other names stay numbered in sorted order
                found = open_dataset(path, class_index="imagenet")
        labeled = [sample for sample in found.samples if sample.label is not None]
        if not labeled:
            raise ValueError(f"--data {path}: none of {len(found)} pictures has one label")
        name = path.resolve().parent.name if path.is_file() else path.resolve().name
        warp = found.kind == "annotations"
        return cls(name, labeled[:limit], warp, list(found.problems), found.fingerprint[:12])

    def __len__(self) -> int:
        return len(self.samples)

    def settings(self, wanted: Preprocess) -> Preprocess:
        """How a model's pictures are prepared from this data set."""
        if not self.warp or wanted.crop is None:
            return wanted
        side = wanted.crop if isinstance(wanted.crop, tuple) else (wanted.crop, wanted.crop)
        return replace(wanted, size=side, crop=None)

    def batches(
        self, wanted: Preprocess, size: int = BATCH, start: int = 0, stop: int | None = None
    ) -> Iterator[Batch]:
        """The pictures from `start` to `stop`; one that cannot be read becomes a problem, once."""
        settings = self.settings(wanted)
        kept: list[tuple[int, Sample, Tensor]] = []
        loaded = prefetch(self.samples[start:stop], settings, ahead=2 * size)
        for place, (sample, picture) in enumerate(loaded, start):
            if isinstance(picture, Tensor):
                kept.append((place, sample, picture))
            elif picture not in self.problems:
                self.problems.append(picture)
            if len(kept) == size:
                yield _batch(kept, settings)
                kept = []
        if kept:
            yield _batch(kept, settings)


def _batch(kept: list[tuple[int, Sample, Tensor]], settings: Preprocess) -> Batch:
    labels = torch.tensor([sample.label for _, sample, _ in kept])
    boxes = [fit_boxes(sample.boxes, sample.size, settings) for _, sample, _ in kept if sample.size is not None]
    return Batch(torch.stack([picture for *_, picture in kept]), labels, boxes, [place for place, *_ in kept])


def bundled(count: int, wanted: Preprocess, size: int = BATCH) -> Iterator[Batch]:
    """Cuts of the bundled pictures, no two alike, with made-up labels and boxes: for time, not for values."""
    random = torch.Generator().manual_seed(0)
    pictures = [image.read(path) for path in PICTURES]

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=random))

    for start in range(0, count, size):
        ids = list(range(start, min(start + size, count)))
        images, boxes = [], []
        for index in ids:
            picture = pictures[index % len(pictures)]
            side = int(uniform(0.6, 1.0) * min(picture.shape[:2]))
            top, left = (int(uniform(0, length - side)) for length in picture.shape[:2])
            cut = picture[top : top + side, left : left + side].contiguous()
            images.append(image.preprocess(cut, wanted)[0])
            height, width = images[-1].shape[1:]
            x, y = uniform(0, width / 2), uniform(0, height / 2)
            boxes.append(torch.tensor([[x, y, x + uniform(20, width / 2), y + uniform(20, height / 2)]]))
        yield Batch(torch.stack(images), torch.randint(0, 1000, (len(ids),), generator=random), boxes, ids)
