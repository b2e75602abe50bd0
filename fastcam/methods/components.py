"""CAMs that look for structure in the activations: one component of them, their mean, or their peaks."""

from __future__ import annotations

import torch
from torch import Tensor

from .activations import principal, with_sign_of
from .evidence import Activations, Gradients, Options
from .registry import method

HW = (-2, -1)
KERNELS = ("sigmoid", "rbf", "poly", "cosine", "linear")


@method("activationmap", Activations(), paper="OpenVINO XAI (no paper)", clip="never")
def activationmap(a: Tensor) -> Tensor:
    """w_k = 1 / C, the mean of the channels; the same for every class"""
    return torch.full_like(a[..., :1, :1], 1 / a.shape[-3])


def check_peaks(options: Options) -> None:
    """A number of standard deviations."""
    if not isinstance(options["k"], (int, float)) or isinstance(options["k"], bool):
        raise ValueError(f"fem: k={options['k']!r} must be a number of standard deviations, e.g. 2.0")


@method(
    "fem",
    Activations(),
    paper="Fuad 2020, IPTA, doi:10.1109/IPTA50016.2020.9286629",
    gives_map=True,
    check=check_peaks,
    variant=("paper", "fraction"),
    k=2.0,
)
def fem(a: Tensor, *, variant: str = "paper", k: float = 2.0) -> Tensor:
    """L = sum_k mean(A_k) [A_k >= mean(A_k) + 2 std(A_k)]; the same for every class

    "fraction" is pytorch-grad-cam: L = sum_k w_k A_k, w_k the fraction of cells above the threshold. Means and standard
    deviations are over the cells, of the population.
    """
    # A channel that is the same everywhere stands on its threshold, so that its mean has to be exact.
    dtype, a = a.dtype, a.double()
    mean = a.mean(HW, keepdim=True)
    threshold = mean + k * a.std(HW, correction=0, keepdim=True)
    if variant == "paper":
        return (mean * (a >= threshold)).sum(-3).to(dtype)
    return ((a > threshold).double().mean(HW, keepdim=True) * a).sum(-3).to(dtype)


def check_kernel(options: Options) -> None:
    """A kernel and its width."""
    gamma = options["gamma"]
    if gamma is not None and (not isinstance(gamma, (int, float)) or isinstance(gamma, bool) or not gamma > 0):
        raise ValueError(f"kpcacam: gamma={gamma!r} must be a positive number, or None for 1 / channels")


def gram(x: Tensor, kernel: str, gamma: float | None) -> Tensor:
    """The kernel of every pair of rows, with scikit-learn's defaults: degree 3 and constant 1.

    Args:
        x: (..., N, C)
        kernel: its name.
        gamma: the factor of the inner products, or of the squared distances; None is 1 / C.

    Returns:
        (..., N, N)
    """
    gamma = 1 / x.shape[-1] if gamma is None else gamma
    if kernel == "cosine":
        x = x / x.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    products = x @ x.mT
    if kernel == "sigmoid":
        return (gamma * products + 1).tanh()
    if kernel == "poly":
        return (gamma * products + 1) ** 3
    if kernel == "rbf":
        squares = products.diagonal(dim1=-2, dim2=-1)
        return (-gamma * (squares[..., :, None] + squares[..., None, :] - 2 * products).clamp_min(0)).exp()
    return products


@method(
    "kpcacam",
    Activations(),
    paper="Karmani 2024, arXiv:2410.00267",
    clip="never",
    gives_map=True,
    check=check_kernel,
    kernel=KERNELS,
    gamma=None,
)
def kpcacam(a: Tensor, *, kernel: str = "sigmoid", gamma: float | None = None) -> Tensor:
    """L = sqrt(l_1) u_1, (l_1, u_1) the first eigenpair of the centered kernel tanh(x_i x_j / C + 1) of the cells

    x_i are the activations of cell i less the mean of all cells, as in the authors' code in pytorch-grad-cam. The sign,
    free in an eigenvector, is that of Eigen-CAM: it agrees with the sum of the channels. It needs h*w x h*w values.
    """
    maps = []
    for image in a.flatten(0, -4).double():  # one at a time, since the kernel is as large as the square of the cells
        x = image.flatten(1).mT
        k = gram(x - x.mean(0), kernel, gamma)
        largest = k.abs().amax()
        k = k - k.mean(0) - k.mean(1, keepdim=True) + k.mean()
        values, vectors = torch.linalg.eigh(k)
        value = values[-1]
        if value <= 10 * len(k) * torch.finfo(k.dtype).eps * largest:  # no two cells differ: what is left is rounding
            maps.append(0 * x.sum(1))
            continue
        maps.append(with_sign_of(value.sqrt() * vectors[:, -1], x.sum(1)))
    return torch.stack(maps).view(*a.shape[:-3], *a.shape[-2:]).to(a.dtype)


@method(
    "segeigencam",
    Gradients(),
    paper="Chung 2025, Appl. Sci. 15(13), 7562, eq. 10-13",
    gives_map=True,
)
def segeigencam(a: Tensor, g: Tensor) -> Tensor:
    """L = O v_1 of the centered O = |g| A, v_1 its first right singular vector; L is negated where |min L| > |max L|"""
    projected = principal(g.abs() * a, centered=True)
    flip = projected.amin(HW, keepdim=True).abs() > projected.amax(HW, keepdim=True).abs()
    return torch.where(flip, -projected, projected).to(a.dtype)
