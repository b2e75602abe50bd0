"""Differences of pytorch-grad-cam's utilities, targets, metrics, factors and guided backpropagation."""

from __future__ import annotations

from fastcam.compat.differences.difference import Difference

GRADCAM_TOOLS: tuple[Difference, ...] = ()
