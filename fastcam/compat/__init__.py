"""Drop-in for users of pytorch-grad-cam and torchcam: one changed import line, the same maps.

    from fastcam.compat.pytorch_grad_cam import GradCAM             # was: from pytorch_grad_cam import GradCAM
    from fastcam.compat.torchcam.methods import SmoothGradCAMpp     # was: from torchcam.methods import SmoothGradCAMpp

No line changed: `import fastcam.compat.patch` before the peer is imported, or `fastcam accelerate script.py`.
Where a peer's value is wrong, ours is right, and a row of `fastcam.compat.differences.DIFFERENCES` says so; where
the old value is harmless, `strict_compat=True` of a class, or `fastcam.compat.strict_compat(True)` for all, gives it.
"""

from __future__ import annotations

import os

from fastcam.compat.names import serve_old_names

STRICT = "FASTCAM_COMPAT_STRICT"  # in the environment of a process: what holds at its start

_FLAGS = {"strict": os.environ.get(STRICT) == "1"}


def strict_compat(on: bool | None = None) -> bool:
    """Sets, or with None reads, whether the peers' own values are given where ours differ and theirs do no harm.

    Args:
        on: True or False for all objects constructed from now on; None leaves it as it is.

    Returns:
        What holds now; False at first.

    Raises:
        TypeError: neither a bool nor None.

    >>> strict_compat()
    False
    """
    if on is not None:
        if not isinstance(on, bool):
            raise TypeError(f"strict_compat takes True, False or None, not {on!r}")
        _FLAGS["strict"] = on
    return _FLAGS["strict"]


serve_old_names()
