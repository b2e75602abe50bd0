"""Runs a suite, prints what it finds as it comes, gives back its rows."""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from bench import machine, report
from bench.clock import memory_gauge
from bench.measure import Bench
from bench.peers import missing
from bench.rows import Row, duration, stamped, table
from bench.works import Work, engines, works
from fastcam.allocator import ADVICE

ROOT = Path(__file__).parent.parent


def header(given: argparse.Namespace) -> None:
    """Machine, versions, allocator and gauges, printed before anything is measured."""
    torch.set_num_threads(given.threads)
    about = machine.describe(given.device)
    print(", ".join(f"{name} {value}" for name, value in about.items() if value))
    print(f"peak memory: {memory_gauge()}; peers left out: {', '.join(missing()) or 'none'}", flush=True)


def run(name: str, given: argparse.Namespace) -> list[Row]:
    """The rows of a suite."""
    if name == "metrics":
        from bench import metrics  # what it compares with takes a while to import

        return metrics.run(given)
    if name == "budget":
        from bench import budget

        return budget.run(given)
    if name == "survey":
        from bench import survey_time

        return survey_time.run(given)
    if name == "compat":
        from bench import compat

        return compat.run(given)
    listed = {"peers": works, "engines": engines}.get(name)
    return beside_peers(listed(), given) if listed else micro(name, given)


def beside_peers(listed: Iterable[Work], given: argparse.Namespace) -> list[Row]:
    """Each work of a list against its floor and the other libraries."""
    bench = Bench(given.quick, given.device, given.weights)
    groups: list[list[Row]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers' own, like their log
        logging.disable(logging.WARNING)
        for work in listed:
            if given.only in f"{work.id} {work.what}" and (work.quick or not given.quick):
                groups.append(bench.rows(work))
                done = groups[-1][1]
                print(f"  {done.id} {done.what}: {duration(done.median)}, {done.of_floor:.3f} x floor", flush=True)
    print(report.text(groups))
    return [row for rows in groups for row in rows]


def micro(name: str, given: argparse.Namespace) -> list[Row]:
    """One of the pytest-benchmark suites in a process of its own, its table, its rows."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        speed = ["--benchmark-max-time=0.05", "--benchmark-min-rounds=3"] if given.quick else []
        command = [sys.executable, "-m", "pytest", f"bench/test_bench_{name}.py", "-q", "-p", "no:cacheprovider"]
        command += [f"--benchmark-json={file}", f"--device={given.device}", f"-k={given.only}", *speed]
        malloc = dict(setting.split("=") for setting in ADVICE.split()) if machine.allocator() == "kept" else {}
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, **malloc}
        )
        if done.returncode or not file.exists():
            raise SystemExit(done.stdout + done.stderr)
        benchmarks = json.loads(file.read_text())["benchmarks"]
    rows = stamped((_row(name, one, given.device) for one in benchmarks), machine.describe(given.device))
    base = {row.what: row.median for row in rows if row.who in {"reference", "floor"}}
    for row in rows:
        row.of_floor = row.median / base[row.what] if row.what in base else None
    print(_ops_table(rows) if name == "ops" else _methods_table(rows), flush=True)
    return rows


def _row(suite: str, one: dict[str, Any], device: str) -> Row:
    stats, extra = one["stats"], one["extra_info"]
    bytes_ = extra.get("bytes")
    return Row(
        suite=suite,
        id="",
        what=extra["what"],
        who=extra["who"],
        shape=extra["shape"],
        dtype=extra["dtype"],
        device=device,
        median=stats["median"],
        q25=stats["q1"],
        q75=stats["q3"],
        rounds=stats["rounds"],
        floor=extra.get("floor", ""),
        bytes_per_s=bytes_ / stats["median"] if bytes_ else None,
        version=machine.package("fastcam"),
    )


def _ops_table(rows: list[Row]) -> str:
    copy = max((row.bytes_per_s or 0.0 for row in rows if row.what == "copy"), default=0.0)
    lines = [
        (
            row.what,
            row.who,
            row.shape,
            duration(row.median),
            f"{1 / row.of_floor:.2f}" if row.of_floor else "",
            "" if row.what.endswith("call") else f"{(row.bytes_per_s or 0) / 1e9:.1f}",
            "" if row.what.endswith("call") or not copy else f"{(row.bytes_per_s or 0) / copy:.0%}",
        )
        for row in rows
    ]
    return table(("op", "backend", "first argument", "time", "x reference", "GB/s", "of copy"), lines)


def _methods_table(rows: list[Row]) -> str:
    floor = next((row.median for row in rows if row.who == "floor"), None)
    lines = [
        (row.what, row.who, duration(row.median), f"{row.median / floor:.2f}" if floor else "", row.floor)
        for row in rows
    ]
    return table(("method", "who", "time", "x forward", "cost"), lines)
