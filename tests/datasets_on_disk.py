"""One small data set in every format: five pictures of two classes, painted so that no two are alike."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("n01440764", "n01443537")
SIZE = (20, 30)


@dataclass(frozen=True)
class Painted:
    """A picture as every format should give it back."""

    name: str
    label: int
    boxes: tuple[tuple[int, int, int, int], ...]
    pixels: np.ndarray

    @property
    def png(self) -> bytes:
        file = io.BytesIO()
        Image.fromarray(self.pixels).save(file, "PNG")
        return file.getvalue()


def painted() -> list[Painted]:
    boxes = [((2, 3, 10, 12),), ((0, 0, 30, 20), (5, 5, 6, 6)), ((29, 19, 30, 20),), ((7, 1, 9, 20),), ((1, 1, 4, 4),)]
    rng = np.random.default_rng(3)
    return [
        Painted(f"p{i}", i % 2, boxes[i], rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8)) for i in range(len(boxes))
    ]


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_json(path: Path, value: object) -> Path:
    return write(path, json.dumps(value))


def imagefolder(root: Path) -> Path:
    for one in painted():
        write(root / CLASSES[one.label] / f"{one.name}.png", one.png)
    return root


def annotations(root: Path) -> Path:
    images = []
    for one in painted():
        write(root / "images" / f"{one.name}.png", one.png)
        size = {"height": SIZE[0], "width": SIZE[1]}
        images.append({"file": f"images/{one.name}.png", "class_ids": [one.label], "boxes": one.boxes, **size})
    write_json(root / "annotations.json", {"name": "painted", "images": images})
    return root


def coco(root: Path) -> Path:
    write_json(root / "annotations" / "instances_val.json", coco_document())
    for one in painted():
        write(root / "val" / f"{one.name}.png", one.png)
    return root


def coco_document() -> dict:
    pictures = painted()
    images = [
        {"id": 100 + i, "file_name": f"{one.name}.png", "height": SIZE[0], "width": SIZE[1]}
        for i, one in enumerate(pictures)
    ]
    rows = [
        {"image_id": 100 + i, "category_id": 7 + one.label, "bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": 0}
        for i, one in enumerate(pictures)
        for x0, y0, x1, y1 in one.boxes
    ]
    for number, row in enumerate(rows):
        row["id"] = number
    categories = [{"id": 8, "name": CLASSES[1]}, {"id": 7, "name": CLASSES[0]}]
    return {"images": images, "annotations": rows, "categories": categories}


def xml(one: Painted) -> str:
    """Corners counted from 0 with both ends inside."""
    objects = "".join(
        f"<object><name>{CLASSES[one.label]}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
        f"<xmax>{x1 - 1}</xmax><ymax>{y1 - 1}</ymax></bndbox></object>"
        for x0, y0, x1, y1 in one.boxes
    )
    return f"<annotation><size><width>{SIZE[1]}</width><height>{SIZE[0]}</height></size>{objects}</annotation>"


def ilsvrc(root: Path) -> Path:
    for one in painted():
        write(root / "ILSVRC/Data/CLS-LOC/val" / f"{one.name}.png", one.png)
        write(root / "ILSVRC/Annotations/CLS-LOC/val" / f"{one.name}.xml", xml(one))
    return root


def wsol(root: Path) -> Path:
    pictures = painted()
    metadata = root / "metadata" / "PAINTED" / "test"
    names = {one.name: f"test/{one.name}.png" for one in pictures}
    write(metadata / "image_ids.txt", "".join(f"{names[one.name]}\n" for one in pictures))
    write(metadata / "class_labels.txt", "".join(f"{names[one.name]},{one.label}\n" for one in pictures))
    write(metadata / "image_sizes.txt", "".join(f"{names[one.name]},{SIZE[1]},{SIZE[0]}\n" for one in pictures))
    lines = [f"{names[one.name]},{a},{b},{c - 1},{d - 1}\n" for one in pictures for a, b, c, d in one.boxes]
    write(metadata / "localization.txt", "".join(lines))
    for one in pictures:
        write(root / "dataset" / "PAINTED" / names[one.name], one.png)
    return metadata


def shard(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def webdataset(root: Path) -> Path:
    for number, part in enumerate((painted()[:3], painted()[3:])):
        files = {}
        for one in part:
            files[f"{one.name}.png"] = one.png
            files[f"{one.name}.json"] = json.dumps({"label": one.label, "boxes": one.boxes}).encode()
        shard(root / f"val-{number:03d}.tar", files)
    return root


def parquet(root: Path, groups: int = 2) -> Path:
    import pyarrow
    from pyarrow.parquet import write_table

    names = {"_type": "ClassLabel", "names": list(CLASSES)}
    metadata = {b"huggingface": json.dumps({"info": {"features": {"label": names}}}).encode()}
    root.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate((painted()[:3], painted()[3:])):
        table = pyarrow.table(
            {
                "image": [{"bytes": one.png, "path": f"{one.name}.png"} for one in part],
                "label": [one.label for one in part],
                "bbox": [[[a, b, c - a, d - b] for a, b, c, d in one.boxes] for one in part],
            }
        )
        path = root / f"validation-{number:05d}-of-00002-0a1b2c.parquet"
        write_table(table.replace_schema_metadata(metadata), path, row_group_size=groups)
    return root


BUILDERS: dict[str, Callable[[Path], Path]] = {
    "imagefolder": imagefolder,
    "annotations": annotations,
    "coco": coco,
    "ilsvrc": ilsvrc,
    "wsol": wsol,
    "webdataset": webdataset,
    "parquet": parquet,
}
