"""Rows of Score-CAM's budgets as text: the table of a run, and the README's from committed rows."""

from __future__ import annotations

from collections.abc import Sequence

from bench.report import noted
from bench.rows import Row, duration, table

COMMAND = "python -m bench budget --data DATA --save NAME"
HEADER = ["budget", "forwards", "correlation", "least", "ADCC"]


def by_budget(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """The rows of each budget, the smallest first: of its "quality", and of its time by runtime."""
    found: dict[str, dict[str, Row]] = {}
    for row in sorted(rows, key=lambda row: (not row.budget.isdigit(), int(row.budget) if row.budget.isdigit() else 0)):
        kind = "quality" if row.adcc is not None else row.what.split(", ")[-2]
        found.setdefault(row.budget, {})[kind] = row
    return found


def cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Header and lines: what a map costs, how good it is, and its time by runtime with the full one's over it."""
    budgets = by_budget(rows)
    runtimes = list(dict.fromkeys(kind for found in budgets.values() for kind in found if kind != "quality"))
    lines = []
    for budget, found in budgets.items():
        good = found.get("quality")
        any_ = good or next(iter(found.values()))
        line = [budget, "" if any_.forwards is None else f"{any_.forwards:.4g}"]
        line += [_digits(good.agreement), _digits(good.least), f"{good.adcc:.1f}"] if good else [""] * 3
        for runtime in runtimes:
            mine, whole = found.get(runtime), budgets.get("all", {}).get(runtime)
            share = f" ({whole.median / mine.median:.1f} ×)" if mine and whole and mine is not whole else ""
            line.append(f"{duration(mine.median)}{share}" if mine else "")
        lines.append(line)
    return [*HEADER, *runtimes], lines


def text(rows: Sequence[Row]) -> str:
    """The table of a run."""
    if not rows:
        return "nothing measured"
    header, lines = cells(rows)
    notes = dict.fromkeys(f"{row.what.split(', budget')[0]}: {row.shape}, {row.note}" for row in rows)
    return "\n".join([table(header, lines), *notes])


def markdown(groups: Sequence[Sequence[Row]]) -> str:
    """The README's table: correlation with the full maps and ADCC over forwards and time."""
    rows = [row for group in groups for row in group]
    if not rows:
        return f"No committed rows: run `{COMMAND}`."
    header, lines = cells(rows)
    out = [f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *lines)]
    notes = [f"{row.shape.split('x')[0]} pictures of {row.note}" for row in rows if row.adcc is not None][:1]
    notes += list(dict.fromkeys(f"time: {row.note}" for row in rows if row.adcc is None))
    return "\n".join([*out, "", *notes, *filter(None, noted(groups, ()))])


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
