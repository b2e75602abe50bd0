"""Measures T6 to T9 of the metrics, prints what it finds as it comes, gives back its rows."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator

import torch

from bench import boxes, curves, imputation, machine, report_metrics, sharing
from bench.rows import Row, duration, stamped
from bench.task import Setting, Task, missing, quiet, threads


def tasks() -> Iterator[Task]:
    """All of it, in the order of the targets."""
    for part in (boxes, curves, sharing, imputation):
        yield from part.tasks()


def run(given: argparse.Namespace) -> list[Row]:
    """Runs the list, or the short one, and prints the table."""
    about = machine.describe(given.device)
    setting = Setting(given.quick, given.device, given.weights, given.data, about)
    print(f"metrics; peers left out: {', '.join(missing()) or 'none'}", flush=True)
    groups: list[list[Row]] = []
    logging.disable(logging.WARNING)
    for task in tasks():
        if given.only not in f"{task.id} {task.what}" or (given.quick and not task.quick):
            continue
        with quiet(), threads(task.threads or torch.get_num_threads()):
            stamp = about | ({"threads": str(task.threads)} if task.threads else {})
            groups.append(stamped(task.measure(setting, task), stamp))
        ours = next(row for row in groups[-1] if row.who == "fastcam")
        share = f", {ours.of_floor:.3f} x floor" if ours.of_floor is not None else ""
        print(f"  {ours.id} {ours.what}: {duration(ours.median)}{share}", flush=True)
    print(report_metrics.text(groups))
    return [row for rows in groups for row in rows]
