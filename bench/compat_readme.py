"""The Python of a README, block after block as a reader would run it, with a peer's imports redirected to fastcam.

    python -m bench.compat_readme PATH         or        python -m bench compat --readme PATH

Nothing of a block is changed but what no Python accepts, by general rules (`MENDS` of `bench.compat_blocks`). Names
that the text around a block speaks of and no block defines are lent (`STAND_INS`); pictures that a block opens and
nobody has are copies of one that comes with fastcam; weights of torchvision that are not on this machine are random.
The report says what a block needed. Beside it the same blocks run on the installed peer.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.compat_blocks import Ran, blocks

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 600.0  # seconds for all blocks of a file


@dataclass
class Report:
    """Each block of one file, by `ours` and, where it is installed, by `theirs`, the peer itself."""

    path: str
    ours: list[Ran]
    theirs: list[Ran] | None

    @property
    def failed(self) -> list[Ran]:
        """The blocks that did not run on fastcam."""
        return [one for one in self.ours if one.error is not None]

    def text(self) -> str:
        """A line a block: where, how it went, and what it needed."""
        count = len(self.ours)
        head = f"{self.path}: {count - len(self.failed)} of {count} blocks of Python run on fastcam"
        if self.theirs is not None:
            head += f", {sum(one.error is None for one in self.theirs)} on the peer itself"
        lines = [head]
        for place, one in enumerate(self.ours):
            lines.append(f"  line {one.line:4}  fastcam   {how(one)}")
            if self.theirs is not None:
                lines.append(f"{'':12}the peer  {how(self.theirs[place])}")
            lines += [f"{'':12}mended: {mend}" for mend in one.mended]
            if one.lent:
                lines.append(f"{'':12}lent: {', '.join(one.lent)}")
        return "\n".join(lines)

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def how(one: Ran) -> str:
    return f"ran, {one.seconds:.2f} s" if one.error is None else f"stopped: {one.error}"


def readme(path: Path, theirs: bool = True) -> Report:
    """Runs the blocks of a file, on fastcam and beside it on the installed peer, each in a process of its own.

    Raises:
        ValueError: no such file, or no block of Python in it.
    """
    if not path.is_file():
        raise ValueError(f"--readme {path}: no such file; give a README.md of pytorch-grad-cam or torchcam")
    if not blocks(path.read_text(encoding="utf-8")):
        raise ValueError(f"--readme {path}: no ```python block in it")
    return Report(str(path), run(path, "ours"), run(path, "theirs") if theirs else None)


def run(path: Path, who: str) -> list[Ran]:
    """All blocks in one process in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, "found.json")
        Path(folder, "work").mkdir()
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        settings = {"PYTHONPATH": os.pathsep.join(paths), "MPLBACKEND": "agg"}
        done = subprocess.run(
            [sys.executable, "-m", "bench.compat_blocks", str(path.resolve()), "--as", who, "--to", str(written)],
            cwd=Path(folder, "work"),
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        if not written.exists():
            last = done.stderr.strip().splitlines() or ["no message"]
            return [Ran(line, last[-1]) for line, _ in blocks(path.read_text(encoding="utf-8"))]
        return [Ran(**one) for one in json.loads(written.read_text())]


def main() -> int:
    parser = argparse.ArgumentParser("python -m bench.compat_readme", description="Run the Python of a README.")
    parser.add_argument("path", type=Path)
    found = readme(parser.parse_args().path)
    print(found.text())
    return int(bool(found.failed))


if __name__ == "__main__":
    sys.exit(main())
