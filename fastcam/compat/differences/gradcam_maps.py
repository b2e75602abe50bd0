"""Differences of pytorch-grad-cam's CAM classes."""

from __future__ import annotations

from fastcam.compat.differences.difference import Difference

GRADCAM_MAPS: tuple[Difference, ...] = ()
