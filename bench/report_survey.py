"""The survey as text: every method's quality on labeled pictures, and its time beside floor and peer."""

from __future__ import annotations

from collections.abc import Sequence

from bench.report import noted
from bench.results_table import read
from bench.rows import RESULTS, Row, duration
from bench.survey_quality import Result

HEADER = ["method", "pictures", "ADCC", "insertion", "deletion", "energy", "boxes", "forwards", "backwards", "seconds"]
TIMES = ["method", "needs", "fastcam", "× floor", "nearest peer", "peer ÷ fastcam"]
FILE = RESULTS / "survey-quality.csv"


def markdown(groups: Sequence[Sequence[Row]]) -> str:
    """The tables of quality, a network each, then the table of time.

    Args:
        groups: the committed rows of time, a method each.
    """
    parts = [quality(rows, groups) for rows in by_model(read(FILE, Result)).values()]
    return "\n\n".join([*parts, times(groups)] if groups else [*parts])


def by_model(rows: Sequence[Result]) -> dict[str, list[Result]]:
    """The lines of each network, the highest ADCC first."""
    found: dict[str, list[Result]] = {}
    for row in sorted(rows, key=lambda row: -row.adcc):
        found.setdefault(row.model, []).append(row)
    return found


def quality(rows: Sequence[Result], groups: Sequence[Sequence[Row]]) -> str:
    """One network's table."""
    one = rows[0]
    seconds = {row.what: row.median for group in groups for row in group if row.who == "fastcam"}
    lines = []
    for row in rows:
        name = f"{row.method} ({row.options})" if row.options else row.method
        parts = [f"{value:.1f}" for value in (row.adcc, row.insertion, row.deletion, row.energy, row.boxes)]
        spent = duration(seconds[name]) if name in seconds else ""
        lines.append([name, str(row.images), *parts, f"{row.forwards:g}", f"{row.backwards:g}", spent])
    curves = max(row.curve_images for row in rows)
    about = (
        f"{one.model} ({one.weights}), {one.data}, the label of each picture explained; insertion and deletion over "
        f"at most {curves} pictures; boxes is MaxBoxAccV2; all in percent; seconds of one map on efficientnet_lite0; "
        f"{one.processor}, torch {one.torch}, {min(row.date for row in rows)}"
    )
    return "\n".join([_table(HEADER, lines), "", about])


def times(groups: Sequence[Sequence[Row]]) -> str:
    """What a map takes on one network, beside what the network alone takes for the same forwards and backwards."""
    lines = []
    for rows in sorted(groups, key=lambda rows: rows[0].what):
        by = {row.who: row for row in rows}
        floor, ours = by.pop("floor"), by.pop("fastcam")
        peers = [(who, f"{row.median / ours.median:.3g}{'' if row.rounds else ' *'}") for who, row in by.items()]
        who, ratio = ("", "") if not peers else peers[0]
        share = "" if ours.of_floor is None else f"{ours.of_floor:.2f}"
        lines.append([ours.what, floor.floor, duration(ours.median), share, who, ratio])
    stars = [f"\\* {row.what}: {row.note}" for rows in groups for row in rows if not row.rounds]
    return "\n".join([_table(TIMES, lines), "", *noted(groups, ("pytorch-grad-cam", "torchcam", "captum")), *stars])


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *lines))
