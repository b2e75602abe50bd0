"""Maps that join several layers, fine ones and the last: Zoom-CAM, Poly-CAM."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastcam.ops.resize_normalize import is_flat, min_max, resize

from .evidence import Options
from .evidence_perturbed import LayeredGradients, LayeredScores
from .registry import method

OUTLIERS = 0.001  # share of a map's cells that may lie beyond each end of its scale
TINY = 1e-12


@method("zoomcam", LayeredGradients(), paper="Shi 2020, arXiv:2010.08644", clip="never", gives_map=True)
def zoomcam(layers: Sequence[tuple[Tensor, Tensor]], size: tuple[int, int]) -> Tensor:
    """L = max_l up(N(relu(Σ_k g_k A_k))) over layers l, N scales a map to [0, 1]

    The authors pass all convolutions of VGG-16; by default it is the last map of each resolution. Their published
    script ends in an undefined name, divides by the maximum as it was before the minimum was taken off, and resizes
    from layer to layer; here every map goes to the image's size at once.
    """
    joined = layers[0][0].new_zeros(())
    for a, g in layers:
        own = (g * a[:, None]).sum(-3).relu()
        joined = torch.maximum(joined, resize(min_max(own, is_flat(own))[0], size))
    return joined


def soft_extent(flat: Tensor) -> tuple[Tensor, Tensor]:
    """The percentiles 0.1 and 99.9 of each row, linear between values. flat: (K, n) -> (K, 1), (K, 1)"""
    at = OUTLIERS * (flat.shape[1] - 1)
    low = math.floor(at)
    count = min(low + 2, flat.shape[1])
    ends = [flat.topk(count, 1, largest=largest).values for largest in (False, True)]
    below, above = (end[:, low : low + 1] + (at - low) * (end[:, count - 1 :] - end[:, low : low + 1]) for end in ends)
    return below, above


def polycam_masks(a: Tensor) -> Tensor:
    """(A - low) / high, kept within [0, 1], low and high its percentiles 0.1 and 99.9. (C, h, w)"""
    flat = a.flatten(1)
    low, high = soft_extent(flat)
    return ((flat - low) / high.clamp(min=TINY)).clamp(0, 1).view_as(a)


def locally_scaled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """L / up(down(L)), down to the cells of the coarser layer: (B, T, h, w)."""
    around = resize(resize(maps, size), (maps.shape[-2], maps.shape[-1]))
    return maps / around.clamp(min=TINY)


def polycam_signs(options: Options) -> tuple[str, ...]:
    """The images a variant scores."""
    return tuple("+-") if options["variant"] == "+-" else (options["variant"],)


@method(
    "polycam",
    LayeredScores(polycam_masks, polycam_signs),
    paper="Englebert 2022, arXiv:2204.13359",
    gives_map=True,
    variant=("+-", "+", "-"),
    score=("probability", "logit"),
)
def polycam(layers: Sequence[tuple[Tensor, dict[str, Tensor]]], y: Tensor) -> Tensor:
    """L_l = relu(Σ_k w_k A_k) / (its local mean) * up(L_(l+1)), from the last layer l up to the first

    w_k = s_k for PCAM+, relu(y - r_k) for PCAM-, relu(s_k + y - r_k) for PCAM+-: s_k the class probability of x * H_k,
    r_k that of x * (1 - H_k), H_k the resized channel, scaled by its percentiles 0.1 and 99.9; the finished map is
    scaled by its own likewise. Formulas and scales are those of the authors' code, whose local mean is a bilinear
    resize down to the next layer's cells and back.
    """
    joined = None
    for a, s in reversed(layers):
        weights = s["+"] if "+" in s else torch.zeros_like(s["-"])
        if "-" in s:
            weights = (weights + y[..., None] - s["-"]).relu()
        own = torch.einsum("btk,bkhw->bthw", weights, a).relu()
        if joined is not None:
            own = locally_scaled(own, (joined.shape[-2], joined.shape[-1]))
            own = own * resize(joined, (own.shape[-2], own.shape[-1]))
        joined = own
    assert joined is not None
    return polycam_masks(joined.flatten(0, 1)).view_as(joined)
