"""Python imports this when it starts, where `fastcam.compat.processes.environment` put its folder on the path."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).parent

# A Python that has no fastcam, started by a script for something else, goes on without.
with contextlib.suppress(ModuleNotFoundError):
    import fastcam.compat.patch  # noqa: F401


def _next() -> None:
    """Runs the sitecustomize that this one stands before, if there is one."""
    elsewhere = [entry for entry in sys.path if entry and Path(entry).resolve() != HERE.resolve()]
    found = importlib.machinery.PathFinder.find_spec("sitecustomize", elsewhere)
    if found is not None and found.loader is not None:
        module = importlib.util.module_from_spec(found)
        sys.modules["sitecustomize"] = module
        found.loader.exec_module(module)


_next()
