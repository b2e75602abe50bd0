"""A peer's own test suite, from a checkout of it: on fastcam by redirected imports, beside it on the peer."""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import machine
from bench.compat_plugin import OUTCOMES, RANDOM
from bench.compat_reasons import REASONS
from bench.results_table import read, write
from bench.rows import RESULTS, duration, table
from fastcam.compat.processes import environment

ROOT = Path(__file__).resolve().parent.parent
PEERS = {"pytorch_grad_cam": "pytorch-grad-cam", "torchcam": "torchcam"}  # folder of the package: the peer
FILE = RESULTS / "compat-suites.csv"
KINDS = ("passed", "failed", "skipped")


@dataclass(frozen=True)
class Outcome:
    """How one test ended.

    Attributes:
        outcome: "passed", "failed" or "skipped".
        seconds: of the test itself, its setup and teardown where these failed.
        message: the error's, or why it was skipped.
    """

    outcome: str
    seconds: float
    message: str

    @property
    def passed(self) -> bool:
        return self.outcome == "passed"


@dataclass(frozen=True)
class Suite:
    """One run: each test by its id, and the seconds of the whole process."""

    tests: dict[str, Outcome]
    seconds: float

    def count(self, kind: str) -> int:
        return sum(test.outcome == kind for test in self.tests.values())


@dataclass(frozen=True)
class Counts:
    """One run as a row of `bench/results/compat-suites.csv`.

    Attributes:
        peer: whose suite.
        checkout: its commit.
        who: "fastcam", or the peer.
        passed, failed, skipped: tests.
        seconds: of the whole process.
        both_seconds: of the tests alone that pass on both.
        weights: "as asked for", or "random" where the tests asked for weights that could not be had.
        commit, fastcam, torch, processor, threads, date: where it was made.
    """

    peer: str
    checkout: str
    who: str
    passed: int
    failed: int
    skipped: int
    seconds: float
    both_seconds: float
    weights: str
    commit: str
    fastcam: str
    torch: str
    processor: str
    threads: str
    date: str


@dataclass(frozen=True)
class Report:
    """A suite on fastcam and on the peer itself."""

    peer: str
    path: str
    random_weights: bool
    ours: Suite
    theirs: Suite

    @property
    def failed(self) -> dict[str, str]:
        """The tests that fail on fastcam and pass on the peer, and why: "" where no reason is known."""
        return {
            name: reason(self.peer, name)
            for name, test in self.ours.tests.items()
            if test.outcome == "failed" and self.passes(name)
        }

    @property
    def both(self) -> dict[str, str]:
        """The tests that fail on both, and with what."""
        return {
            name: test.message
            for name, test in self.ours.tests.items()
            if test.outcome == "failed" and name not in self.failed
        }

    def ratio(self) -> tuple[float, float]:
        """Seconds of the tests that passed on both: of the peer, and of fastcam."""
        shared = [name for name, test in self.ours.tests.items() if test.passed and self.passes(name)]
        theirs, ours = (sum(run.tests[name].seconds for name in shared) for run in (self.theirs, self.ours))
        return theirs, ours

    def passes(self, name: str) -> bool:
        """Whether the peer itself passes a test, or any of a file that could not be collected here."""
        own = [test for other, test in self.theirs.tests.items() if other == name or other.startswith(f"{name}::")]
        return any(test.passed for test in own)

    def text(self) -> str:
        """Counts, times, and each failure with its reason."""
        lines = [f"the suite of {self.peer} in {self.path}"]
        if self.random_weights:
            lines.append("torchvision's weights that are not on this machine are random: the tests see other networks")
        rows = [
            (who, *(str(run.count(kind)) for kind in KINDS), duration(run.seconds))
            for who, run in (("fastcam", self.ours), (self.peer, self.theirs))
        ]
        lines.append(table(("", *KINDS, "whole run"), rows))
        theirs, ours = self.ratio()
        if ours:
            lines.append(
                f"tests that pass on both: {self.peer} {duration(theirs)}, fastcam {duration(ours)}, "
                f"{theirs / ours:.2f} x"
            )
        for name, why in self.failed.items():
            lines.append(f"failed on fastcam only: {name}: {why or 'NO REASON KNOWN'}: {self.ours.tests[name].message}")
        lines += [f"failed on both: {name}: {why}" for name, why in self.both.items()]
        lines += [f"skipped: {n}: {t.message}" for n, t in self.ours.tests.items() if t.outcome == "skipped"]
        return "\n".join(lines)

    def rows(self) -> list[Counts]:
        """What is kept of it: a row for fastcam, one for the peer."""
        about = machine.describe("cpu")
        shared = {name: about[name] for name in ("commit", "fastcam", "torch", "processor", "threads", "date")}
        times = dict(zip((self.peer, "fastcam"), self.ratio(), strict=True))
        return [
            Counts(
                peer=self.peer,
                checkout=checkout(Path(self.path)),
                who=who,
                passed=run.count("passed"),
                failed=run.count("failed"),
                skipped=run.count("skipped"),
                seconds=run.seconds,
                both_seconds=times[who],
                weights="random" if self.random_weights else "as asked for",
                **shared,
            )
            for who, run in (("fastcam", self.ours), (self.peer, self.theirs))
        ]

    def plain(self) -> dict[str, Any]:
        """As JSON takes it, with the reasons."""
        return {**asdict(self), "failed": self.failed}


