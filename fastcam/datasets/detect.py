"""Which format lies at a path, told from the names found there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastcam.datasets import ilsvrc, shards, wsol
from fastcam.datasets.collect import pictures_below

# What each format looks like on disk, for the error that finds none.
LOOKS = {
    "imagefolder": "a folder of class folders with pictures",
    "annotations": "annotations.json with {'images': [{'file', 'class_ids', 'boxes'}]}",
    "coco": "annotations/instances_*.json, or a JSON file with images, annotations and categories",
    "ilsvrc": "ILSVRC/Data/CLS-LOC and ILSVRC/Annotations/CLS-LOC, or pictures with XML files",
    "wsol": "image_ids.txt and class_labels.txt",
    "webdataset": "*.tar",
    "parquet": "*.parquet",
}
SPLITS = {"train", "val", "validation", "valid", "test", "dev", "eval"}


@dataclass(frozen=True)
class Found:
    """A data set on disk: its kind, and the file, folder or shards to read."""

    kind: str
    paths: list[Path]


def find_format(path: str, split: str | None, kind: str | None, images: Path | None = None) -> Found:
    """What lies at a path.

    Args:
        path: a folder, a file, or a pattern of shards.
        split: such as "val"; a folder of this name is entered.
        kind: only look for this one.
        images: the folder of the pictures, where annotations lie elsewhere.

    Raises:
        ValueError: nothing there, no known format, several of them, or several splits and none chosen.
    """
    if kind is not None and kind not in LOOKS:
        raise ValueError(f"kind {kind!r}; expected one of {', '.join(LOOKS)}")
    if re.search(r"[{*]", path):
        return _shards(shards.expand(path), path, kind)
    root = Path(path)
    if not root.exists():
        raise ValueError(f"no data set at {path!r}; give a folder, a JSON, tar or Parquet file, or a pattern of shards")
    if root.is_file():
        return _shards([root], path, kind) if root.suffix in (".tar", ".parquet") else _json(root, kind)
    found = _in_folder(root, split, kind, images)
    if split and not found and (root / split).is_dir():
        root, split = root / split, None
        found = _in_folder(root, split, kind, images)
    if not found and kind in (None, "imagefolder"):
        found = _class_folders(root, split)
    if len(found) > 1:
        raise ValueError(f"{path!r} holds {' and '.join(one.kind for one in found)}; choose by kind")
    if not found:
        raise ValueError(_nothing(root, split, kind))
    return found[0]


def _shards(paths: list[Path], pattern: str, kind: str | None) -> Found:
    suffixes = {path.suffix for path in paths}
    found = {".tar": "webdataset", ".parquet": "parquet"}.get(suffixes.pop() if len(suffixes) == 1 else "")
    if found is None or kind not in (None, found):
        names = ", ".join(path.name for path in paths[:3]) or "no file"
        raise ValueError(f"{pattern!r} stands for {names}; expected {kind or 'webdataset'} shards: *.tar or *.parquet")
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise ValueError(f"{len(missing)} of {len(paths)} shards of {pattern!r} are missing, first {str(missing[0])!r}")
    return Found(found, paths)


def _json(path: Path, kind: str | None) -> Found:
    if path.suffix.lower() != ".json":
        raise ValueError(f"{str(path)!r} is no data set; expected a folder, or a .json, .tar or .parquet file")
    if kind in ("annotations", "coco"):
        return Found(kind, [path])
    content = path.read_bytes()
    found = "coco" if b'"annotations"' in content and b'"categories"' in content else "annotations"
    if kind is not None:
        raise ValueError(f"{str(path)!r} is {found}, not {kind}; give kind={found!r} or none")
    return Found(found, [path])


def _in_folder(root: Path, split: str | None, kind: str | None, images: Path | None) -> list[Found]:
    return [found for found in _looks(root, split, kind, images) if kind in (None, found.kind)]


def _looks(root: Path, split: str | None, kind: str | None, images: Path | None) -> Iterator[Found]:
    """Every format but class folders, which any other's pictures may look like."""
    listed = [path for path in [root / "annotations.json"] if path.is_file() and not split]
    if listed:
        yield _json(listed[0], kind if kind in ("annotations", "coco") else None)
    if documents := _coco(root, split):
        yield Found("coco", documents)
    if folder := _wsol(root, split):
        yield Found("wsol", [folder])
    for suffix, name in ((".tar", "webdataset"), (".parquet", "parquet")):
        if (paths := shards.below(root, suffix)) and kind in (None, name):
            yield Found(name, shards.choose(paths, split, root))
    if ilsvrc.folders(root, split, images):
        yield Found("ilsvrc", [root])


def _coco(root: Path, split: str | None) -> list[Path]:
    found = sorted({*root.glob("annotations/instances_*.json"), *root.glob("instances_*.json")})
    found += root.glob("_annotations.coco.json")
    if split:
        chosen = [path for path in found if path.stem.removeprefix("instances_").startswith(split)]
        if found and not chosen:
            raise ValueError(f"no COCO split {split!r} among {', '.join(path.name for path in found)}")
        found = chosen
    if len(found) > 1:
        raise ValueError(
            f"{', '.join(path.name for path in found)} in {str(root)!r}; choose by split, or give the file"
        )
    return found


def _wsol(root: Path, split: str | None) -> Path | None:
    if (root / wsol.FILES[0]).is_file() and not split:
        return root
    names = sorted(path.parent.name for path in root.glob(f"*/{wsol.FILES[0]}"))
    if split in names:
        return root / str(split)
    if len(names) > 1 and split is None:
        raise ValueError(f"metadata of {', '.join(names)} in {str(root)!r}; choose by split")
    return root / names[0] if names and split is None else None


def _class_folders(root: Path, split: str | None) -> list[Found]:
    names = [path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    holding = [name for name in sorted(names)[:20] if pictures_below(root / name)[0]]
    if split or not holding:
        return []
    if set(names) <= SPLITS:
        raise ValueError(f"splits {', '.join(sorted(names))} in {str(root)!r}; choose by split")
    return [Found("imagefolder", [root])]


def _nothing(root: Path, split: str | None, kind: str | None) -> str:
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in root.iterdir())
    inside = ", ".join(names[:5]) + (f", … {len(names)} entries in all" if len(names) > 5 else "")
    wanted = [f"{name}: {LOOKS[name]}" for name in ([kind] if kind else LOOKS)]
    chosen = f" of split {split!r}" if split else ""
    return f"no data set{chosen} in {str(root)!r}, which holds {inside or 'nothing'}; expected {'; '.join(wanted)}"
