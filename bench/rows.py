"""One measurement as a row: printed, and kept as CSV or JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass
class Row:
    """Who did what, how fast, on what.

    Attributes:
        suite: "ops", "methods", "peers", "engines", "metrics", "budget", "survey" or "compat".
        id: of the target, T1 to T9, or "".
        what: the work.
        who: fastcam, a backend of an op, a peer, or "floor".
        shape: of the images, or of an op's first argument.
        dtype: of the same.
        device: where.
        median: seconds.
        q25: lower quartile, seconds.
        q75: upper quartile, seconds.
        rounds: how many; 0 where the time is extrapolated, or none was taken.
        of_floor: time as a multiple of the floor's in the same rounds.
        floor: what the floor is, in words.
        limit: the target for `of_floor`.
        versus: the target for the peer's time over fastcam's, on the peer's row.
        bytes_per_s: memory traffic of an op.
        peak: bytes above those of the bare forward.
        peak_limit: the target for `peak`.
        agreement: correlation of a peer's map with fastcam's, or of a budget's with the full one; or the share of
            equal boxes.
        difference: largest of a peer's values from fastcam's, in their own unit.
        forwards: images that went through the network, for each image explained.
        forwards_limit: the target for `forwards`, without any backward.
        budget: of Score-CAM, or "all".
        least: the smallest of the correlations whose mean `agreement` is.
        adcc: of the data set's means, percent.
        version: of who.
        note: what a reader must know.
    """

    suite: str
    id: str
    what: str
    who: str
    shape: str
    dtype: str
    device: str
    median: float
    q25: float
    q75: float
    rounds: int
    of_floor: float | None = None
    floor: str = ""
    limit: float | None = None
    versus: float | None = None
    bytes_per_s: float | None = None
    peak: int | None = None
    peak_limit: int | None = None
    agreement: float | None = None
    difference: float | None = None
    forwards: float | None = None
    forwards_limit: float | None = None
    budget: str = ""
    least: float | None = None
    adcc: float | None = None
    version: str = ""
    note: str = ""
    commit: str = ""
    fastcam: str = ""
    torch: str = ""
    python: str = ""
    processor: str = ""
    threads: str = ""
    malloc: str = ""
    load: str = ""
    date: str = ""


NUMBERS = {field.name for field in fields(Row) if "float" in str(field.type) or "int" in str(field.type)}


def noisy(rows: Iterable[Row]) -> bool:
    """Whether some round of the floor took far longer than another: no verdict stands on such rows."""
    return any(row.who == "floor" and row.q75 > 1.15 * row.q25 for row in rows)


def stamped(rows: Iterable[Row], about: Mapping[str, str]) -> list[Row]:
    """The rows with what `machine.describe` says."""
    found = list(rows)
    for row in found:
        for name, value in about.items():
            setattr(row, name, value)
    return found


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _short(value) for name, value in asdict(row).items()} for row in rows)


def measured(folder: Path = RESULTS) -> list[Path]:
    """The files of rows in a folder; other tables may lie beside them."""
    header = "suite,id,what,who,"
    return [path for path in sorted(folder.glob("*.csv")) if path.read_text(encoding="utf-8").startswith(header)]


def read_csv(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return [Row(**{name: _number(name, text) for name, text in line.items()}) for line in csv.DictReader(file)]


def write_json(path: Path, rows: Sequence[Row]) -> None:
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


def _short(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value


def _number(name: str, text: str) -> Any:
    if name not in NUMBERS:
        return text
    if text == "":
        return None
    return int(text) if name in {"rounds", "peak", "peak_limit"} else float(text)


def duration(value: float) -> str:
    """Seconds with three digits and a fitting unit."""
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}" if value * factor < 1000 else f"{value * factor:.0f} {unit}"
    return f"{value * 1e6:.3g} µs"


def megabytes(value: int | None) -> str:
    return "" if value is None else f"{value / 2**20:.0f} MB"


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Columns of text, the first two to the left, all others to the right."""
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]

    def show(line: Sequence[str]) -> str:
        cells = (c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        return "  ".join(cells).rstrip()

    return "\n".join(map(show, [header, *lines]))
