"""What the words on the command line stand for: pictures, methods, options."""

from __future__ import annotations

import ast
import difflib
import glob
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastcam import list_methods
from fastcam.meta import options_of, parse, split
from fastcam.methods.registry import METHODS

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
SWITCHES = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def find_pictures(patterns: Sequence[str]) -> list[Path]:
    """The files that paths, globs and folders name, each once; what names nothing stays, to be reported.

    Args:
        patterns: files; globs, `**` for any depth; folders, whose own pictures count.
    """
    found: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            found += inside or [path]
        elif path.exists():
            found.append(path)
        else:
            found += [Path(name) for name in sorted(glob.glob(pattern, recursive=True))] or [path]
    return list(dict.fromkeys(found))


def find_methods(patterns: Sequence[str]) -> list[str]:
    """The method names that comma-separated names and wildcards stand for, each once.

    Args:
        patterns: such as ["gradcam,score*", "sess(gradcam)"]; commas within brackets separate no methods.

    Raises:
        ValueError: an unknown name; the message holds the nearest ones.
    """
    found: list[str] = []
    for name in (part for pattern in patterns for part in split(pattern)):
        if "(" in name:
            parse(name)
            found.append(name)
            continue
        matching = list_methods(name) if name else []
        if not matching:
            near = difflib.get_close_matches(name, list(METHODS), n=4, cutoff=0.4) or list_methods()
            raise ValueError(f"unknown method {name!r}; nearest: {', '.join(near)}; all: fastcam methods")
        found += matching
    return list(dict.fromkeys(found))


def find_options(settings: Sequence[str], methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Which of the `name=value` settings go to which method: to each that has such an option.

    Args:
        settings: such as ["samples=10", "variant=official", "sscam.seed=3"].
        methods: method names.

    Returns:
        Options by method name.

    Raises:
        ValueError: not of that form, an option none of the methods has, or neither true nor false where it must be.
    """
    options: dict[str, dict[str, Any]] = {method: {} for method in methods}
    for setting in settings:
        name, equals, text = setting.partition("=")
        only, dot, option = name.rpartition(".")
        takers = [m for m in methods if option in options_of(m) and (not dot or m == only)]
        if not equals or not takers:
            known = sorted({option for method in methods for option in options_of(method)})
            raise ValueError(
                f"--option {setting!r}: expected name=value with an option of {', '.join(methods)}: "
                f"{', '.join(known) or 'they have none'}"
            )
        for method in takers:
            options[method][option] = _value(setting, text, options_of(method)[option])
    return options


def split_options(
    settings: Sequence[str], methods: Sequence[str], protocol: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Which of the `name=value` settings go to which method, and which change the protocol.

    Args:
        settings: such as ["samples=10", "steps=20", "protocol.score=logit", "reciprocam.score=logit"].
        methods: method names.
        protocol: its options, with the values they have otherwise.

    Returns:
        Options by method name, as `find_options` gives them, and those of the protocol.

    Raises:
        ValueError: not of that form, an option that neither has, one that both have, or neither true nor false where
            it must be.
    """
    own, rest = {}, []
    for setting in settings:
        name, equals, text = setting.partition("=")
        plain = name.removeprefix("protocol.")
        takers = [method for method in methods if name in options_of(method)]
        if plain not in protocol or not equals:
            if not takers and "." not in name:
                known = sorted({*protocol, *(option for method in methods for option in options_of(method))})
                near = difflib.get_close_matches(name, known, n=4, cutoff=0.5) or known
                raise ValueError(
                    f"--option {setting!r}: expected name=value with an option of the methods or the protocol; "
                    f"nearest: {', '.join(near)}"
                )
            rest.append(setting)
        elif takers and plain == name:
            raise ValueError(
                f"--option {setting!r}: {', '.join(takers)} and the protocol have it; "
                f"write {takers[0]}.{name}= or protocol.{name}="
            )
        else:
            own[plain] = _value(setting, text, protocol[plain])
    return find_options(rest, methods), own


def normalized(options: Mapping[str, Any], method: str, mean: Any, std: Any) -> dict[str, Any]:
    """Options with the pictures' normalization, for a method that asks for it and was told none."""
    asked = options_of(method)
    lacks = "mean" in asked and "std" in asked and asked["mean"] is None and "mean" not in options
    return {**options, **({"mean": list(mean), "std": list(std)} if lacks else {})}


def parse_bytes(text: str | None) -> int | None:
    """Bytes from "512MB", "1.5 GB", "300000000"; None stays None.

    Raises:
        ValueError: not a size above 0.
    """
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", text.lower())
    size = int(float(found[1]) * 1024 ** " kmgt".index(found[2] or " ")) if found else 0
    if size < 1:
        raise ValueError(f"{text!r} is not a size; give one such as 512MB or 2GB")
    return size


def spelled(message: str) -> str:
    """A message of the library with its arguments as they are spelled on the command line.

    Args:
        message: about `open_dataset`.

    >>> spelled("2 WordNet ids are numbered 0 to 1; give class_index='imagenet'")
    '2 WordNet ids are numbered 0 to 1; give --class-index imagenet'
    """
    message = re.sub(r"\b(kind|split)='([^']+)'", r"--\1 \2", message)
    message = re.sub(r"^images\b", "--images", message.replace("`images`", "--images"))
    option = r"(?<![\w/.-])class_index(?:='([^']+)'|(?![\w/.-]))"  # not within a path
    return re.sub(option, lambda found: f"--class-index {found[1] or ''}".rstrip(), message)


def _value(setting: str, text: str, default: Any) -> Any:
    """What a text stands for, where the option has this value otherwise."""
    if isinstance(default, bool):
        # Any text that is not empty is true to Python, "false" too.
        if text.lower() not in SWITCHES:
            raise ValueError(f"--option {setting!r}: {text!r} is neither true nor false; give one of the two")
        return SWITCHES[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
