"""The heavy steps: each op once in torch for meaning, once per backend for speed."""

from __future__ import annotations

from fastcam.ops.blur_images import blur_images
from fastcam.ops.component_boxes import component_boxes
from fastcam.ops.components import components
from fastcam.ops.dispatch import BACKENDS, OPS, Op, support, use
from fastcam.ops.energy_in_boxes import energy_in_boxes
from fastcam.ops.impute_pixels import impute_pixels
from fastcam.ops.mask_cells import mask_cells
from fastcam.ops.mask_channels import mask_channels
from fastcam.ops.mask_images import mask_images
from fastcam.ops.overlay import overlay
from fastcam.ops.perturb_steps import perturb_steps
from fastcam.ops.rank_pixels import rank_pixels
from fastcam.ops.resize_normalize import resize_normalize
from fastcam.ops.weighted_sum import weighted_sum

__all__ = [
    "BACKENDS",
    "OPS",
    "Op",
    "blur_images",
    "component_boxes",
    "components",
    "energy_in_boxes",
    "impute_pixels",
    "mask_cells",
    "mask_channels",
    "mask_images",
    "overlay",
    "perturb_steps",
    "rank_pixels",
    "resize_normalize",
    "support",
    "use",
    "weighted_sum",
]
