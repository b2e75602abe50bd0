"""Class numbers: of names, folders and synsets, through an index file or in sorted order."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

SYNSET = re.compile(r"n\d{8}")
# Words that stand for an index instead of a file.
BUILT_IN = ("imagenet", "number")


@dataclass(frozen=True)
class Labels:
    """From what a data set calls a class to the model's class numbers.

    Attributes:
        names: the data set's own names in the order of its own numbers, or None.
        index: the model's class numbers of each name, or None to take the data set's own numbers.
    """

    names: Sequence[str] | None = None
    index: Mapping[str, tuple[int, ...]] | None = None

    def numbers(self, value: Any) -> tuple[int, ...]:
        """The model's class numbers of a name or number of the data set.

        Args:
            value: a name, or the data set's own number.

        Raises:
            ValueError: no class, or one outside the classes.
        """
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # a column with gaps holds floats
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError(f"label {value!r}; expected a class name or a whole number")
        if self.index is not None:
            known = [str(value)]
            if isinstance(value, int) and self.names is not None and 0 <= value < len(self.names):
                known.insert(0, self.names[value])
            found = next((self.index[name] for name in known if name in self.index), None)
            if found is None:
                raise ValueError(f"class {known[0]!r} is not in class_index ({_few(self.index)})")
            return found
        if isinstance(value, str):
            if self.names is not None and value in self.names:
                return (self.names.index(value),)
            if not re.fullmatch(r"[+-]?\d+", value.strip()):
                known = f"the classes ({_few(self.names)})" if self.names else "a number; give class_index"
                raise ValueError(f"class {value!r} is not {'one of ' if self.names else ''}{known}")
            value = int(value)
        if value < 0 or (self.names is not None and value >= len(self.names)):
            top = f" to {len(self.names) - 1}" if self.names else ""
            raise ValueError(f"label {value} is outside the classes; expected 0{top or ' or above'}")
        return (value,)

    @property
    def classes(self) -> list[str] | None:
        """The name of each model class, where every number from 0 on has one."""
        if self.index is None:
            return list(self.names) if self.names is not None else None
        names = {number: name for name, numbers in reversed(list(self.index.items())) for number in numbers}
        return [names[number] for number in range(len(names))] if set(names) == set(range(len(names))) else None


def _few(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f", … {len(names)} in all" if len(names) > 3 else "")


def synsets() -> list[str]:
    """The 1000 WordNet ids of ImageNet-1k, in class order, which is sorted order."""
    return files("fastcam").joinpath("data/imagenet1k_synsets.txt").read_text("utf-8").split()


def read_index(
    source: str | os.PathLike[str] | Mapping[str, int] | None,
) -> Mapping[str, tuple[int, ...]] | None:
    """Class numbers by name.

    Args:
        source: a mapping; "imagenet" (WordNet ids to ImageNet-1k's numbers); "number" (the name is the number);
            a JSON file {name: number}, {name: [numbers]}, {number: [synset, name]} or [name, …]; or a text file of
            lines "name number", "name,number", "synset names" or "name", the last two numbered by line.

    Returns:
        {name: numbers}, or None for None.

    Raises:
        ValueError: no such file, another form, or a name given twice.
    """
    if source is None:
        return None
    if isinstance(source, Mapping):
        return _checked(source, "class_index")
    if source == "imagenet":
        return {name: (number,) for number, name in enumerate(synsets())}
    if source == "number":
        return {str(number): (number,) for number in range(100_000)}
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"no class_index file {str(path)!r}; give a JSON or text file, or one of {BUILT_IN}")
    try:
        text = path.read_text("utf-8")
        values = json.loads(text) if path.suffix.lower() == ".json" else _lines(text, str(path))
    except UnicodeDecodeError:
        raise ValueError(f"class_index {str(path)!r} is not text in UTF-8; give a JSON or text file") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"class_index {str(path)!r} is not JSON ({error}); expected {{name: number}}") from None
    if isinstance(values, list):
        values = _unique([(name, number) for number, name in enumerate(values)], str(path))
    return _checked(values, repr(str(path)))


def _lines(text: str, path: str) -> dict[str, int]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    pairs = [re.fullmatch(r"(.+?)[\s,:=]+(\d+)", line) for line in lines]
    names = [pair[1] for pair in pairs if pair]
    if len(names) == len(lines) and len(set(names)) == len(names):
        return {pair[1]: int(pair[2]) for pair in pairs if pair}
    if all(SYNSET.fullmatch(line.split()[0].rstrip(",")) for line in lines):
        lines = [line.split()[0].rstrip(",") for line in lines]
    return _unique([(name, number) for number, name in enumerate(lines)], path)


def _unique(pairs: list[tuple[Any, int]], path: str) -> dict[Any, int]:
    found: dict[Any, int] = {}
    for name, number in pairs:
        if not isinstance(name, str) or name in found:
            raise ValueError(f"class_index {path!r} holds {name!r} as entry {number}; expected names, each once")
        found[name] = number
    return found


def _checked(values: Any, source: str) -> dict[str, tuple[int, ...]]:
    if not isinstance(values, Mapping) or not values:
        raise ValueError(f"{source} holds {type(values).__name__}; expected names with their class numbers")
    # Keras' imagenet_class_index.json has it the other way: {"0": ["n01440764", "tench"]}.
    if all(isinstance(v, list) and v and isinstance(v[0], str) and str(k).isdigit() for k, v in values.items()):
        values = {pair[0]: int(number) for number, pair in values.items()}
    found = {}
    for name, numbers in values.items():
        several = tuple(numbers) if isinstance(numbers, list | tuple) else (numbers,)
        if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in several):
            raise ValueError(f"{source} gives {numbers!r} for {name!r}; expected a class number of 0 or above")
        found[str(name)] = several
    return found
