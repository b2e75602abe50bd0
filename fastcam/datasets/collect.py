"""Gather samples and problems while an annotation format is read: every entry ends as one or the other."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastcam.datasets.labels import Labels
from fastcam.datasets.masks import Polygon, Runs
from fastcam.datasets.sample import Box, Dataset, Problem, Sample

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jfif"}


class Collector:
    """Samples, problems and counts of one data set being read."""

    def __init__(self, kind: str, root: str | os.PathLike[str]) -> None:
        self.kind, self.root = kind, Path(root)
        self.samples: list[Sample] = []
        self.problems: list[Problem] = []
        self.lacking: list[Problem] = []
        self.notes: list[str] = []
        self.counts: Counter[str] = Counter()
        self._keys: set[str] = set()
        self._folders: dict[str, set[str]] = {}

    def add(self, sample: Sample) -> None:
        """Keeps a sample, unless its key was there before."""
        if sample.key in self._keys:
            self.lose(sample.source.name, f"{sample.key!r} is listed twice; the first one counts")
            return
        self._keys.add(sample.key)
        self.samples.append(sample)

    def lose(self, file: str | os.PathLike[str], reason: str, lost: str = "sample") -> None:
        """Writes down what cannot be used."""
        self.problems.append(Problem(str(file), reason, lost))

    def lack(self, file: str | os.PathLike[str], reason: str) -> None:
        """Writes down that nothing says where the object of a picture is: a fault where others have boxes or masks."""
        self.lacking.append(Problem(str(file), f"{reason}, which others have", "box"))

    def has(self, path: str) -> bool:
        """Whether a file exists, by listing its folder once: one system call a folder, not one a picture."""
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        return name in self._folders[folder]

    def size(self, height: Any, width: Any) -> tuple[int, int] | None:
        """The size of a picture as annotations give it; None where they do not."""
        sides = (height, width)
        return (int(height), int(width)) if all(isinstance(s, int | float) and s >= 1 for s in sides) else None

    def box(self, file: str | os.PathLike[str], corners: Any, size: tuple[int, int] | None, shown: Any) -> Box | None:
        """A box that holds something of the picture; otherwise it is written down as lost.

        Args:
            file: where the box is written.
            corners: x0 y0 x1 y1, x1 and y1 outside.
            size: (H, W) of the picture, or None when unknown.
            shown: the box as the file has it, for the message.
        """
        fault = _fault(corners, size)
        if fault is None:
            return tuple(map(float, corners))  # type: ignore[return-value]  # four numbers, just checked
        self.lose(file, f"box {shown!r} {fault}", "box")
        return None

    def outline(self, file: str | os.PathLike[str], value: Any, shown: str) -> tuple[Polygon, ...] | Runs | None:
        """Polygons or runs as COCO's JSON holds them; None when absent, and written down when damaged."""
        if not value:
            return None
        if isinstance(value, dict):
            counts, size = value.get("counts"), value.get("size")
            if isinstance(counts, str | list) and isinstance(size, list) and len(size) == 2:
                return Runs(counts if isinstance(counts, str) else tuple(counts), (size[0], size[1]))
        elif isinstance(value, list) and all(map(_is_polygon, value)):
            return tuple(tuple(map(float, polygon)) for polygon in value)
        self.lose(file, f"{shown}: neither polygons of at least three points nor runs with a size", "outline")
        return None

    def finish(self, labels: Labels) -> Dataset:
        """The data set.

        Args:
            labels: what numbered its classes.

        Raises:
            ValueError: not a single usable sample.
        """
        if not self.samples:
            first = "; ".join(f"{problem.file}: {problem.reason}" for problem in self.problems[:3])
            raise ValueError(
                f"no usable sample in {str(self.root)!r} read as {self.kind} ({len(self.problems)} problems"
                f"{', first ' + first if first else ''})"
            )
        if any(one.boxes or one.mask_paths or any(o.outline for o in one.objects) for one in self.samples):
            self.problems += self.lacking
        notes = [f"{what}: {count}" for what, count in self.counts.items() if count]
        return Dataset(self.kind, self.samples, labels.classes, self.problems, self.notes + notes)


def _fault(corners: Any, size: tuple[int, int] | None) -> str | None:
    if not isinstance(corners, Sequence) or len(corners) != 4:
        return "has not four numbers"
    if not all(isinstance(c, int | float) and not isinstance(c, bool) and math.isfinite(c) for c in corners):
        return "holds what is no finite number"
    x0, y0, x1, y1 = corners
    if x1 <= x0 or y1 <= y0:
        return "ends before it begins" if x1 < x0 or y1 < y0 else "is empty"
    if x1 <= 0 or y1 <= 0 or (size and (x0 >= size[1] or y0 >= size[0])):
        return f"lies outside the picture{f' of {size[0]} x {size[1]} pixels' if size else ''}"
    return None


def _is_polygon(value: Any) -> bool:
    numbers = isinstance(value, list) and len(value) >= 6 and len(value) % 2 == 0
    return numbers and all(isinstance(v, int | float) for v in value) and math.isfinite(sum(value))


def is_picture(name: str) -> bool:
    """Whether a file name ends like a picture's."""
    return os.path.splitext(name)[1].lower() in PICTURES


def pictures_below(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the picture files and of the other files below a folder, relative to it, in torchvision's order.

    Hidden files and folders are passed over; links to folders are followed.
    """
    walked = []
    for base, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        walked.append((base, sorted(names)))
    found: list[str] = []
    others: list[str] = []
    for base, names in sorted(walked):
        prefix = os.path.relpath(base, folder)
        for name in names:
            path = name if prefix == "." else f"{prefix}/{name}".replace(os.sep, "/")
            if not name.startswith(".") and name != "Thumbs.db":
                (found if is_picture(name) else others).append(path)
    return found, others
