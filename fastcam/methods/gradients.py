"""CAMs weighted by gradients: a (B, 1, C, h, w), g (B, T, C, h, w) or (B, T, C, 1, 1), so reduce g with means."""

from __future__ import annotations

import torch
from torch import Tensor

from .evidence import Contributions, Gradients
from .registry import method

HW = (-2, -1)


def cells(a: Tensor) -> int:
    """H * w."""
    return a.shape[-2] * a.shape[-1]


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Numerator / denominator, with a zero denominator taken as 1 (Grad-CAM++'s own convention)."""
    return numerator / torch.where(denominator == 0, 1.0, denominator)


@method("gradcam", Gradients(), paper="Selvaraju 2017, arXiv:1610.02391, eq. 1-2")
@method(
    "integratedgradcam",
    Gradients(path=True),
    paper="Sattarzadeh 2021, arXiv:2102.07805",
    formula="L = mean_i relu(sum_k mean(g_k(x_i)) (A_k(x_i) - A_k(x'))), x_i on the line from x' to x",
    variant=("paper", "official"),
    samples=50,
    rule=("left", "right", "trapezoid", "midpoint"),
    baseline=None,
)
def gradcam(a: Tensor, g: Tensor) -> Tensor:
    """w_k = mean_ij g_k"""
    return g.mean(HW, keepdim=True)


@method(
    "gradcampp",
    Gradients(),
    paper="Chattopadhay 2018, arXiv:1710.11063, eq. 5 and 19",
    variant=("paper", "official"),
    eps=0.0,
)
def gradcampp(a: Tensor, g: Tensor, *, variant: str = "paper", eps: float = 0.0) -> Tensor:
    """w_k = sum_ij alpha relu(g), alpha = g^2 / (2 g^2 + g^3 sum_ab A_k)

    The factor exp(S) of the paper cancels inside alpha and is one constant outside. "official" is the authors'
    TensorFlow code: alpha is divided by its sum over the cells with a positive gradient.
    """
    alpha = ratio(g**2, 2 * g**2 + a.sum(HW, keepdim=True) * g**3 + eps)
    if variant == "official":
        alpha = ratio(alpha, cells(a) * (alpha * (g > 0)).mean(HW, keepdim=True))
    return cells(a) * (alpha * g.relu()).mean(HW, keepdim=True)


@method(
    "smoothgradcampp",
    Gradients(noisy=True),
    paper="Omeiza 2019, arXiv:1908.01224, eq. 6-8",
    mode=("derivatives", "maps"),
    variant=("paper", "corrected"),
    samples=8,
    spread=0.15,
    std=None,
    seed=0,
    eps=0.0,
)
def smoothgradcampp(
    a: Tensor, g: Tensor, *, mode: str = "derivatives", variant: str = "paper", eps: float = 0.0
) -> Tensor:
    """w_k = sum_ij alpha relu(D1), alpha = D1 / (2 D2 + D3 sum_ab A_k), D_p = mean_n g_n^p

    g: (3, B, T, C, h, w), the mean first, second and third powers of the gradients of the noisy images. The
    paper writes D1 in the numerator where Grad-CAM++ has the second derivative: "corrected" takes D2. Mode
    "maps" averages finished Grad-CAM++ maps of the noisy images instead. The standard deviation of the noise is `std`,
    or where that is None `spread` times the range of the image's values.
    """
    if mode == "maps":
        return gradcampp(a, g, eps=eps)
    d1, d2, d3 = g
    alpha = ratio(d1 if variant == "paper" else d2, 2 * d2 + a.sum(HW, keepdim=True) * d3 + eps)
    return cells(a) * (alpha * d1.relu()).mean(HW, keepdim=True)


@method("xgradcam", Gradients(), paper="Fu 2020, arXiv:2008.02312, eq. 8", eps=0.0)
def xgradcam(a: Tensor, g: Tensor, *, eps: float = 0.0) -> Tensor:
    """w_k = sum_ij g A / sum_ij A"""
    total = a.sum(HW, keepdim=True) + eps
    return torch.where(total == 0, 0.0, ratio((g * a).sum(HW, keepdim=True), total))


@method("layercam", Gradients(), paper="Jiang 2021, TIP 30, eq. 4-5")
def layercam(a: Tensor, g: Tensor) -> Tensor:
    """w_k(ij) = relu(g_kij)"""
    return g.relu()


@method("hirescam", Gradients(), paper="Draelos 2020, arXiv:2011.08891")
def hirescam(a: Tensor, g: Tensor) -> Tensor:
    """w_k(ij) = g_kij"""
    return g


@method("gradcamelementwise", Gradients(), paper="pytorch-grad-cam (no paper)")
def gradcamelementwise(a: Tensor, g: Tensor) -> Tensor:
    """L = sum_k relu(g_k A_k)"""
    return torch.where(g * a <= 0, 0.0, g)


@method("liftcam", Contributions(), paper="Jung 2021, arXiv:2102.05228")
def liftcam(a: Tensor, c: Tensor) -> Tensor:
    """w_k = sum_ij of the DeepLIFT-Rescale contributions of A_k against zero"""
    return c[..., None, None]
