"""A pytest plugin for a peer's own suite: keeps each test's outcome, and lends random weights where none can be had."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

OUTCOMES = "FASTCAM_SUITE_OUTCOMES"  # the file for what was found
RANDOM = "FASTCAM_SUITE_RANDOM_WEIGHTS"  # "1": torchvision's weights that are not on this machine are random

found: dict[str, dict[str, Any]] = {}
lent = contextlib.ExitStack()


def pytest_configure() -> None:
    if os.environ.get(RANDOM) == "1":
        from bench.compat_blocks import random_weights

        lent.enter_context(random_weights())


def pytest_collectreport(report: Any) -> None:
    if report.outcome != "passed":
        keep(report, report.outcome)


def pytest_runtest_logreport(report: Any) -> None:
    """A test's call decides, unless its setup or teardown did not pass."""
    if report.when == "call" or report.outcome != "passed":
        keep(report, report.outcome)


def keep(report: Any, outcome: str) -> None:
    before = found.get(report.nodeid, {})
    said = "" if outcome == "passed" else message(report)
    seconds = getattr(report, "duration", 0.0) + before.get("seconds", 0.0)
    if before.get("outcome") != "failed":
        found[report.nodeid] = {"outcome": outcome, "seconds": seconds, "message": said}


def message(report: Any) -> str:
    """The one line of a traceback that says what went wrong."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        return crash.message.splitlines()[0]
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    errors = [line for line in text.splitlines() if line.startswith("E ")] or text.splitlines()
    return errors[-1].removeprefix("E ").strip() if errors else ""


def pytest_sessionfinish() -> None:
    lent.close()
    Path(os.environ[OUTCOMES]).write_text(json.dumps(found), encoding="utf-8")
