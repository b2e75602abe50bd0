"""Differences of torchcam's explain, metrics and overlays."""

from __future__ import annotations

from fastcam.compat.differences.difference import Difference

TORCHCAM_TOOLS: tuple[Difference, ...] = ()
