"""Group-CAM: a few masks, each the sum of a group of weighted channels, on an image that is blurred elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor

from .evidence import Options
from .evidence_perturbed import GroupScores
from .registry import method


def check_groups(options: Options) -> None:
    """A count of groups, a share to cut, and a blur."""
    groups, denoise, kernel, sigma = (options[name] for name in ("groups", "denoise", "kernel", "sigma"))
    if not isinstance(groups, int) or isinstance(groups, bool) or groups < 1:
        raise ValueError(f"groupcam: groups={groups!r} must be a positive int")
    if not isinstance(denoise, (int, float)) or not 0 <= denoise < 100:
        raise ValueError(f"groupcam: denoise={denoise!r} must be percent of the cells to set to zero, from 0 up to 100")
    if not isinstance(kernel, int) or isinstance(kernel, bool) or kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"groupcam: kernel={kernel!r} must be an odd positive int, pixels of the blur along a side")
    if not isinstance(sigma, (int, float)) or not sigma > 0:
        raise ValueError(f"groupcam: sigma={sigma!r} must be a positive number of pixels, the spread of the blur")


def group_maps(a: Tensor, g: Tensor, options: Options) -> Tensor:
    """M_l = relu(Σ_(k in group l) w_k A_k), w_k = mean_ij g_k; groups are ceil(C / groups) channels in their order.

    Args:
        a: (B, C, h, w)
        g: (B, T, C, h, w) or (B, T, C, 1, 1)
        options: `groups`, and `denoise`, the percent of an image's cells, of all groups together, set to zero.

    Returns:
        (B, T, G, h, w), G at most `groups`.
    """
    weighted = g.mean((-2, -1), keepdim=True) * a[:, None]
    maps = torch.stack([group.sum(2) for group in weighted.chunk(options["groups"], 2)], 2).relu()
    if not options["denoise"]:
        return maps
    least = maps.flatten(2).quantile(options["denoise"] / 100, 2)[..., None, None, None]
    return torch.where(maps > least, maps, 0.0)


def blurred(images: Tensor, options: Options) -> Tensor:
    """The images (B, C, H, W) under a Gaussian of `kernel` pixels a side, mirrored at the border."""
    x = images.to(torch.promote_types(images.dtype, torch.float32))
    rows, columns = (
        gaussian(int(pixels), options["kernel"], options["sigma"]).to(x.device, x.dtype) for pixels in x.shape[2:]
    )
    return rows @ x @ columns.T


def gaussian(pixels: int, kernel: int, sigma: float) -> Tensor:
    """(pixels, pixels) weights of a Gaussian of `kernel` taps; taps beyond the border fall back, mirrored about it."""
    taps = torch.arange(kernel, dtype=torch.float64) - kernel // 2
    weights = (-0.5 * (taps / sigma) ** 2).exp()
    at = torch.arange(pixels)[:, None] + taps.long()
    period = max(1, 2 * (pixels - 1))
    inside = at % period
    inside = torch.minimum(inside, period - inside).clamp(max=pixels - 1)
    matrix = torch.zeros(pixels, pixels, dtype=torch.float64)
    return matrix.scatter_add(1, inside, (weights / weights.sum()).expand(pixels, -1))


@method(
    "groupcam",
    GroupScores(group_maps, blurred),
    paper="Zhang 2021, arXiv:2103.13859",
    gives_map=True,
    check=check_groups,
    score=("probability", "logit"),
    groups=32,
    denoise=0.0,
    kernel=51,
    sigma=50.0,
)
def groupcam(maps: Tensor, s: Tensor, base: Tensor) -> Tensor:
    """L = Σ_l relu(s_l - s_0) M_l, M_l = relu(Σ_(k in group l) w_k A_k), w_k = mean_ij g_k

    s_l is the class probability of x * H_l + blur(x) * (1 - H_l), H_l the resized M_l scaled to [0, 1], and s_0 that of
    blur(x). The authors' code as published with the paper's last version; its first version set the lower 70 percent
    of the M_l to zero, which is denoise=70. Each class has masks of its own, so a target of T classes takes T times
    the forwards.
    """
    return ((s - base[..., None]).relu()[..., None, None] * maps).sum(2)
