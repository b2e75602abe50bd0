"""What the words on the command line stand for: pictures, methods, options."""

from __future__ import annotations

import ast
import difflib
import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastcam import list_methods
from fastcam.methods.registry import METHODS

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


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
        patterns: such as ["gradcam,score*"].

    Raises:
        ValueError: an unknown name; the message holds the nearest ones.
    """
    found: list[str] = []
    for name in (part.strip() for pattern in patterns for part in pattern.split(",")):
        matching = list_methods(name) if name else []
        if not matching:
            near = difflib.get_close_matches(name, list(METHODS), n=4, cutoff=0.4) or list_methods()
            raise ValueError(f"unknown method {name!r}; nearest: {', '.join(near)}; all: fastcam methods")
        found += matching
    return list(dict.fromkeys(found))


def find_options(settings: Sequence[str], methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Which of the `name=value` settings go to which method: to each that has such an option.

    Args:
        settings: such as ["samples=10", "variant=official"].
        methods: method names.

    Returns:
        Options by method name.

    Raises:
        ValueError: not of that form, or an option none of the methods has.
    """
    options: dict[str, dict[str, Any]] = {method: {} for method in methods}
    for setting in settings:
        name, equals, text = setting.partition("=")
        takers = [method for method in methods if name in METHODS[method].options]
        if not equals or not takers:
            known = sorted({option for method in methods for option in METHODS[method].options})
            raise ValueError(
                f"--option {setting!r}: expected name=value with an option of {', '.join(methods)}: "
                f"{', '.join(known) or 'they have none'}"
            )
        try:
            value: Any = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        for method in takers:
            options[method][name] = value
    return options
