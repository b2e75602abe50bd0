"""The weighted sum of activation maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcam.ops import arguments, native
from fastcam.ops.dispatch import Op

TARGETS = 8  # up to here one pass over the activations per target costs less than a packed matrix product


@Op
def weighted_sum(activations: Tensor, weights: Tensor) -> Tensor:
    """Σ_k w_k A_k: the raw, signed class activation map of T targets.

    Args:
        activations: (B, C, h, w), any float dtype; summed in float32 (float64 stays float64).
        weights: (B, T, C).

    Returns:
        (B, T, h, w) float32.
    """
    device = activations.device.type
    if torch.is_autocast_enabled(device):  # which would round the sums to its own dtype
        with torch.autocast(device, enabled=False):
            return weighted_sum.reference(activations, weights)
    dtype = arguments.working(activations, weights)
    return torch.bmm(weights.to(dtype), activations.to(dtype).flatten(2)).unflatten(2, activations.shape[2:])


@weighted_sum.arguments
def _arguments(activations: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    arguments.tensor("activations", activations, "B C h w")
    arguments.tensor("weights", weights, "B T C", activations)
    arguments.same("weights' batch", weights.shape[0], activations.shape[0], "activations")
    arguments.same("weights' last axis", weights.shape[2], activations.shape[1], "activations' channels")
    return activations, weights


def _exact(activations: Tensor, weights: Tensor) -> str | None:
    if activations.dtype not in native.TYPES or weights.dtype not in native.TYPES:
        return "float64 is summed by the reference"
    return None


def _few(activations: Tensor, weights: Tensor) -> str | None:
    if weights.shape[1] > TARGETS:
        return f"more than {TARGETS} targets are a matrix product, left to torch"
    return _exact(activations, weights)


@weighted_sum.twin("triton", needs=_few)
def _triton(*args: Any) -> Tensor:
    from fastcam.ops.triton.weighted_sum import weighted_sum as launch

    return launch(*args)


def _needs(activations: Tensor, weights: Tensor) -> str | None:
    if (reason := _exact(activations, weights)) is not None:
        return reason
    if not activations.is_contiguous():
        return "activations are not contiguous: torch's matrix product reads them without a copy"
    if weights.shape[1] > TARGETS:
        return f"torch's matrix product is faster for more than {TARGETS} targets"
    return None


@weighted_sum.twin("cpu", needs=_needs)
def _cpu(activations: Tensor, weights: Tensor) -> Tensor:
    batch, targets, channels = weights.shape
    h, w = activations.shape[2:]
    weights = weights.float().contiguous()
    out = torch.empty((batch, targets, h, w), device=weights.device)
    native.call(
        "weighted_sum",
        activations.data_ptr(),
        weights.data_ptr(),
        out.data_ptr(),
        batch,
        targets,
        channels,
        h * w,
        native.TYPES[activations.dtype],
    )
    return out
