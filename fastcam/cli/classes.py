"""Class names: from a file or ImageNet-1k, and back from what a user typed to a class number."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from fastcam import TopK


def imagenet() -> list[str]:
    """The 1000 names of ImageNet-1k, in class order."""
    return files("fastcam").joinpath("data/imagenet1k.txt").read_text("utf-8").splitlines()


def read_names(path: Path) -> list[str]:
    """The lines of a text file, one class name each.

    Raises:
        ValueError: the file is empty or not text.
    """
    try:
        names = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{str(path)!r} is not a text file; give one class name a line, in UTF-8") from None
    if not names:
        raise ValueError(f"{str(path)!r} is empty; give one class name a line")
    return names


def fit(names: Sequence[str] | None, classes: int) -> list[str]:
    """One name for each class: the names given, ImageNet's for 1000 classes, or "class 7".

    Args:
        names: from a file, or None.
        classes: how many logits the model gives.

    Raises:
        ValueError: another number of names than of classes.
    """
    if names is None:
        return imagenet() if classes == 1000 else [f"class {number}" for number in range(classes)]
    if len(names) != classes:
        raise ValueError(f"{len(names)} class names for a model with {classes} classes; give one line a class")
    return list(names)


def parse_target(text: str | None, names: Sequence[str]) -> int | TopK | None:
    """What `--target` means: None, "281", "tabby" or "top3".

    Args:
        text: what the user typed.
        names: the model's class names.

    Raises:
        ValueError: no such name; the message holds the nearest ones.
    """
    if text is None:
        return None
    if top := re.fullmatch(r"top(\d+)", text.strip().lower()):
        from fastcam import TopK

        return TopK(int(top[1]))
    if re.fullmatch(r"[+-]?\d+", text.strip()):
        return int(text)
    wanted = _plain(text)
    plain = [_plain(name) for name in names]
    found = [number for number, name in enumerate(plain) if name == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"target {text!r} names the classes {', '.join(map(str, found))}; give the number")
    # Part of a name ("cat" for "tiger cat") is nearer to what was meant than a name of similar letters.
    near = [name for name in plain if re.search(rf"\b{re.escape(wanted)}\b", name)]
    near += difflib.get_close_matches(wanted, plain, n=5, cutoff=0.6)
    shown = [f"{names[plain.index(name)]} ({plain.index(name)})" for name in dict.fromkeys(near)][:5]
    hint = f"nearest: {', '.join(shown)}" if shown else f"names run from {names[0]!r} to {names[-1]!r}"
    raise ValueError(f"no class is named {text!r}; {hint}; or give a class number or top3")


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def is_name(text: str | None) -> bool:
    """Whether `--target` holds a class name rather than a number or top3."""
    return text is not None and not re.fullmatch(r"[+-]?\d+|top\d+", text.strip().lower())


def describe(logits: Tensor, names: Sequence[str], wanted: Tensor | None) -> list[dict[str, Any]]:
    """Number, name and probability of classes.

    Args:
        logits: (classes,)
        names: one for each class.
        wanted: class numbers of any shape; none when None.

    Returns:
        Rows of {"class", "name", "probability"} in the order of `wanted`.
    """
    probabilities = logits.float().softmax(0)
    return [
        {"class": number, "name": names[number], "probability": round(float(probabilities[number]), 6)}
        for number in ([] if wanted is None else wanted.flatten().tolist())
    ]
