"""What a row of the table of differences says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """One place where a peer's class or function and ours give different results.

    Args:
        peer: "pytorch-grad-cam", "torchcam", "captum" or "Quantus".
        what: the class, function or argument, by the peer's name.
        theirs: what the peer gives.
        ours: what fastcam gives.
        reason: why ours differs, in a sentence; with the equation where one decides.
        source: the paper and equation, or the peer's issue number.
        switch: what gives the peer's value ("strict_compat=True", an argument), or "none".
    """

    peer: str
    what: str
    theirs: str
    ours: str
    reason: str
    source: str
    switch: str
