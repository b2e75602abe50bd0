"""The classes that Finer-CAM compares, checked."""

from __future__ import annotations

from typing import Any


def is_class(value: Any) -> bool:
    """Whether this is an int, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def classes_of(class_idx: Any, images: int, count: int) -> list[int]:
    """The class of each image."""
    if not is_class(class_idx) and not isinstance(class_idx, list):
        raise TypeError(f"class_idx must be an integer or a list of them, not {class_idx!r}")
    classes = class_idx if isinstance(class_idx, list) else [class_idx] * images
    if len(classes) != images:
        raise ValueError(f"class_idx has {len(classes)} entries for a batch size of {images}; give one each")
    if not all(map(is_class, classes)):
        raise TypeError(f"class_idx must contain integers, not {class_idx!r}")
    if not all(0 <= c < count for c in classes):
        raise ValueError(
            f"class_idx has an out-of-range entry: {class_idx!r}, the scores have classes 0 to {count - 1}"
        )
    return classes


def references_of(comparison_idx: Any, classes: list[int], count: int) -> list[list[int]]:
    """The classes that each image's own is compared with."""
    if is_class(comparison_idx):
        comparison_idx = [comparison_idx]
    if not isinstance(comparison_idx, list):
        raise TypeError(f"comparison_idx must be an integer, a list, or a nested list, not {comparison_idx!r}")
    if not comparison_idx:
        raise ValueError("comparison_idx cannot be empty; leave it out for the classes with the closest scores")
    nested = [isinstance(row, list) for row in comparison_idx]
    if any(nested) != all(nested):
        raise TypeError(f"comparison_idx must hold integers or lists of integers, not both: {comparison_idx!r}")
    rows = comparison_idx if all(nested) else [comparison_idx] * len(classes)
    if len(rows) != len(classes):
        raise ValueError(f"comparison_idx has {len(rows)} rows for a batch size of {len(classes)}; give one each")
    if not all(rows):
        raise ValueError("comparison_idx rows cannot be empty")
    if len({len(row) for row in rows}) > 1:
        raise ValueError("comparison_idx rows must have equal lengths")
    for i, (own, row) in enumerate(zip(classes, rows, strict=True)):
        if not all(map(is_class, row)):
            raise TypeError(f"comparison_idx must contain integers, not {row!r}")
        wrong = (
            "an out-of-range class" if not all(0 <= c < count for c in row)
            else "duplicates" if len(set(row)) < len(row)
            else "the target class" if own in row
            else None
        )  # fmt: skip
        if wrong:
            raise ValueError(f"comparison_idx contains {wrong} for image {i}: {row!r}; name other classes than {own}")
    return rows
