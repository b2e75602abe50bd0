"""WebDataset: uncompressed tar files in which the files of one sample follow each other and share a name.

The name is what stands before the first dot of the last part of the path; jpg, jpeg, png, webp … holds the picture,
cls the class as text, json what an entry of `annotations.json` holds ({"label": 7, "boxes": [[x0, y0, x1, y1]]}).
Only headers and annotations are read when a data set is opened; a picture is read by its place in the file.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastcam.datasets.annotations import CLASSES, sample_of
from fastcam.datasets.collect import PICTURES, Collector
from fastcam.datasets.labels import Labels
from fastcam.datasets.sample import Dataset
from fastcam.datasets.source import Member

Files = dict[str, tarfile.TarInfo]


def read(shards: list[Path], index: Mapping[str, tuple[int, ...]] | None = None) -> Dataset:
    """Reads tar files; keys are the shard's name, "/", and the sample's.

    Args:
        shards: in the order wanted.
        index: class numbers by what cls or the label in json says.

    Raises:
        ValueError: no usable sample.
    """
    collector, labels = Collector("webdataset", shards[0].parent), Labels(None, index)
    unlabeled = []
    for shard in shards:
        try:
            with tarfile.open(shard, "r:") as archive:
                for key, files in _grouped(archive):
                    entry = _entry(collector, archive, shard, key, files)
                    if entry is None:
                        continue
                    picture = next(files[name] for name in files if _is_picture(name))
                    source = Member(str(shard), picture.offset_data, picture.size, picture.name)
                    if not entry.keys() & {*CLASSES, "objects"}:
                        unlabeled.append(source.name)
                        entry["labels"] = []
                    if sample := sample_of(collector, labels, entry, f"{shard.stem}/{key}", source):
                        collector.add(sample)
                _require_end(archive, shard)
        except (tarfile.TarError, OSError, EOFError) as error:
            found = f"{error}; expected an uncompressed tar file, whole"
            collector.lose(shard, f"{found}: samples from the fault on are missing", "file")
    if unlabeled and len(unlabeled) == len(collector.samples):
        collector.notes.append("no sample has a class: there is no cls and no label in json")
    else:
        for name in unlabeled:
            collector.lose(name, "no cls and no label in json; kept without a class", "label")
    return collector.finish(labels)


def _require_end(archive: tarfile.TarFile, shard: Path) -> None:
    """A tar file that was cut between two members reads as a whole one; only the closing zeros are missing."""
    with shard.open("rb") as file:
        file.seek(archive.offset)
        last = file.read(tarfile.BLOCKSIZE)
    if any(last) or len(last) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("the file ends without its closing block")


def _grouped(archive: tarfile.TarFile) -> Iterator[tuple[str, Files]]:
    """The files of each sample by lower-case extension."""
    current: str | None = None
    files: Files = {}
    for member in archive:
        folder, _, name = member.name.removeprefix("./").rpartition("/")
        stem, _, extension = name.partition(".")
        if not member.isfile() or not stem or not extension:
            continue
        key = f"{folder}/{stem}" if folder else stem
        if key != current and current is not None:
            yield current, files
            files = {}
        current = key
        files[extension.lower()] = member
    if current is not None:
        yield current, files


def _is_picture(extension: str) -> bool:
    return f".{extension}" in PICTURES


def _entry(
    collector: Collector, archive: tarfile.TarFile, shard: Path, key: str, files: Files
) -> dict[str, Any] | None:
    """What is known about a sample, as an entry of annotations.json; None when it was written down as lost."""
    pictures = [name for name in files if _is_picture(name)]
    if len(pictures) != 1:
        found = ", ".join(files)
        collector.lose(f"{shard}/{key}", f"{len(pictures)} pictures among {found}; expected one, such as jpg")
        return None
    entry: dict[str, Any] = {}
    try:
        if "json" in files:
            entry = json.loads(_content(archive, files["json"]))
        if not isinstance(entry, dict):
            raise ValueError(f"json holds a {type(entry).__name__}")
        if "cls" in files:
            entry |= dict.fromkeys(CLASSES) | {"label": _content(archive, files["cls"]).decode().strip()}
    except ValueError as error:  # of JSON and of UTF-8 too
        collector.lose(f"{shard}/{key}", f"damaged annotation: {error}")
        return None
    return entry


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return file.read() if file else b""
