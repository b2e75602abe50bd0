"""Importing this module is the whole switch: from here on `pytorch_grad_cam` and `torchcam` are fastcam's.

    import fastcam.compat.patch                # before the peers are imported
    from pytorch_grad_cam import GradCAM       # unchanged

`uninstall()` gives the names back to the installed packages. A program that must not be touched at all runs by
`fastcam accelerate script.py`, which does the same from outside, in the processes it starts as well.
"""

from __future__ import annotations

from fastcam.compat import names

__all__ = ["install", "uninstall"]


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


install()
