"""Rows as text: the table of a run, and the README's table from committed rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from bench import machine
from bench.rows import RESULTS, Row, duration, measured, megabytes, noisy, read_csv, table

HEADER = ("id", "work", "fastcam", "peer", "peer/fastcam", "x floor", "above bare", "map corr.", "target", "")


def verdict(row: Row) -> str:
    """ "pass", "MISS", or "" where no target is set for the row itself."""
    checks = []
    if row.limit is not None and row.of_floor is not None:
        checks.append(row.of_floor <= row.limit)
    if row.peak_limit is not None and row.peak is not None:
        checks.append(row.peak <= row.peak_limit)
    if row.forwards_limit is not None and row.forwards is not None:
        checks.append(row.forwards <= row.forwards_limit)
    return ("pass" if all(checks) else "MISS") if checks else ""


def peer_verdict(peer: Row, ours: Row) -> str:
    return "" if peer.versus is None else "pass" if peer.median / ours.median >= peer.versus else "MISS"


def works_of(rows: Iterable[Row]) -> list[list[Row]]:
    """The rows of each work together, in their order."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.id, row.what, row.device), []).append(row)
    return list(groups.values())


def lines(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The lines of one work: fastcam's, then one a peer."""
    ours = next(row for row in rows if row.who == "fastcam")
    judged = "noisy" if noisy(rows) else ""
    targets = [f"<= {ours.limit:g} x floor"] if ours.limit is not None else []
    targets += [f"<= {megabytes(ours.peak_limit)}"] if ours.peak_limit is not None else []
    share = f"{ours.of_floor:.3f}" if ours.of_floor is not None else ""
    mark, memory = judged or verdict(ours), megabytes(ours.peak)
    found: list[tuple[str, ...]] = [
        (
            ours.id,
            ours.what,
            duration(ours.median),
            "",
            "",
            share,
            memory,
            "",
            ", ".join(targets),
            mark,
        )
    ]
    for row in rows:
        if row.who in {"fastcam", "floor"}:
            continue
        star = "" if row.rounds else "*"
        found.append(
            (
                "",
                f"  {row.who}",
                "",
                duration(row.median) + star,
                f"{row.median / ours.median:.3g}{star}",
                f"{row.of_floor:.3g}{star}" if row.of_floor is not None else "",
                megabytes(row.peak),
                f"{row.agreement:.4f}" if row.agreement is not None else "",
                f">= {row.versus:g} x fastcam" if row.versus is not None else "",
                peer_verdict(row, ours) and (judged or peer_verdict(row, ours)),
            )
        )
    return found


def text(groups: Sequence[Sequence[Row]]) -> str:
    """The table of a run, its floors and its footnotes."""
    shown = table(HEADER, [line for rows in groups for line in lines(rows)])
    floors = sorted(
        {f"{row.id} {row.what}: {row.floor}" for rows in groups for row in rows if row.id in {"T3", "T4", "T5"}}
    )
    stars = sorted({f"{row.who}, {row.what}: {row.note}" for rows in groups for row in rows if not row.rounds})
    return "\n".join([shown, *[f"floor of {line}" for line in floors], *[f"* {line}" for line in stars]])


def newest(folder: Path = RESULTS, suite: str = "peers") -> list[list[Row]]:
    """The committed rows of a suite, of each work the latest."""
    kept: dict[tuple[str, str, str], list[Row]] = {}
    for path in measured(folder):
        for rows in works_of(row for row in read_csv(path) if row.suite == suite):
            key = (rows[0].id, rows[0].what, rows[0].device)
            if key not in kept or rows[0].date >= kept[key][0].date:
                kept[key] = rows
    return [kept[key] for key in sorted(kept, key=lambda key: key[0])]


def markdown(groups: Sequence[Sequence[Row]]) -> str:
    """The README's table: time, multiple of the floor, every peer, wins and losses alike."""
    if not groups:
        return "No committed rows: run `python -m bench peers --save NAME`."
    peers = list(machine.PEERS)
    head = ["", "work", "fastcam", "× floor", "target", *peers, "above the bare forward"]
    body, stars = [], set()
    for rows in groups:
        by = {row.who: row for row in rows}
        ours = by["fastcam"]
        cells = [ours.id, ours.what, duration(ours.median), f"{ours.of_floor:.2f}", _target(rows, ours)]
        for who in peers:
            row = by.get(who)
            if row is not None and not row.rounds:
                stars.add(f"{who}, {row.what}: {row.note}")
            cells.append("" if row is None else f"{row.median / ours.median:.3g} ×{'' if row.rounds else ' *'}")
        body.append([*cells, megabytes(ours.peak)])
    out = [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *body)]
    return "\n".join([*out, "", *noted(groups, machine.PEERS), *(f"\\* {line}" for line in sorted(stars))])


def noted(groups: Sequence[Sequence[Row]], peers: Iterable[str]) -> list[str]:
    """Where the rows of a table were made, and with which versions."""
    places = sorted({_made(next(row for row in rows if row.who == "fastcam")) for rows in groups})
    versions = {f"{row.who} {row.version}" for rows in groups for row in rows if row.who in peers and row.version}
    return [*places, ", ".join(sorted(versions))]


def _target(rows: Sequence[Row], ours: Row) -> str:
    results = [verdict(ours), *(peer_verdict(row, ours) for row in rows)]
    word = "noisy" if noisy(rows) else "**missed**" if "MISS" in results else "met"
    return f"≤ {ours.limit:g} {word}" if ours.limit is not None else ""


def _made(row: Row) -> str:
    return (
        f"{row.processor}, {row.threads} threads, {row.device}, torch {row.torch}, fastcam {row.fastcam} "
        f"({row.commit}), malloc {row.malloc}, load {row.load} at the start, {row.date}"
    )
