"""One folder a class: DATA/tabby/0001.jpg."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fastcam.datasets.collect import Collector, pictures_below
from fastcam.datasets.labels import SYNSET, Labels
from fastcam.datasets.sample import Dataset, Sample
from fastcam.datasets.source import File


def read(root: Path, index: Mapping[str, tuple[int, ...]] | None = None) -> Dataset:
    """Reads a folder of class folders, numbered as torchvision's ImageFolder does: by sorted name.

    Args:
        root: the folder.
        index: class numbers by folder name, instead.

    Raises:
        ValueError: no class folder holds a picture.
    """
    collector = Collector("imagefolder", root)
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    labels = Labels(folders, index)
    strange: list[str] = []
    for folder in folders:
        found, others = pictures_below(root / folder)
        strange += [f"{folder}/{name}" for name in others]
        if not found:
            collector.counts["class folders without pictures"] += 1
            continue
        try:
            numbers = labels.numbers(folder)
        except ValueError as error:
            collector.lose(root / folder, f"{error}; its {len(found)} pictures are left out", "class")
            continue
        label = numbers[0] if len(numbers) == 1 else None
        for name in found:
            path = f"{folder}/{name}"
            collector.add(Sample(path, File(str(root / path)), label, numbers))
    if strange:
        collector.notes.append(f"files that are no pictures by their names: {len(strange)}, such as {strange[0]!r}")
    if index is None and (how := _how_numbered(folders)):
        collector.notes.append(how)
    return collector.finish(labels)


def _how_numbered(folders: list[str]) -> str | None:
    if all(map(SYNSET.fullmatch, folders)) and len(folders) != 1000:
        return (
            f"{len(folders)} WordNet ids are numbered 0 to {len(folders) - 1} in sorted order, as torchvision does; "
            "for a model of the 1000 ImageNet classes give class_index='imagenet'"
        )
    if all(name.isdigit() for name in folders) and folders != sorted(folders, key=int):
        return (
            "folders named by numbers are sorted as text, as torchvision does: "
            f"folder {folders[-1]!r} is class {len(folders) - 1}; give class_index='number' to take the names"
        )
    return None
