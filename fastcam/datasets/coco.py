"""COCO: `instances_*.json` and a folder of images. Box [x, y, w, h] is [x, x + w) x [y, y + h) in pixels."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastcam.datasets.collect import Collector
from fastcam.datasets.documents import read_json
from fastcam.datasets.labels import Labels
from fastcam.datasets.sample import Dataset, Object, Sample, of_class
from fastcam.datasets.source import File


def read(path: Path, index: Mapping[str, tuple[int, ...]] | None = None, images: Path | None = None) -> Dataset:
    """Reads COCO annotations; a sample has all categories of its picture as `labels`.

    Args:
        path: the JSON file.
        index: class numbers by category name (or category id); categories it lacks get no class. When None they
            are numbered from 0 in order of their ids, and no sample has a `label`.
        images: the folder of the pictures; searched for beside the file when None.

    Raises:
        ValueError: another kind of file, no folder with its pictures, or no usable sample.
    """
    document = read_json(path)
    entries, boxes, categories = (document.get(name) for name in ("images", "annotations", "categories"))
    if not (isinstance(entries, list) and isinstance(boxes, list) and isinstance(categories, list)):
        raise ValueError(
            f"{str(path)!r} is not COCO: it holds {sorted(document)}; expected images, annotations, categories"
        )
    collector = Collector("coco", path)
    names, numbers = _categories(categories, index)
    objects = _objects(collector, path, entries, boxes, names, numbers)
    annotated = {row.get("image_id") for row in boxes if isinstance(row, dict)}
    folder = images or _images_folder(collector, path, entries)
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
            collector.lose(path, f"image {number} has no file_name")
            continue
        picture = os.path.join(folder, entry["file_name"])
        if not collector.has(picture):
            collector.lose(picture, "no such picture, though the annotations list it")
            continue
        mine = tuple(objects.get(entry.get("id"), ()))
        labels = tuple(dict.fromkeys(label for one in mine if not one.crowd for label in one.labels))
        label = labels[0] if index is not None and len(labels) == 1 else None
        mine = mine if label is None else of_class(mine, label)
        size = collector.size(entry.get("height"), entry.get("width"))
        collector.add(Sample(entry["file_name"], File(picture), label, labels, mine, None, size))
        collector.counts["pictures without objects"] += not objects.get(entry.get("id"))
        if entry.get("id") not in annotated:
            collector.lack(picture, "no annotation of this picture")
    if index is None:
        collector.notes.append(
            f"the {len(names)} categories are numbered from 0 in order of their ids; "
            "give class_index to map their names to a model's classes"
        )
    elif without := sorted(name for category, name in names.items() if not numbers[category]):
        collector.notes.append(f"{len(without)} categories have no class in class_index: {', '.join(without)}")
    return collector.finish(Labels([names[i] for i in sorted(names)] if index is None else None, index))


def _categories(
    categories: list[Any], index: Mapping[str, tuple[int, ...]] | None
) -> tuple[dict[int, str], dict[int, tuple[int, ...]]]:
    """Names and class numbers of the category ids."""
    rows = [row for row in categories if isinstance(row, dict) and isinstance(row.get("id"), int)]
    names = {row["id"]: str(row.get("name", row["id"])) for row in sorted(rows, key=lambda row: row["id"])}
    if index is None:
        return names, {identity: (number,) for number, identity in enumerate(names)}
    return names, {identity: index.get(name, index.get(str(identity), ())) for identity, name in names.items()}


def _objects(
    collector: Collector,
    path: Path,
    entries: list[Any],
    rows: list[Any],
    names: dict[int, str],
    numbers: dict[int, tuple[int, ...]],
) -> dict[Any, list[Object]]:
    """The objects of each image id."""
    sizes = {
        entry["id"]: collector.size(entry.get("height"), entry.get("width"))
        for entry in entries
        if isinstance(entry, dict) and "id" in entry
    }
    objects: dict[Any, list[Object]] = defaultdict(list)
    for number, row in enumerate(rows):
        shown = f"annotation {row.get('id', number) if isinstance(row, dict) else number}"
        if not isinstance(row, dict) or row.get("image_id") not in sizes or row.get("category_id") not in names:
            collector.lose(path, f"{shown} is of no image or category listed here", "box")
            continue
        category, image = row["category_id"], row["image_id"]
        outline = collector.outline(path, row.get("segmentation"), shown)
        if crowd := bool(row.get("iscrowd")):
            collector.counts["crowd regions, not used as boxes"] += 1
        box = None
        if not crowd:
            box = collector.box(path, _corners(row.get("bbox")), sizes[image], {shown: row.get("bbox")})
        if box or outline or crowd:
            objects[image].append(Object(box, numbers[category], outline, crowd, names[category]))
    return objects


def _corners(box: Any) -> Any:
    if isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box):
        return [box[0], box[1], box[0] + box[2], box[1] + box[3]]
    return box


def _images_folder(collector: Collector, path: Path, entries: list[Any]) -> Path:
    """The folder in which the first pictures lie: train2017/ for annotations/instances_train2017.json."""
    split = path.stem.removeprefix("instances_")
    bases = [path.parent, path.parent.parent]
    tried = [base / name for base in bases for name in (split, f"images/{split}", "images", "")]
    names = [entry["file_name"] for entry in entries if isinstance(entry, dict) and entry.get("file_name")][:100]
    for folder in tried:
        if any(collector.has(os.path.join(folder, name)) for name in names):
            return folder
    raise ValueError(
        f"no pictures of {str(path)!r} in {', '.join(sorted({str(folder) for folder in tried}))}; "
        f"expected {names[0] if names else 'files'!r} in one of them: give `images`, their folder"
    )
