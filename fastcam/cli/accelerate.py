"""Run a program unchanged with the imports of pytorch-grad-cam and torchcam redirected to fastcam."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def run(script: str, arguments: Sequence[str], module: bool, strict: bool) -> int:
    """Lets Python run a script as `python script.py` does, in the redirected environment.

    It is a Python of its own, so `__main__`, `__file__`, `sys.argv` and `sys.path` are what the script knows, and
    the processes it starts are redirected too. On POSIX it takes this process's place, with its number and signals.

    Args:
        script: a file, a folder or archive with a `__main__.py`, or with `module` the dotted name of a module.
        arguments: for the script.
        module: run a module, as `python -m` does.
        strict: the peers' own values where ours differ and theirs do no harm.

    Returns:
        The script's exit code.

    Raises:
        ValueError: there is no such file.
    """
    if not module and not Path(script).exists():
        raise ValueError(f"no script {script!r}; give a Python file, or `-m` and the name of a module")
    from fastcam.compat.processes import environment

    command = [sys.executable, *(["-m"] if module else []), script, *arguments]
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if os.name == "posix":
        os.execve(command[0], command, environment(strict))
    return subprocess.run(command, env=environment(strict), check=False).returncode
