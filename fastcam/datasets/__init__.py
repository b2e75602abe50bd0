"""Data sets with classes, boxes and masks, as they lie on disk: one reader a format, one shape of sample.

>>> from fastcam.datasets import open_dataset
>>> open_dataset("/no/such/folder")
Traceback (most recent call last):
ValueError: no data set at '/no/such/folder'; give a folder, a JSON, tar or Parquet file, or a pattern of shards
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from fastcam.datasets import annotations, coco, folder, ilsvrc, parquet, webdataset, wsol
from fastcam.datasets.detect import LOOKS, find_format
from fastcam.datasets.fit import fit_boxes, fit_corners, fit_mask
from fastcam.datasets.labels import read_index
from fastcam.datasets.loading import load, prefetch
from fastcam.datasets.sample import Dataset, Object, Problem, Sample
from fastcam.datasets.stamp import stamps

KINDS = tuple(LOOKS)

__all__ = [
    "KINDS",
    "Dataset",
    "Object",
    "Problem",
    "Sample",
    "fit_boxes",
    "fit_corners",
    "fit_mask",
    "load",
    "open_dataset",
    "prefetch",
    "stamps",
]


def open_dataset(
    path: str | os.PathLike[str],
    *,
    split: str | None = None,
    kind: str | None = None,
    class_index: str | os.PathLike[str] | Mapping[str, int] | None = None,
    images: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Lists the samples of a data set without opening a picture.

    Args:
        path: a folder, an annotation file, a tar or Parquet file, or a pattern such as "val-{000..049}.tar".
        split: such as "val", where there are several.
        kind: one of `KINDS`; told from what lies there when None.
        class_index: numbers of classes by name: a JSON or text file, a mapping, "imagenet" for WordNet ids, or
            "number" for folders named by their class number. Which names: folders, categories, WordNet ids or
            the data set's own numbers, as the format has them.
        images: the folder of the pictures, where annotations lie elsewhere.

    Returns:
        Samples in a fixed order, with everything that was left out as `problems`.

    Raises:
        ValueError: nothing there, no known format, several of them, or not one usable sample.
    """
    pictures = None if images is None else Path(images)
    if pictures is not None and not pictures.is_dir():
        raise ValueError(f"images is {str(images)!r}; expected the folder of the pictures")
    found = find_format(os.fspath(path), split, kind, pictures)
    if pictures is not None and found.kind in ("imagefolder", "webdataset", "parquet"):
        raise ValueError(f"images is {str(images)!r}, but {found.kind} holds its own pictures; leave it out")
    index = read_index(class_index)
    first = found.paths[0]
    match found.kind:
        case "imagefolder":
            return folder.read(first, index)
        case "annotations":
            return annotations.read(first, index, pictures)
        case "coco":
            return coco.read(first, index, pictures)
        case "ilsvrc":
            return ilsvrc.read(first, index, pictures, split)
        case "wsol":
            return wsol.read(first, index, pictures)
        case "webdataset":
            return webdataset.read(found.paths, index)
        case _:
            return parquet.read(found.paths, index)
