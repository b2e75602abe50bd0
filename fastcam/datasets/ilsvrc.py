"""ILSVRC: pictures and one XML file each, as in the official archives and on Kaggle.

Corners in the XML are pixels counted from 0, both ends inside: of the 80477 boxes of the 50000 validation pictures
none ends right of column W - 1 or begins left of column 0, and both are reached. So xmin ymin xmax ymax becomes the
box (xmin, ymin, xmax + 1, ymax + 1). PASCAL VOC's own files count from 1.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from fastcam.datasets.collect import Collector, pictures_below
from fastcam.datasets.labels import SYNSET, Labels, read_index, synsets
from fastcam.datasets.sample import Dataset, Object, Sample, of_class
from fastcam.datasets.source import File

# Where the annotations and the pictures may lie below the root; {} is the split.
LAYOUTS = (
    ("ILSVRC/Annotations/CLS-LOC/{}", "ILSVRC/Data/CLS-LOC/{}"),
    ("Annotations/CLS-LOC/{}", "Data/CLS-LOC/{}"),
    ("bbox/{}", "{}"),
    ("bbox", "{}"),
    ("bbox", "images"),
    ("bbox", ""),
    ("Annotations/{}", "{}"),
    ("Annotations", "images"),
    ("Annotations", ""),
    ("annotations", "images"),
    ("xml", "images"),
    ("", ""),
)
MAPPING = "LOC_synset_mapping.txt"


def folders(root: Path, split: str | None, images: Path | None = None) -> tuple[Path, Path] | None:
    """The folders of annotations and of pictures; None when there is no XML."""
    for xml, pictures in LAYOUTS:
        for name in [split] if split else ["val", ""]:
            below, found = root / xml.format(name), images or root / pictures.format(name)
            if below.is_dir() and found.is_dir() and _has_xml(below):
                return below, found
    return None


def _has_xml(folder: Path) -> bool:
    """Whether a folder, or the first of its class folders, holds XML."""
    inside: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.lower().endswith(".xml"):
                return True
            if SYNSET.fullmatch(entry.name):
                inside.append(entry.path)
    return bool(inside) and any(name.lower().endswith(".xml") for name in os.listdir(min(inside)))


def read(
    root: Path,
    index: Mapping[str, tuple[int, ...]] | None = None,
    images: Path | None = None,
    split: str | None = None,
) -> Dataset:
    """Reads pictures with the XML of the same name; the class is the folder's where that is a WordNet id.

    Args:
        root: the folder of the archive, or one with pictures and XML.
        index: class numbers by WordNet id; those of LOC_synset_mapping.txt or of ImageNet-1k when None.
        images: the folder of the pictures, when it is elsewhere.
        split: such as "train"; "val" when None.

    Raises:
        ValueError: no pictures or no XML, or no usable sample.
    """
    found = folders(root, split, images)
    if found is None:
        layouts = ", ".join(f"{xml or '.'} with {pictures or '.'}" for xml, pictures in LAYOUTS)
        raise ValueError(f"no XML with pictures in {str(root)!r}; looked for {layouts} ({{}} is the split)")
    annotated, pictures = found
    collector = Collector("ilsvrc", pictures)
    stems = {
        os.path.splitext(name)[0]: os.path.join(base, name)
        for base, _, names in os.walk(annotated)
        for name in names
        if name.lower().endswith(".xml")
    }
    labels = Labels(None, index or _mapping(root))
    for name in pictures_below(pictures)[0]:
        folder, _, file = f"/{name}".rpartition("/")
        folder = folder.rpartition("/")[2]
        xml = stems.pop(os.path.splitext(file)[0], None)
        source = File(f"{pictures}/{name}")
        if sample := _sample(collector, labels, name, folder if SYNSET.fullmatch(folder) else None, source, xml):
            collector.add(sample)
    for xml in sorted(stems.values()):
        collector.lose(xml, f"no picture of this name in {str(pictures)!r}")
    return collector.finish(labels)


def _mapping(root: Path) -> Mapping[str, tuple[int, ...]]:
    for folder in (root, root.parent):
        if (folder / MAPPING).is_file():
            return read_index(folder / MAPPING) or {}
    return {name: (number,) for number, name in enumerate(synsets())}


def _sample(
    collector: Collector, labels: Labels, name: str, folder: str | None, source: File, xml: str | None
) -> Sample | None:
    if xml is None and folder is None:
        collector.lose(source.path, "no XML of the same name, so neither class nor boxes")
        return None
    size, objects = None, ()
    try:
        if xml is not None:
            size, objects = _objects(collector, labels, xml)
        found = dict.fromkeys(label for one in objects for label in one.labels)
        numbers = labels.numbers(folder) if folder else tuple(found)
    except ValueError as error:
        collector.lose(xml or source.path, str(error))
        return None
    if xml is None:
        collector.counts["pictures without XML, so without boxes"] += 1
        collector.lack(source.path, "no XML of the same name")
    label = numbers[0] if len(numbers) == 1 else None
    if label is not None:
        collector.counts["boxes of another class than their picture, left out"] += len(objects)
        objects = of_class(objects, label)
        collector.counts["boxes of another class than their picture, left out"] -= len(objects)
    return Sample(name, source, label, numbers, objects, None, size)


def _objects(collector: Collector, labels: Labels, xml: str) -> tuple[tuple[int, int] | None, tuple[Object, ...]]:
    """Size of the picture and its objects; an object whose box is lost stays for its class."""
    try:
        with open(xml, "rb") as file:
            root = ElementTree.fromstring(file.read())
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except ElementTree.ParseError as error:
        raise ValueError(f"not XML ({error}); copy it again") from None
    size = collector.size(*(_number(text) for text in _texts(root.find("size"), "height", "width")))
    objects = []
    for one in root.iter("object"):
        name = (one.findtext("name") or "").strip()
        corners = [_number(text) for text in _texts(one.find("bndbox"), "xmin", "ymin", "xmax", "ymax")]
        ends = [value + 1 if isinstance(value, float) else value for value in corners[2:]]
        box = collector.box(xml, corners[:2] + ends, size, corners)
        objects.append(Object(box, labels.numbers(name), category=name))
    if not objects:
        raise ValueError("holds no object")
    return size, tuple(objects)


def _texts(element: ElementTree.Element | None, *tags: str) -> list[str | None]:
    """What stands below an element; a path such as "bndbox/xmin" takes four times as long to find."""
    texts = {} if element is None else {child.tag: child.text for child in element}
    return [texts.get(tag) for tag in tags]


def _number(text: str | None) -> Any:
    """A number where it is one, so that what is none shows up in the message."""
    try:
        return float(text or "")
    except ValueError:
        return text
