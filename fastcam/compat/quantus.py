"""Quantus' `explain_func`: NumPy arrays in, NumPy arrays out, any of fastcam's methods in between.

    metric = quantus.MaxSensitivity()
    metric(model, x, y, explain_func=explain, explain_func_kwargs={"method": "layercam", "layer": "layer4"})

`explain` stands in the place of `quantus.explain`, also where Quantus explains changed copies of the model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fastcam import CAM

__all__ = ["explain"]

MODES = {3: "linear", 4: "bilinear", 5: "trilinear"}  # by the axes of the inputs


def explain(
    model: Any,
    inputs: np.ndarray | Tensor,
    targets: Any = None,
    *,
    method: str = "gradcam",
    layer: Any = None,
    device: str | torch.device | None = None,
    signed: bool = False,
    **options: Any,
) -> np.ndarray:
    """The maps of a batch as Quantus takes them.

    Args:
        model: an `nn.Module`, or Quantus' wrapper of one. It stays where it is and as it is.
        inputs: (B, C, H, W), (B, C, L) or (B, C, D, H, W), moved to the model's device and precision.
        targets: (B,) classes, one for all, or None for the predicted ones.
        method: see `fastcam.list_methods()`.
        layer: see `fastcam.CAM`; by name, where a metric changes copies of the model. Quantus' own word for it,
            `gc_layer`, does as well.
        device: of a model without weights of its own, which tell it.
        signed: the resized signed map in place of the finished one in [0, 1].
        **options: of `fastcam.CAM` and of the method.

    Returns:
        (B, 1, H, W) float32; (B, 1, L) or (B, 1, D, H, W).

    Raises:
        TypeError: no model, inputs of another kind, or an option that is not there.
        ValueError: inputs, targets or a layer that cannot be explained.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    >>> explain(net, np.random.rand(2, 3, 32, 32), np.array([0, 1])).shape
    (2, 1, 32, 32)
    """
    network = model.get_model() if not isinstance(model, nn.Module) and hasattr(model, "get_model") else model
    if not isinstance(network, nn.Module):
        raise TypeError(f"model must be an nn.Module, or Quantus' wrapper of one, got {type(model).__name__}")
    if "gc_layer" in options:
        if layer is not None:
            raise TypeError(
                f"layer={layer!r} and gc_layer={options['gc_layer']!r} are two words for one thing; give one"
            )
        layer = options.pop("gc_layer")
    if not isinstance(inputs, (np.ndarray, Tensor)):
        raise TypeError(f"inputs must be an array or a tensor, got {type(inputs).__name__}")
    weight = next((one for one in network.parameters() if one.is_floating_point()), None)
    like = torch.empty(0, device=device) if weight is None else weight
    images = torch.as_tensor(inputs).detach().to(like.device, like.dtype)
    wanted = None if targets is None else torch.as_tensor(targets)
    found = CAM(network, method, layer, **options).explain(images, target=wanted)
    maps = found.maps
    if maps.dim() != images.dim() - 1:
        raise ValueError(
            f"targets of shape {tuple(wanted.shape) if wanted is not None else None} give several maps an image; "
            f"Quantus takes one: give ({len(images)},) classes"
        )
    if signed:
        if isinstance(found.raw, list):
            raise ValueError(
                f"signed=True needs one layer, got {found.layer}; maps of several are joined as they end up"
            )
        maps = interpolate(found.raw[:, None].float(), images.shape[2:], mode=MODES[images.dim()])[:, 0]
    return maps[:, None].detach().float().cpu().numpy()
