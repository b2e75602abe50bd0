"""CAMs from activations and the classifier's own weights: no gradient, no masked score."""

from __future__ import annotations

import torch
from torch import Tensor

from .evidence import Activations, Classifier, Gradients
from .registry import method


@method("cam", Classifier(), paper="Zhou 2016, arXiv:1512.04150, eq. 1-2", clip="never")
def cam(a: Tensor, w: Tensor) -> Tensor:
    """w_k = W_ck, the classifier's row; no ReLU, the bias is left out"""
    return w


def principal(o: Tensor, centered: bool) -> Tensor:
    """The projection of each cell on the first principal direction of its channels.

    The smaller of the two Gram matrices has the same leading pair, so 49 cells cost a 49 x 49 problem. The
    sign, free in a singular vector, is the one that agrees with the sum of the channels.

    Args:
        o: (..., C, h, w)
        centered: subtract each channel's mean over the cells first.

    Returns:
        (..., h, w)
    """
    size, o = o.shape[-2:], o.flatten(-2).double()
    total = o.sum(-2)
    if centered:
        o = o - o.mean(-1, keepdim=True)
    if o.shape[-1] <= o.shape[-2]:
        values, vectors = torch.linalg.eigh(o.mT @ o)
        projected = values[..., -1:].clamp_min(0).sqrt() * vectors[..., -1]
    else:
        vectors = torch.linalg.eigh(o @ o.mT).eigenvectors[..., -1:]
        projected = (o * vectors).sum(-2)
    return with_sign_of(projected, total).unflatten(-1, size)


def with_sign_of(projected: Tensor, total: Tensor) -> Tensor:
    """The projection, or its negative if that agrees with the total; at right angles the largest value is positive.

    Args:
        projected: (..., N)
        total: (..., N)

    Returns:
        (..., N)
    """
    agreement = (projected * total).sum(-1, keepdim=True)
    largest = projected.gather(-1, projected.abs().argmax(-1, keepdim=True))
    sign = torch.where(torch.where(agreement == 0, largest, agreement) < 0, -1.0, 1.0)
    return sign * projected


@method(
    "eigencam",
    Activations(),
    paper="Muhammad 2020, arXiv:2008.00299",
    clip="never",
    gives_map=True,
    centered=False,
)
def eigencam(a: Tensor, *, centered: bool = False) -> Tensor:
    """L = O v_1, O (h*w, C) the activations, v_1 its first right singular vector; the same for every class"""
    return principal(a, centered).to(a.dtype)


@method("eigengradcam", Gradients(), paper="pytorch-grad-cam (no paper)", gives_map=True, centered=True)
def eigengradcam(a: Tensor, g: Tensor, *, centered: bool = True) -> Tensor:
    """L = O v_1 of O = g A, v_1 the first right singular vector of the centered O"""
    return principal(g * a, centered).to(a.dtype)


@method("randomcam", Activations(), paper="a baseline: any map that does no better explains nothing", seed=0)
def randomcam(a: Tensor, *, seed: int = 0) -> Tensor:
    """w_k ~ U(-1, 1), seeded"""
    generator = torch.Generator().manual_seed(seed)
    weights = 2 * torch.rand(a.shape[0], a.shape[2], generator=generator) - 1
    return weights.to(a)[:, None, :, None, None]
