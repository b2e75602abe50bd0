"""The published table, and how far an order of methods agrees with it."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

TABLE = Path(__file__).parent / "published.csv"
BETTER = {  # each column's sign: of two values the one with the larger product is better
    "drop": -1,
    "increase": 1,
    "deletion": -1,
    "insertion": 1,
    "coherency": 1,
    "complexity": -1,
    "adcc": 1,
}
COLUMNS = tuple(BETTER)
METHODS = ("gradcam", "gradcampp", "smoothgradcampp", "scorecam", "reciprocam")
Scores = dict[str, float]
Rows = dict[str, Scores]


def published(path: Path = TABLE) -> dict[str, Rows]:
    """{network: {method: {column: percent}}}, each row with its source in the file.

    Raises:
        ValueError: a row with a number missing or out of range.
    """
    found: dict[str, Rows] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for number, line in enumerate(csv.DictReader(file), 2):
            try:
                scores = {column: float(line[column]) for column in COLUMNS}
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path.name}, line {number}: expected {', '.join(COLUMNS)}, got {line}") from error
            if not all(0 <= value <= 100 for value in scores.values()):
                raise ValueError(f"{path.name}, line {number}: not percentages: {line}")
            found.setdefault(line["model"], {})[line["method"]] = scores
    return found


def sources(path: Path = TABLE) -> list[str]:
    """Where its rows come from."""
    with path.open(newline="", encoding="utf-8") as file:
        return sorted({line["source"] for line in csv.DictReader(file)})


def mean_of(tables: Mapping[str, Rows]) -> Rows:
    """The mean over networks, for one that was not published."""
    return {
        method: {c: sum(rows[method][c] for rows in tables.values()) / len(tables) for c in COLUMNS}
        for method in METHODS
    }


def order(rows: Mapping[str, Mapping[str, float]], column: str) -> list[str]:
    """Methods by a column, the best first; equal ones as they come."""
    return sorted(rows, key=lambda method: -BETTER[column] * rows[method][column])


def kendall(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's tau-b: pairs in the same order less pairs in the other, over all pairs; tied pairs shrink it.

    Returns:
        In [-1, 1]; NaN where all values of one side are equal or there are fewer than two.
    """
    pairs = [(i, j) for i in range(len(a)) for j in range(i)]
    signs = [(_sign(a[i] - a[j]), _sign(b[i] - b[j])) for i, j in pairs]
    untied = sum(x != 0 for x, _ in signs) * sum(y != 0 for _, y in signs)
    return sum(x * y for x, y in signs) / untied**0.5 if untied else float("nan")


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def agreement(ours: Mapping[str, Mapping[str, float]], theirs: Mapping[str, Mapping[str, float]], column: str) -> float:
    """Kendall's tau of the methods that both have, by one column."""
    both = [method for method in theirs if method in ours]
    return kendall([ours[method][column] for method in both], [theirs[method][column] for method in both])


def distance(ours: Mapping[str, float], theirs: Mapping[str, float]) -> float:
    """The mean absolute difference over the columns, in percentage points; columns that were not measured left out."""
    gaps = [abs(ours[column] - theirs[column]) for column in COLUMNS if ours[column] == ours[column]]
    return sum(gaps) / len(gaps) if gaps else float("nan")


def beside(rows: Mapping[str, Mapping[str, float]], one: Mapping[str, float], others: Sequence[str]) -> Scores:
    """A row less the mean of other methods' rows: what different images and weights do to all rows cancels."""
    return {c: one[c] - sum(rows[method][c] for method in others) / len(others) for c in COLUMNS}
