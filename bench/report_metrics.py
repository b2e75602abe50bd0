"""Rows of the metrics as text: the table of a run, and the README's from committed rows."""

from __future__ import annotations

from collections.abc import Sequence

from bench import machine
from bench.report import noted, peer_verdict, verdict
from bench.rows import Row, duration, noisy, table

HEADER = ("id", "work", "fastcam", "peer", "peer/fastcam", "x floor", "forwards", "same", "differ", "target", "")
COMMAND = "python -m bench metrics --save NAME"


def targets(ours: Row) -> str:
    """What is asked of fastcam's row."""
    found = [f"<= {ours.limit:g} x floor"] if ours.limit is not None else []
    found += [f"<= {ours.forwards_limit:g} forwards"] if ours.forwards_limit is not None else []
    return ", ".join(found)


def lines(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The lines of one work: fastcam's, then one a peer."""
    ours = next(row for row in rows if row.who == "fastcam")
    # Only what is set against the floor's time is in doubt where that time was unsteady.
    doubt = "noisy" if noisy(rows) else ""
    mark = verdict(ours)
    found = [
        (
            ours.id,
            ours.what,
            duration(ours.median),
            "",
            "",
            "" if ours.of_floor is None else f"{ours.of_floor:.3f}",
            "" if ours.forwards is None else f"{ours.forwards:.2f}",
            "",
            "",
            targets(ours),
            doubt if mark and ours.limit is not None and doubt else mark,
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
                "" if row.of_floor is None else f"{row.of_floor:.3g}{star}",
                "",
                "" if row.agreement is None else f"{row.agreement:.4f}",
                "" if row.difference is None else f"{row.difference:.1g}",
                "" if row.versus is None else f">= {row.versus:g} x fastcam",
                peer_verdict(row, ours),
            )
        )
    return found


def text(groups: Sequence[Sequence[Row]]) -> str:
    """The table of a run, its floors, who leads how often, and its footnotes."""
    if not groups:
        return "nothing measured"
    shown = table(HEADER, [line for rows in groups for line in lines(rows)])
    floors = {f"floor of {row.id} {row.what}: {row.floor}" for rows in groups for row in rows if row.floor}
    notes = {f"{'' if row.rounds else '* '}{row.who}, {row.what}: {row.note}" for g in groups for row in g if row.note}
    verdicts = [line[-1] for rows in groups for line in lines(rows) if line[-1]]
    counts = ", ".join(f"{verdicts.count(word)} {word}" for word in ("pass", "MISS", "noisy") if word in verdicts)
    explained = "same: share of equal boxes, or the curves' correlation; differ: the largest difference of a value"
    return "\n".join([shown, explained, *sorted(floors), *sorted(notes), f"targets: {counts or 'none'}"])


def markdown(groups: Sequence[Sequence[Row]]) -> str:
    """The README's table: time, multiple of the floor, every peer, wins and losses alike."""
    if not groups:
        return f"No committed rows: run `{COMMAND}`."
    present = {row.who for rows in groups for row in rows}
    peers = [who for who in machine.METRIC_PEERS if who in present]
    head = ["", "work", "fastcam", "× floor", "forwards", "target", *peers]
    body, stars = [], set()
    for rows in groups:
        by = {row.who: row for row in rows}
        ours = by["fastcam"]
        share = "" if ours.of_floor is None else f"{ours.of_floor:.2f}"
        forwards = "" if ours.forwards is None else f"{ours.forwards:.4g}"
        cells = [ours.id, ours.what, duration(ours.median), share, forwards, _target(rows, ours)]
        for who in peers:
            row = by.get(who)
            if row is not None and not row.rounds:
                stars.add(f"{who}, {row.what}: {row.note}")
            cells.append("" if row is None else f"{row.median / ours.median:.3g} ×{'' if row.rounds else ' *'}")
        body.append(cells)
    out = [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *body)]
    return "\n".join([*out, "", *noted(groups, machine.METRIC_PEERS), *(f"\\* {line}" for line in sorted(stars))])


def _target(rows: Sequence[Row], ours: Row) -> str:
    asked = targets(ours).replace("<=", "≤").replace(" x ", " × ")
    versus = [f"≥ {row.versus:g} × {row.who}" for row in rows if row.versus is not None]
    results = [verdict(ours), *(peer_verdict(row, ours) for row in rows if row.who != "fastcam")]
    if not any(results):
        return ""
    doubtful = noisy(rows) and ours.limit is not None
    word = "noisy" if doubtful else "**missed**" if "MISS" in results else "met"
    return f"{', '.join([*filter(None, [asked]), *versus])} {word}"
