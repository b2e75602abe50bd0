"""Images, targets, reshape transforms and projections, by pytorch-grad-cam's names."""

from __future__ import annotations

from fastcam.compat.pytorch_grad_cam.utils import model_targets, reshape_transforms
from fastcam.compat.pytorch_grad_cam.utils.image import deprocess_image
from fastcam.compat.pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

__all__ = ["deprocess_image", "get_2d_projection", "model_targets", "reshape_transforms"]
