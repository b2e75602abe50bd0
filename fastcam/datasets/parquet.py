"""Parquet files as Hugging Face stores image data sets: a column `image` {bytes, path}, a column `label`.

Optional columns: `width`, `height`; `boxes`, corners [x0, y0, x1, y1] taken as they are; `bbox`, [x, y, w, h]; and
`objects` {bbox: [[x, y, w, h]], category: [number]}, as the library's documentation lays out detection data.
Everything but the pictures is read when a data set is opened; a picture is read with its row group.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fastcam.datasets.annotations import sample_of
from fastcam.datasets.collect import Collector
from fastcam.datasets.labels import Labels
from fastcam.datasets.sample import Dataset
from fastcam.datasets.source import Row

PICTURE_COLUMNS = ("image", "img", "picture", "jpg", "png", "webp", "image_bytes")
LABEL_COLUMNS = ("label", "labels", "cls", "class", "target", "fine_label", "class_id", "category")
CATEGORY_FIELDS = ("category", "categories", "label", "labels", "category_id", "class")


def read(shards: list[Path], index: Mapping[str, tuple[int, ...]] | None = None) -> Dataset:
    """Reads Parquet files; keys are the file's name, "/", and the row's number.

    Args:
        shards: in the order wanted.
        index: class numbers by class name, or by the number in the label column.

    Raises:
        ValueError: pyarrow is not installed, no picture column, or no usable sample.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError:
        raise ValueError("reading Parquet needs pyarrow: pip install fastcam[data]") from None

    collector = Collector("parquet", shards[0].parent)
    labels = Labels(None, index)
    for shard in shards:
        try:
            with parquet.ParquetFile(shard) as file:
                labels = _read_shard(collector, shard, file, index)
        except (ArrowException, OSError) as error:
            first = str(error).split("\n", maxsplit=1)[0]
            collector.lose(shard, f"damaged or no Parquet file ({first}); its rows are missing", "file")
    if not any(sample.labels for sample in collector.samples):
        collector.notes.append("no sample has a class: there is no column such as 'label'")
    return collector.finish(labels)


def _read_shard(collector: Collector, shard: Path, file: Any, index: Mapping[str, tuple[int, ...]] | None) -> Labels:
    schema = file.schema_arrow
    picture = _picture_column(schema)
    if picture is None:
        kinds = ", ".join(f"{field.name} ({field.type})" for field in schema)
        collector.lose(shard, f"no column with pictures among {kinds}; expected image {{bytes, path}}", "file")
        return Labels(None, index)
    features = _features(schema)
    columns = [name for name in schema.names if name != picture]
    label = next((name for name in LABEL_COLUMNS if name in columns), None)
    labels = Labels(_class_names(features.get(label or "objects")), index)
    wanted = [n for n in columns if n in {label, "width", "height", "boxes", "bbox", "objects"}]
    rows = file.read(columns=wanted).to_pylist() if wanted else [{}] * file.metadata.num_rows
    places = ((group, row) for group, count in enumerate(_groups(file)) for row in range(count))
    for number, ((group, row), values) in enumerate(zip(places, rows, strict=True)):
        source = Row(str(shard), group, row, picture)
        entry = {"width": values.get("width"), "height": values.get("height"), "labels": []}
        if label is not None:
            entry["labels"] = values[label] if isinstance(values[label], list) else [values[label]]
        try:
            if any(values.get(name) is not None for name in ("boxes", "bbox")):
                entry["boxes"] = list(_boxes(values))
            if isinstance(values.get("objects"), dict | list):
                entry["objects"] = list(_objects(values["objects"], labels))
        except ValueError as error:
            collector.lose(source.name, str(error))
            continue
        if sample := sample_of(collector, labels, entry, f"{shard.stem}/{number}", source):
            collector.add(sample)
    return labels


def _groups(file: Any) -> Iterable[int]:
    return (file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))


def _picture_column(schema: Any) -> str | None:
    """The column of pictures: one of the usual names, or the only one that holds {bytes, …}."""
    from pyarrow import types

    def holds_bytes(kind: Any) -> bool:
        if types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0
        return types.is_binary(kind) or types.is_large_binary(kind)

    found = [field.name for field in schema if holds_bytes(field.type)]
    named = [name for name in PICTURE_COLUMNS if name in found]
    return named[0] if named else found[0] if len(found) == 1 else None


def _features(schema: Any) -> dict[str, Any]:
    """What the `datasets` library wrote about the columns."""
    try:
        return json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}


def _class_names(feature: Any) -> list[str] | None:
    """The names of the first ClassLabel in a column's description."""
    if isinstance(feature, dict):
        if feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list):
            return feature["names"]
        feature = list(feature.values())
    inner = map(_class_names, feature) if isinstance(feature, list) else ()
    return next((names for names in inner if names), None)


def _boxes(values: dict[str, Any]) -> Iterable[Any]:
    yield from values.get("boxes") or ()
    found = values.get("bbox") or []
    for box in found if not found or isinstance(found[0], list) else [found]:
        yield _corners(box)


def _objects(value: dict[str, list[Any]] | list[dict[str, Any]], labels: Labels) -> Iterable[dict[str, Any]]:
    """Objects as `annotations.json` has them, from columns inside one row or from a list of them."""
    if isinstance(value, dict):
        lists = {name: column for name, column in value.items() if isinstance(column, list)}
        if len({len(column) for column in lists.values()}) > 1:
            counts = ", ".join(f"{len(column)} {name}" for name, column in lists.items())
            raise ValueError(f"objects hold {counts}; expected as many of each")
        value = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    for one in value:
        number = next((one[name] for name in CATEGORY_FIELDS if one.get(name) is not None), None)
        names = labels.names
        yield {
            "category": names[number] if names and isinstance(number, int) and 0 <= number < len(names) else number,
            "class_ids": None if number is None else [number],
            "box": _corners(one.get("bbox")),
            "iscrowd": one.get("iscrowd"),
        }


def _corners(box: Any) -> Any:
    if isinstance(box, list) and len(box) == 4 and all(isinstance(side, int | float) for side in box):
        return [box[0], box[1], box[0] + box[2], box[1] + box[3]]
    return box
