"""Where fastcam's drop-ins differ from the peers on purpose: one row each, a file for each part of a peer's package."""

from __future__ import annotations

from fastcam.compat.differences.difference import Difference
from fastcam.compat.differences.gradcam_maps import GRADCAM_MAPS
from fastcam.compat.differences.gradcam_tools import GRADCAM_TOOLS
from fastcam.compat.differences.neighbors import NEIGHBORS
from fastcam.compat.differences.torchcam_maps import TORCHCAM_MAPS
from fastcam.compat.differences.torchcam_tools import TORCHCAM_TOOLS

__all__ = ["DIFFERENCES", "Difference"]

DIFFERENCES: tuple[Difference, ...] = (*GRADCAM_MAPS, *GRADCAM_TOOLS, *TORCHCAM_MAPS, *TORCHCAM_TOOLS, *NEIGHBORS)
