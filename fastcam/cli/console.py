"""Where the command line prints: tables on standard output, progress and errors on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 160
ARROWS = {"up": "↑", "down": "↓"}  # which way a metric is better


def console(stderr: bool = False) -> Console:
    """A console that prints text as it is, wide and without color codes into a pipe.

    Args:
        stderr: print on standard error.
    """
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, width=width)


def error(message: object, out: Console | None = None) -> None:
    """Prints one red line `error: …` on standard error.

    Args:
        message: of any number of lines.
        out: the console of a progress bar, where one is shown: others would write into its line.
    """
    line = " ".join(str(message).split())
    (out or console(stderr=True)).print(Text(f"error: {line}", style="red"), soft_wrap=True)


def note(message: object) -> None:
    """Prints one line `note: …` on standard error: what a reader of the results should know.

    Args:
        message: of any number of lines.
    """
    console(stderr=True).print(Text(f"note: {' '.join(str(message).split())}"), soft_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "", right: Sequence[str] = ()) -> Table:
    """A table whose cells wrap rather than being cut.

    Args:
        columns: the headings.
        rows: as many texts as there are columns, each.
        title: above the table.
        right: those of the headings whose cells are set flush right.
    """
    made = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    for name in columns:
        made.add_column(name, overflow="fold", justify="right" if name in right else "left")
    for row in rows:
        made.add_row(*row)
    return made


class Rate(ProgressColumn):
    """How many a second, over all that this run has done; two digits are enough."""

    def render(self, task: Task) -> Text:
        """Of one bar."""
        done = task.completed - task.fields.get("before", 0)
        if not done or not task.elapsed:
            return Text("")
        rate = done / task.elapsed
        return Text(f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each")


def progress(hidden: bool = False, long: bool = False) -> Progress:
    """A progress bar on standard error, where that is a terminal.

    Args:
        hidden: show none.
        long: say how many a second, and the time left. A task whose work was partly done before has a field
            `before`, how much.
    """
    out = console(stderr=True)
    outlook = (Rate(), TimeRemainingColumn(), TextColumn("left")) if long else ()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        *outlook,
        console=out,
        transient=True,
        disable=hidden or not out.is_terminal,
        # Rich would send what is printed meanwhile to the bar's stream, out of a pipe that waits for it.
        redirect_stdout=False,
    )
