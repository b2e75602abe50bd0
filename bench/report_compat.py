"""What differs from the peers on purpose, what their own suites say, and the times: what docs/compat.md shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.compat import pairs
from bench.compat_reasons import REASONS
from bench.compat_suite import FILE, Counts
from bench.report import noted
from bench.results_table import read
from bench.rows import Row, duration
from fastcam.compat.differences import DIFFERENCES, Difference

DIFFER = ("what", "theirs", "ours", "why", "source", "switch for theirs")
SUITES = ("suite", "on", "passed", "failed", "skipped", "tests that pass on both", "weights")
TIMES = ("class, network, call", "fastcam", "the peer", "peer ÷ fastcam", "maps differ by")


def markdown(groups: Sequence[Sequence[Row]] = ()) -> str:
    """The differences, a table a peer; the suites; the committed times, where there are any.

    Args:
        groups: the rows of each class, network and kind of call.
    """
    parts = [differences(DIFFERENCES), "## Their own test suites", suites(read(FILE, Counts)), failures(REASONS)]
    if groups:
        parts += ["## Times", times(groups)]
    return "\n\n".join(part for part in parts if part)


def differences(rows: Sequence[Difference]) -> str:
    """A table for each peer."""
    parts = []
    for peer in dict.fromkeys(row.peer for row in rows):
        own = [row for row in rows if row.peer == peer]
        lines = [(row.what, row.theirs, row.ours, row.reason, row.source, row.switch) for row in own]
        parts.append(f"### {peer}\n\n{_table(DIFFER, lines)}")
    return "\n\n".join(parts)


def suites(rows: Sequence[Counts]) -> str:
    """Tests passed, failed and skipped on fastcam and on the peer itself, from committed rows."""
    if not rows:
        return "No committed rows: run `python -m bench compat --suite PATH --save suites`."
    lines = [
        (
            f"{row.peer}, {row.checkout}" if row.checkout else row.peer,
            row.who,
            *map(str, (row.passed, row.failed, row.skipped)),
            duration(row.both_seconds),
            row.weights,
        )
        for row in rows
    ]
    one = rows[0]
    made = (
        f"{one.processor}, {one.threads} threads, torch {one.torch}, fastcam {one.fastcam} ({one.commit}), {one.date}"
    )
    return f"{_table(SUITES, lines)}\n\n{made}"


def failures(reasons: Mapping[str, Mapping[str, str]]) -> str:
    """The tests that stay failing and why."""
    lines = [(peer, f"`{name}`", why) for peer, found in reasons.items() for name, why in found.items()]
    return _table(("suite", "test", "why it fails on fastcam"), lines) if lines else ""


def times(groups: Sequence[Sequence[Row]]) -> str:
    """The peer's time beside fastcam's, the same calls through both import roots."""
    lines = [
        (
            ours.what,
            duration(ours.median),
            duration(peer.median),
            f"{peer.median / ours.median:.3g}",
            f"{peer.difference:.1e}",
        )
        for rows in groups
        for ours, peer in pairs(list(rows))
    ]
    return "\n".join([_table(TIMES, lines), "", *noted(groups, ("pytorch-grad-cam", "torchcam"))])


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in (header, ["---"] * len(header), *lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in escaped)