def keep(report: Report, path: Path = FILE) -> None:
    """Puts the rows of a report in the place of those of the same peer's suite."""
    others = [row for row in read(path, Counts) if row.peer != report.peer]
    write(path, sorted(others + report.rows(), key=lambda row: row.peer), Counts)


def checkout(path: Path) -> str:
    """The commit of a checkout, or "" where it is none."""
    command = ["git", "-C", str(path), "rev-parse", "--short=10", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def reason(peer: str, name: str, reasons: Mapping[str, Mapping[str, str]] = REASONS) -> str:
    """Why a test is known to stay failing, or ""; a pattern of the table stands for many ids."""
    return next((why for pattern, why in reasons[peer].items() if matches(name, pattern)), "")


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern names a test: only * is a wildcard, brackets stand for the parameters in an id."""
    return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))


def run(path: Path, random_weights: bool = False, only: str = "") -> Report:
    """Both runs, one after the other.

    Args:
        path: a checkout of a peer, with its package and its tests.
        random_weights: lend random weights where torchvision's are not on this machine.
        only: tests whose id contains this.

    Raises:
        ValueError: it is no checkout of a known peer.
    """
    folder = next((folder for folder in PEERS if (path / folder / "__init__.py").is_file()), None)
    if folder is None or not (path / "tests").is_dir():
        raise ValueError(f"--suite {path}: give a checkout with tests/ and {' or '.join(f'{name}/' for name in PEERS)}")
    ours, theirs = (_pytest(path.resolve(), redirected, random_weights, only) for redirected in (True, False))
    return Report(PEERS[folder], str(path), random_weights, ours, theirs)


def _pytest(path: Path, redirected: bool, random_weights: bool, only: str) -> Suite:
    variables = environment() if redirected else dict(os.environ)
    # Last on the path: what the checkout has, its suite means.
    places = [*filter(None, [variables.get("PYTHONPATH")]), str(ROOT)]
    variables |= {"PYTHONPATH": os.pathsep.join(places), "PYTHONDONTWRITEBYTECODE": "1", "MPLBACKEND": "agg"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "bench.compat_plugin", "-p", "no:cacheprovider"]
    command += ["-o", "addopts=", "--continue-on-collection-errors", *(["-k", only] if only else []), "tests"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "outcomes.json"
        variables |= {OUTCOMES: str(file), RANDOM: "1" if random_weights else "0"}
        began = time.perf_counter()
        done = subprocess.run(command, cwd=path, env=variables, capture_output=True, text=True, check=False)
        spent = time.perf_counter() - began
        if not file.exists():
            raise SystemExit(f"the suite in {path} did not run:\n{done.stdout}{done.stderr}")
        found = json.loads(file.read_text(encoding="utf-8"))
    return Suite({name: Outcome(**test) for name, test in found.items()}, spent)
