"""Importing this module is the whole switch: from here on `pytorch_grad_cam` and `torchcam` are fastcam's.

    import fastcam.compat.patch                # before the peers are imported
    from pytorch_grad_cam import GradCAM       # unchanged

`uninstall()` gives the names back to the installed packages. A program that must not be touched at all runs by
`fastcam accelerate script.py`, which does the same from outside, in the processes it starts as well.
"""

from __future__ import annotations

import os
from pathlib import Path

from fastcam.compat import STRICT, names

__all__ = ["environment", "install", "uninstall"]

STARTUP = Path(__file__).parent / "startup"


def install() -> None:
    """Redirects imports of `pytorch_grad_cam` and `torchcam`; without effect where it is done already.

    Raises:
        ImportError: one of them was imported before.
    """
    names.redirect()


def uninstall() -> None:
    """Gives the names back: they lead to the installed packages again, if there are any.

    Modules and classes that were imported in between stay what they are.
    """
    names.give_back()


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


install()
