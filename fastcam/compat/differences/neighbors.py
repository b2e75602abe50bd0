"""Differences of captum's and Quantus' shapes."""

from __future__ import annotations

from fastcam.compat.differences.difference import Difference

NEIGHBORS: tuple[Difference, ...] = ()
