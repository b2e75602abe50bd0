"""`annotations.json`: a list of pictures with classes and boxes, or with objects.

{"images": [{"file": "images/a.jpg", "width": 227, "height": 227, "class_ids": [135], "boxes": [[x0, y0, x1, y1]]}]}
with "objects": [{"category": "bowl", "class_ids": [659, 809], "box": [x0, y0, x1, y1], "polygons": [[x, y, …]],
"iscrowd": 0}] instead of boxes, and perhaps "targets": [{"class_id": 659}]. Corners are taken as they are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastcam.datasets.collect import Collector
from fastcam.datasets.documents import read_json
from fastcam.datasets.labels import Labels
from fastcam.datasets.sample import Dataset, Object, Sample, of_class
from fastcam.datasets.source import File, Member, Row

CLASSES = ("class_ids", "labels", "class_id", "label")
PLACES = ("boxes", "objects")


def read(path: Path, index: Mapping[str, tuple[int, ...]] | None = None, images: Path | None = None) -> Dataset:
    """Reads an `annotations.json`.

    Args:
        path: the file.
        index: class numbers by category (or by number), instead of the file's own "class_ids".
        images: the folder that its file names start from; its own when None.

    Raises:
        ValueError: another kind of file, or no usable sample.
    """
    entries = read_json(path).get("images")
    if not isinstance(entries, list):
        raise ValueError(f"{str(path)!r} has no list of images; expected {{'images': [{{'file': …}}]}}")
    collector, labels = Collector("annotations", path), Labels(None, index)
    for number, entry in enumerate(entries):
        name = entry.get("file") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            collector.lose(path, f"entry {number} names no file")
            continue
        picture = os.path.join(images or path.parent, name)
        if not collector.has(picture):
            collector.lose(picture, "no such picture, though the annotations list it")
            continue
        if sample := sample_of(collector, labels, entry, name, File(picture)):
            collector.add(sample)
    return collector.finish(labels)


def sample_of(
    collector: Collector, labels: Labels, entry: dict[str, Any], key: str, source: File | Member | Row
) -> Sample | None:
    """The sample of one entry; None when it was written down as lost.

    Args:
        collector: gets what is wrong.
        labels: numbers the classes.
        entry: what is known about the picture.
        key: the sample's key.
        source: where the picture lies.
    """
    size = collector.size(entry.get("height"), entry.get("width"))
    try:
        found = [number for name in _own_labels(entry) for number in labels.numbers(name)]
        targets = _targets(entry, labels)
    except ValueError as error:
        collector.lose(source.name, str(error))
        return None
    objects, own = [], len(found)
    if all(entry.get(name) is None for name in PLACES):
        collector.lack(source.name, f"its entry has no {' and no '.join(PLACES)}")
    for name in PLACES:
        if not isinstance(entry.get(name), list | None):
            collector.lose(source.name, f"{name} is {entry[name]!r}; expected a list", "box")
    for box in _list(entry, "boxes"):
        if corners := collector.box(source.name, box, size, box):
            objects.append(Object(corners, tuple(dict.fromkeys(found))))
    for number, one in enumerate(_list(entry, "objects")):
        made = _object(collector, labels, one, source.name, number, size, tuple(found[:own]))
        if made:
            objects.append(made)
            found += () if made.crowd else made.labels
    if all(entry.get(name) is None for name in (*CLASSES, "objects")):
        collector.lose(source.name, "no class_ids and no objects; kept without a class", "label")
    found = tuple(dict.fromkeys(found))
    label = found[0] if len(found) == 1 else None
    kept = tuple(objects) if label is None else of_class(tuple(objects), label)
    return Sample(key, source, label, found, kept, targets, size)


def _own_labels(entry: dict[str, Any]) -> list[Any]:
    value = next((entry[name] for name in CLASSES if entry.get(name) is not None), [])
    return value if isinstance(value, list) else [value]


def _targets(entry: dict[str, Any], labels: Labels) -> tuple[int, ...] | None:
    if not isinstance(entry.get("targets"), list):
        return None
    found = []
    for target in entry["targets"]:
        if not isinstance(target, dict) or ("class_id" not in target and "category" not in target):
            raise ValueError(f"target {target!r}; expected {{'class_id': number}}")
        if labels.index is None:
            found += labels.numbers(target.get("class_id"))
        else:  # what the index lacks is no class of the model, as with objects
            names = (str(target.get("category")), str(target.get("class_id")))
            found += next((labels.index[name] for name in names if name in labels.index), ())
    return tuple(dict.fromkeys(found))


def _object(
    collector: Collector,
    labels: Labels,
    one: Any,
    file: str,
    number: int,
    size: tuple[int, int] | None,
    inherited: tuple[int, ...],
) -> Object | None:
    if not isinstance(one, dict):
        collector.lose(file, f"object {number} is {one!r}; expected its category and box", "box")
        return None
    category = one.get("category")
    try:
        if labels.index is not None and category is not None:
            numbers = labels.index.get(str(category), ())
        elif category is None and all(one.get(name) is None for name in CLASSES):
            numbers = inherited
        else:
            numbers = tuple(n for value in _own_labels(one) for n in labels.numbers(value))
    except ValueError as error:
        collector.lose(file, f"object {number}: {error}", "box")
        return None
    outline = collector.outline(file, one.get("polygons") or one.get("segmentation"), f"object {number}")
    if crowd := bool(one.get("iscrowd")):
        collector.counts["crowd regions, not used as boxes"] += 1
    box = None if crowd else collector.box(file, one.get("box"), size, one.get("box"))
    if box is None and outline is None and not crowd:
        return None
    return Object(box, numbers, outline, crowd, category)


def _list(entry: dict[str, Any], name: str) -> list[Any]:
    value = entry.get(name)
    return value if isinstance(value, list) else []
