"""Maps of a batch of activations by their first component. Arrays and tensors alike; what is given is not changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastcam.compat import strict_compat as strictness
from fastcam.compat.pytorch_grad_cam.arrays import as_given, to_tensor
from fastcam.methods.registry import METHODS


def get_2d_projection(activation_batch: Any, *, strict_compat: bool | None = None) -> Any:
    """Each image's cells projected on the first principal direction of its channels, centered over the cells.

    Args:
        activation_batch: (B, C, h, w), or (B, C, l) or (B, C, d, h, w); NaN counts as 0.
        strict_compat: the sign that LAPACK happens to give, as in pytorch-grad-cam; else the one that agrees with the
            sum of the channels.

    Returns:
        (B, h, w) float32.
    """
    if strictness() if strict_compat is None else strict_compat:
        return _by_lapack(activation_batch)
    return _component(activation_batch, "eigencam", {"centered": True})


def get_2d_projection_kernel(activation_batch: Any, kernel: str = "sigmoid", gamma: float | None = None) -> Any:
    """Each image's first component under a kernel of the centered cells; its largest magnitude is positive.

    Args:
        activation_batch: (B, C, h, w); NaN counts as 0.
        kernel: "sigmoid", "rbf", "poly", "cosine" or "linear".
        gamma: of the kernel; None is 1 / C.

    Returns:
        (B, h, w) float32.

    Raises:
        ValueError: another kernel or a gamma that is not positive.
    """
    options = METHODS["kpcacam"].resolve({"kernel": kernel, "gamma": gamma})
    maps = _component(activation_batch, "kpcacam", options)
    flat = to_tensor(maps, "maps").flatten(1)
    largest = flat.gather(1, flat.abs().argmax(1, keepdim=True))
    signs = torch.where(largest < 0, -1, 1).to(flat)
    return as_given((flat * signs).view(maps.shape), activation_batch)


def get_2d_projection_with_sign_correction(activation_batch: Any) -> Any:
    """`get_2d_projection`, negated where |min| > |max|: Chung 2025, Appl. Sci. 15(13), 7562, eq. 13.

    Args:
        activation_batch: (B, C, h, w); NaN counts as 0.

    Returns:
        (B, h, w) float32.
    """
    projected = get_2d_projection(activation_batch, strict_compat=False)
    flat = to_tensor(projected, "maps").flatten(1)
    flip = flat.amin(1, keepdim=True).abs() > flat.amax(1, keepdim=True).abs()
    return as_given(torch.where(flip, -flat, flat).view(projected.shape), activation_batch)


def _component(activation_batch: Any, method: str, options: dict[str, Any]) -> Any:
    """(B, *size) float32 of a method that asks for activations alone."""
    a = _activations(activation_batch)
    flat = a.reshape(len(a), 1, a.shape[1], -1, a.shape[-1])
    return as_given(METHODS[method](options, flat)[:, 0].reshape(len(a), *a.shape[2:]).float(), activation_batch)


def _activations(batch: Any) -> Tensor:
    a = to_tensor(batch, "activation_batch")
    if a.dim() < 3 or a.numel() == 0:
        raise ValueError(f"activation_batch has shape {tuple(a.shape)}; expected (B, C, h, w)")
    return torch.where(a.isnan(), 0, a).float() if a.is_floating_point() else a.float()


def _by_lapack(activation_batch: Any) -> Any:
    """The projection with the sign of the whole singular value decomposition of LAPACK, C x C vectors and all."""
    a = _activations(activation_batch)
    projected = []
    for cells in a.flatten(2).mT.cpu().numpy():
        centered = cells - cells.mean(axis=0)
        projected.append(centered @ np.linalg.svd(centered, full_matrices=True)[2][0])
    maps = torch.from_numpy(np.stack(projected)).view(len(a), *a.shape[2:])
    return as_given(maps.to(a.device), activation_batch)
