"""Redirected imports in processes of their own, for programs that must not be touched at all."""

from __future__ import annotations

import os
from pathlib import Path

from fastcam.compat import STRICT

STARTUP = Path(__file__).parent / "startup"


def environment(strict: bool = False) -> dict[str, str]:
    """The environment variables under which any Python process, and those it starts, has its imports redirected.

    Args:
        strict: as `fastcam.compat.strict_compat(True)` in each of them.

    Returns:
        `os.environ` with a folder before PYTHONPATH whose `sitecustomize` runs when Python starts.
    """
    before = os.environ.get("PYTHONPATH")
    path = str(STARTUP) if not before else os.pathsep.join((str(STARTUP), before))
    return {**os.environ, "PYTHONPATH": path, STRICT: "1" if strict else os.environ.get(STRICT, "0")}
