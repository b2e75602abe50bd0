"""Differences of torchcam's extractors."""

from __future__ import annotations

from fastcam.compat.differences.difference import Difference

TORCHCAM_MAPS: tuple[Difference, ...] = ()
