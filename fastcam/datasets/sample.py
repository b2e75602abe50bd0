"""What a data set holds: samples with their annotations, what was wrong, and a fingerprint of it all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import PurePath

from torch import Tensor

from fastcam.datasets.masks import Polygon, Runs, draw, read_mask, union
from fastcam.datasets.source import File, Member, Row

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a data set that cannot be used.

    Attributes:
        file: the file or folder it is in.
        reason: what is wrong, and the mend where there is one.
        lost: what is left out because of it: "sample", "box", "label", "outline", "file" or "class".
    """

    file: str
    reason: str
    lost: str = "sample"


@dataclass(frozen=True, slots=True)
class Object:
    """One annotated object.

    Attributes:
        box: x0 y0 x1 y1 in pixels of the stored picture; x1 and y1 are the first column and row outside.
        labels: the classes that mean it; several where one category is many classes of the model.
        outline: polygons (x0 y0 x1 y1 … in pixels) or runs, or None.
        crowd: a region of many objects that are not told apart: no box, and ignored in masks.
        category: its name in the annotations.
    """

    box: Box | None = None
    labels: tuple[int, ...] = ()
    outline: tuple[Polygon, ...] | Runs | None = None
    crowd: bool = False
    category: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture and what is known about it; the picture itself is read when asked for.

    Attributes:
        key: names it within its data set, the same on every machine.
        source: where the picture lies.
        label: its one class, or None where it has none or several.
        labels: all its classes.
        objects: annotated objects; of a labeled sample those of its class only.
        targets: classes to explain one by one, where the annotations list them; otherwise `labels`.
        size: (H, W) of the stored picture as the annotations say it, or None.
        mask_paths: pictures of masks, of which the union counts.
        ignore_path: picture of the mask of what is neither object nor background.
    """

    key: str
    source: File | Member | Row
    label: int | None = None
    labels: tuple[int, ...] = ()
    objects: tuple[Object, ...] = ()
    targets: tuple[int, ...] | None = None
    size: tuple[int, int] | None = None
    mask_paths: tuple[str, ...] = ()
    ignore_path: str | None = None

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Boxes of the objects, corners x0 y0 x1 y1 in pixels of the stored picture, x1 and y1 outside."""
        return tuple(one.box for one in self.objects if one.box and not one.crowd)

    @property
    def polygons(self) -> tuple[Polygon, ...]:
        """Polygons of the objects, x0 y0 x1 y1 … in pixels of the stored picture."""
        outlines = [one.outline for one in self.objects if isinstance(one.outline, tuple) and not one.crowd]
        return tuple(polygon for outline in outlines for polygon in outline)

    def read(self) -> Tensor:
        """The picture.

        Returns:
            (H, W, 3) uint8.

        Raises:
            ValueError: missing or damaged, or of another size than the one its boxes and outlines were made for.
        """
        picture = self.source.read()
        height, width = picture.shape[:2]
        if self.size and self.size != (height, width) and self.objects:
            raise ValueError(
                f"{self.source.name!r} has {height} x {width} pixels, its boxes were made for {self.size[0]} x "
                f"{self.size[1]}; give the pictures that were annotated, or scale the annotations"
            )
        return picture

    def mask(self, height: int, width: int) -> Tensor | None:
        """The pixels of its objects, after resizing the picture to a size.

        A pixel counts when its center lies inside a polygon, or when the nearest pixel of a mask counts.

        Args:
            height: rows wanted.
            width: columns wanted.

        Returns:
            (height, width) bool, or None when nothing has an outline.

        Raises:
            ValueError: a mask that is missing, damaged or of another size.
        """
        parts = self._draw(False, height, width) + [read_mask(path, height, width) for path in self.mask_paths]
        return union(parts)

    def ignored(self, height: int, width: int) -> Tensor | None:
        """The pixels that are neither object nor background: crowds and ignore masks, less the objects.

        Args:
            height: rows wanted.
            width: columns wanted.

        Returns:
            (height, width) bool, or None when there are none.

        Raises:
            ValueError: a mask that is missing, damaged or of another size.
        """
        parts = self._draw(True, height, width)
        if self.ignore_path:
            parts.append(read_mask(self.ignore_path, height, width))
        ignored = union(parts)
        mask = None if ignored is None else self.mask(height, width)
        return ignored if ignored is None or mask is None else ignored & ~mask

    def _draw(self, crowd: bool, height: int, width: int) -> list:
        outlines = [one.outline for one in self.objects if one.outline and one.crowd == crowd]
        if not outlines:
            return []
        size = self.size or tuple(self.read().shape[:2])
        return [draw(outline, (size[0], size[1]), height, width) for outline in outlines]


@dataclass
class Dataset:
    """Samples in a fixed order, and everything that was found wrong with them.

    Attributes:
        kind: the format, one of `KINDS`.
        samples: in the order of the data set.
        classes: name of each class number, where the data set knows them.
        problems: what was left out, each with file and reason.
        notes: what a reader of results should know, such as how classes were numbered.
    """

    kind: str
    samples: list[Sample]
    classes: list[str] | None = None
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def __repr__(self) -> str:
        return f"Dataset({self.kind}, {len(self.samples)} samples, {len(self.problems)} problems)"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of kind, keys, classes, boxes and outlines in order; equal wherever the data set lies."""
        state = hashlib.sha256(self.kind.encode())
        for one in self.samples:
            masks = [PurePath(path).name for path in (*one.mask_paths, one.ignore_path or "")]
            state.update(repr((one.key, one.label, one.labels, one.targets, one.objects, one.size, masks)).encode())
        return state.hexdigest()

    def by_target(self) -> Dataset:
        """One sample for each class to explain in each picture, with the objects of that class only.

        The classes are a sample's `targets` where the annotations list them, all its `labels` otherwise. A picture
        with none gives no sample: a problem where nothing is annotated, else counted in a note, since its objects
        are of no class of the model. Keys end in "@" and the class.
        """
        samples = []
        for one in self.samples:
            for target in one.labels if one.targets is None else one.targets:
                objects = of_class(one.objects, target)
                key = f"{one.key}@{target}"
                samples.append(
                    replace(one, key=key, label=target, labels=(target,), targets=(target,), objects=objects)
                )
        without = [one for one in self.samples if not (one.labels if one.targets is None else one.targets)]
        bare = dict.fromkeys(one.source.name for one in without if not one.objects and one.targets is None)
        problems = [one for one in self.problems if one.file not in bare or one.lost not in ("box", "label")]
        problems += [Problem(name, "neither a class nor an object, so nothing to explain") for name in bare]
        others = len(without) - len(bare)
        notes = [f"pictures without a class to explain: {others}"] if others else []
        return Dataset(self.kind, samples, self.classes, problems, self.notes + notes)

    def within(self, classes: int) -> Dataset:
        """Moves samples whose class a model does not have to the problems.

        Args:
            classes: how many classes the model has.
        """
        samples, problems = [], list(self.problems)
        for one in self.samples:
            wrong = [number for number in {*one.labels, *(one.targets or ())} if number >= classes]
            if wrong:
                reason = (
                    f"class {max(wrong)} of {one.key!r} is outside the model's {classes} classes; give class_index, "
                    "or the model these classes belong to"
                )
                problems.append(Problem(one.source.name, reason))
            else:
                samples.append(one)
        return Dataset(self.kind, samples, self.classes, problems, self.notes)


def of_class(objects: tuple[Object, ...], label: int) -> tuple[Object, ...]:
    """The objects of a class."""
    return tuple(one for one in objects if label in one.labels)
