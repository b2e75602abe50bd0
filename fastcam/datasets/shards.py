"""Names of shards: `{000..012}`, `{a,b}` and `*` in a path, the shards of a folder, and those of one split."""

from __future__ import annotations

import glob
import itertools
import re
from pathlib import Path

MANY = 20
BRACES = re.compile(r"\{([^{}]*)\}")


def expand(pattern: str) -> list[Path]:
    """Every path a pattern stands for; a range of numbers keeps its leading zeros.

    >>> [path.name for path in expand("val-{08..10}.tar")]
    ['val-08.tar', 'val-09.tar', 'val-10.tar']
    """
    parts = BRACES.split(pattern)
    choices = [[part] if place % 2 == 0 else _choices(part) for place, part in enumerate(parts)]
    names = ["".join(combination) for combination in itertools.product(*choices)]
    return [Path(path) for name in names for path in (sorted(glob.glob(name)) if "*" in name else [name])]


def _choices(inside: str) -> list[str]:
    if numbers := re.fullmatch(r"(\d+)\.\.(\d+)", inside):
        first, last = int(numbers[1]), int(numbers[2])
        return [f"{number:0{len(numbers[1])}d}" for number in range(first, last + 1)]
    return inside.split(",")


def below(folder: Path, suffix: str) -> list[Path]:
    """Files of a suffix in a folder, in its `data` folder, or in its few other folders, whichever has some first."""
    inside = [path for path in folder.iterdir() if path.is_dir()]
    # A folder of a thousand class folders is not searched: it may hold a million pictures.
    for folders in ([folder], [folder / "data"], inside if len(inside) <= MANY else []):
        if found := sorted(path for one in folders for path in one.glob(f"*{suffix}")):
            return found
    return []


def choose(paths: list[Path], split: str | None, folder: Path) -> list[Path]:
    """The shards of a split.

    Args:
        paths: shards, such as train-00000-of-00004.parquet or val/0001.tar.
        split: a word in their names; when None, all of them must be of one kind of name.
        folder: that they lie in, for the message.

    Raises:
        ValueError: none of that split, or several splits and none chosen.
    """
    groups: dict[str, list[Path]] = {}
    for path in paths:
        name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
        # Digits number the shards, what follows -of- is how many and a checksum.
        words = re.findall(r"[A-Za-z]+", name.split("-of-")[0].removesuffix(path.suffix))
        groups.setdefault(" ".join(word for word in words if word != "data"), []).append(path)
    if split:
        found = [path for words, shards in groups.items() if split in words.split() for path in shards]
        if not found:
            raise ValueError(f"no shards of split {split!r} in {str(folder)!r}; found {', '.join(groups) or 'none'}")
        return sorted(found)
    if len(groups) > 1:
        names = ", ".join(f"{words or 'no name'} ({len(shards)})" for words, shards in groups.items())
        raise ValueError(f"shards of several names in {str(folder)!r}: {names}; choose by split")
    return paths
