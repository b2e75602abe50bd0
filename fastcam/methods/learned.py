"""CAMs whose weights a network has learned to give: LFI-CAM, and the attention that its map becomes in training."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import interpolate

from .evidence_learned import Learned
from .registry import method

HW = (-2, -1)


def seen(a: Tensor, images: Tensor) -> Tensor:
    """What the importance network reads: each channel scaled to [0, 1], times the gray image at its size.

    A channel that is the same everywhere is 1, and zeros stay zeros, as in the authors' code.

    Args:
        a: activations (B, C, h, w)
        images: (B, channels, H, W)

    Returns:
        (B, C, h, w)
    """
    low, high = a.amin(HW, keepdim=True), a.amax(HW, keepdim=True)
    flat = low == high
    scaled = ((a - low) / (high - low).masked_fill(flat, 1)).masked_fill(flat, 1).masked_fill(a == 0, 0)
    size = (int(a.shape[-2]), int(a.shape[-1]))
    gray = interpolate(images.mean(1, keepdim=True), size, mode="bilinear", align_corners=False)
    return scaled * gray.to(scaled.dtype)


def importance(e: Tensor) -> Tensor:
    """softmax_k(mean_ij E_k), one weight a channel. (..., C, h, w) -> (..., C, 1, 1)"""
    return e.mean(HW, keepdim=True).softmax(-3)


def attention(a: Tensor, e: Tensor) -> Tensor:
    """The map relu(Σ_k w_k A_k) scaled to [0, 1]; one that is the same everywhere stays as it is.

    Args:
        a: activations (B, C, h, w)
        e: what the importance network gave (B, C, h, w)

    Returns:
        (B, 1, h, w)
    """
    m = (importance(e) * a).sum(-3, keepdim=True).relu()
    low, high = m.amin(HW, keepdim=True), m.amax(HW, keepdim=True)
    flat = low == high
    return ((m - low.masked_fill(flat, 0)) / (high - low).masked_fill(flat, 1)).to(a.dtype)


@method("lficam", Learned(), paper="Lee 2021, arXiv:2105.00937; the model is a fastcam.LFI")
def lficam(a: Tensor, e: Tensor) -> Tensor:
    """w_k = softmax_k(mean_ij E_k), E what the network's importance branch gives; the same for every class"""
    return importance(e)
