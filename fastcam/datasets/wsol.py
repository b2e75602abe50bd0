"""Metadata folders of WSOL evaluation (Choe et al., CVPR 2020; github.com/clovaai/wsolevaluation).

image_ids.txt      path/to/image1.jpg
class_labels.txt   path/to/image1.jpg,65
image_sizes.txt    path/to/image1.jpg,500,375                           width, height
localization.txt   path/to/image1.jpg,111,108,441,193                   pixels from 0, both ends inside
               or  path/to/image1.jpg,path/to/mask.png,path/to/ignore.png
                   (one ignore mask for each picture, on one of its lines)

The evaluation measures boxes with x1 - x0 + 1, so (111, 108, 441, 193) becomes the box (111, 108, 442, 194).
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fastcam.datasets.collect import Collector
from fastcam.datasets.documents import read_lines
from fastcam.datasets.labels import Labels
from fastcam.datasets.sample import Dataset, Object, Sample
from fastcam.datasets.source import File

FILES = ("image_ids.txt", "class_labels.txt")


@dataclass
class _Lines:
    """What the files say of each image id."""

    labels: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    boxes: dict[str, list[list[str]]] = field(default_factory=lambda: defaultdict(list))
    masks: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    ignored: dict[str, str] = field(default_factory=dict)


def read(root: Path, index: Mapping[str, tuple[int, ...]] | None = None, images: Path | None = None) -> Dataset:
    """Reads a metadata folder such as metadata/ILSVRC/test.

    Args:
        root: the folder with image_ids.txt.
        index: class numbers by the number in class_labels.txt.
        images: the folder the ids start from, for masks too; searched for beside the metadata when None.

    Raises:
        ValueError: a file is missing, no folder with the pictures, or no usable sample.
    """
    missing = [name for name in FILES if not (root / name).is_file()]
    if missing:
        raise ValueError(
            f"no {' and no '.join(missing)} in {str(root)!r}; expected a folder such as metadata/ILSVRC/test"
        )
    ids = [line.strip() for line in read_lines(root / "image_ids.txt")]
    collector, labels = Collector("wsol", root), Labels(None, index)
    lines = _read_lines(collector, root, set(ids))
    folder = images or _images_folder(collector, root, ids)
    for identity in ids:
        if sample := _sample(collector, labels, root, folder, identity, lines):
            collector.add(sample)
    return collector.finish(labels)


def _read_lines(collector: Collector, root: Path, ids: set[str]) -> _Lines:
    found = _Lines()
    for name in ("class_labels.txt", "image_sizes.txt", "localization.txt"):
        path = root / name
        if not path.is_file():
            collector.notes.append(f"there is no {name}")
            continue
        for number, line in enumerate(read_lines(path), 1):
            identity, *values = (value.strip() for value in line.split(","))
            if identity not in ids:
                collector.lose(path, f"line {number}: {identity!r} is not in image_ids.txt", "label")
            elif not _take(found, name, identity, values):
                collector.lose(path, f"line {number} is {line!r}; expected {_FORMS[name]}", "box")
    return found


_FORMS = {
    "class_labels.txt": "path,class",
    "image_sizes.txt": "path,width,height",
    "localization.txt": "path,x0,y0,x1,y1 or path,mask,ignored",
}


def _take(found: _Lines, name: str, identity: str, values: list[str]) -> bool:
    if name == "class_labels.txt" and len(values) == 1:
        found.labels[identity] = values[0]
    elif name == "image_sizes.txt" and len(values) == 2 and all(value.isdigit() for value in values):
        found.sizes[identity] = (int(values[1]), int(values[0]))
    elif name == "localization.txt" and len(values) == 4:
        found.boxes[identity].append(values)
    elif name == "localization.txt" and len(values) == 2 and values[0]:
        found.masks[identity].append(values[0])
        if values[1]:
            found.ignored[identity] = values[1]
    else:
        return False
    return True


def _sample(
    collector: Collector, labels: Labels, root: Path, folder: Path, identity: str, lines: _Lines
) -> Sample | None:
    picture = os.path.join(folder, identity)
    if not collector.has(picture):
        collector.lose(picture, "no such picture, though image_ids.txt lists it")
        return None
    if identity not in lines.labels:
        collector.lose(root / "class_labels.txt", f"no class of {identity!r}")
        return None
    try:
        numbers = labels.numbers(lines.labels[identity])
    except ValueError as error:
        collector.lose(root / "class_labels.txt", f"{identity}: {error}")
        return None
    size, objects = lines.sizes.get(identity), []
    for values in lines.boxes.get(identity, ()):
        box = collector.box(root / "localization.txt", _corners(values), size, f"{identity},{','.join(values)}")
        if box:
            objects.append(Object(box, numbers))
    masks = []
    for name in lines.masks.get(identity, ()):
        if collector.has(path := os.path.join(folder, name)):
            masks.append(path)
        else:
            collector.lose(path, f"no such mask, though localization.txt lists it for {identity!r}", "outline")
    ignored = os.path.join(folder, lines.ignored[identity]) if identity in lines.ignored else None
    if ignored and not collector.has(ignored):
        collector.lose(ignored, f"no such mask, though localization.txt lists it for {identity!r}", "outline")
        ignored = None
    collector.counts["pictures without boxes or masks"] += not (objects or masks)
    if identity not in lines.boxes and identity not in lines.masks:
        collector.lack(picture, "no line in localization.txt")
    label = numbers[0] if len(numbers) == 1 else None
    return Sample(identity, File(picture), label, numbers, tuple(objects), None, size, tuple(masks), ignored)


def _corners(values: list[str]) -> list[float] | list[str]:
    try:
        x0, y0, x1, y1 = map(float, values)
    except ValueError:
        return values
    return [x0, y0, x1 + 1, y1 + 1]


def _images_folder(collector: Collector, root: Path, ids: list[str]) -> Path:
    """The folder the ids start from: dataset/ILSVRC beside metadata/ILSVRC/test, as the evaluation has it."""
    tried = []
    for base in (root, *list(root.parents)[:3]):
        for name in ("", "images", f"dataset/{root.parent.name}", f"dataset/{root.name}", "dataset"):
            tried.append(base / name)
            if any(collector.has(str(base / name / identity)) for identity in ids[:100]):
                return base / name
    raise ValueError(
        f"no pictures of {str(root)!r} in {', '.join(dict.fromkeys(map(str, tried)))}; "
        f"expected {ids[0] if ids else 'files'!r} in one of them: give `images`, their folder"
    )
