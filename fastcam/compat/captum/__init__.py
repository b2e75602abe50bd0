"""captum's Grad-CAM by its own names: signed maps (N, 1, h, w) at the layer's size.

>>> from fastcam.compat.captum.attr import LayerGradCam  # was: from captum.attr import LayerGradCam
>>> LayerGradCam.__name__
'LayerGradCam'
"""

from __future__ import annotations

from .attr import GuidedGradCam, LayerAttribution, LayerGradCam, LayerGradientXActivation

__all__ = ["GuidedGradCam", "LayerAttribution", "LayerGradCam", "LayerGradientXActivation"]
