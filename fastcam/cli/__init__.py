"""The command line: `fastcam demo | explain | evaluate | accelerate | methods | metrics | layers | env`."""

from __future__ import annotations

import io
import sys
import warnings
from typing import TextIO

NEEDS = ("typer", "rich")


def main() -> None:
    """Runs the command line with the process's arguments and exits with its code.

    0: all done; 1: some pictures could not be explained; 2: wrong arguments, or a package is missing.
    """
    try:
        from fastcam.cli.app import app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in NEEDS:
            raise
        print(f"error: the command line needs {error.name}: pip install 'fastcam[cli]'", file=sys.stderr)
        sys.exit(2)
    for stream in (sys.stdout, sys.stderr):
        # Formulas hold signs such as Σ, which a terminal set to ASCII could not print at all.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    warnings.showwarning = _show
    app(prog_name="fastcam")


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"warning: {message}", file=file or sys.stderr)
