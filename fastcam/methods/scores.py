"""CAMs weighted by scores under masks: s (B, T, K)."""

from __future__ import annotations

import torch
from torch import Tensor

from .evidence import InputScores, LayerScores, Options
from .registry import method


def after_if_official(options: Options) -> str:
    """Score-CAM's repository sums the resized maps and cuts negative values then."""
    return "after" if options["variant"] == "official" else "before"


def draw_noise(options: Options, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Standard normal noise of the samples of one mask, in the order of samples: (N, 1, H, W) or (N, C, H, W)."""
    channels = shape[0] if options["type"] == "input" else 1
    return torch.randn(options["samples"], channels, *shape[1:], generator=generator)


def noisy(mask: Tensor, image: Tensor, noise: Tensor, options: Options) -> Tensor:
    """SS-CAM's samples: noise on the mask ("activation"), or on the masked image ("input").

    The authors' code takes sigma = 2 / (max - min) of what the noise is added to, and sigma^2 as the standard
    deviation.
    """
    masked = image * mask
    std: float | Tensor = options["std"]
    if options["variant"] == "official":
        spread = (masked if options["type"] == "input" else mask).aminmax()
        std = (2 / (spread.max - spread.min)) ** 2
    return masked + std * noise if options["type"] == "input" else image * (mask + std * noise)


def draw_coefficients(options: Options, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """IS-CAM's scales of one mask: i (i + 1) / 2N, or i / N. (N, 1, 1, 1)"""
    i = torch.arange(1, options["samples"] + 1, dtype=torch.float32)
    scales = i * (i + 1) / 2 if options["schedule"] == "cumulative" else i
    return (scales / options["samples"])[:, None, None, None]


def scaled(mask: Tensor, image: Tensor, scales: Tensor, options: Options) -> Tensor:
    """IS-CAM's samples: c_i x H_k."""
    return image * mask * scales


def never_if_official(options: Options) -> str:
    """SS-CAM's repository adds its noise to the resized activations as they are."""
    return "never" if options["variant"] == "official" and options["type"] == "activation" else options["normalize"]


@method(
    "scorecam",
    InputScores(),
    paper="Wang 2020, arXiv:1910.01279, alg. 1",
    clip=after_if_official,
    variant=("paper", "official"),
    normalize=("after", "before"),
    align_corners=(False, True),
    budget=None,
)
@method(
    "sscam",
    InputScores(normalize=never_if_official, draw=draw_noise, sample=noisy),
    paper="Wang 2020, arXiv:2006.14255",
    clip=after_if_official,
    formula="w_k = softmax_k(s), s_k = mean_n of the class score of x * (H_k + e_n), e_n ~ N(0, std)",
    type=("activation", "input"),
    variant=("paper", "official"),
    normalize=("after", "before"),
    samples=35,
    std=2.0,
    seed=0,
    budget=None,
)
@method(
    "iscam",
    InputScores(draw=draw_coefficients, sample=scaled),
    paper="Naidu 2020, arXiv:2010.03023",
    formula="w_k = softmax_k(s), s_k = mean_i of the class score of c_i x * H_k, c_i = i (i + 1) / 2N",
    schedule=("cumulative", "linear"),
    normalize=("after", "before"),
    samples=10,
    budget=None,
)
def scorecam(a: Tensor, s: Tensor, constant: Tensor, *, variant: str = "paper") -> Tensor:
    """w_k = softmax_k(s), s_k = the class score of x * H_k, H_k = the resized A_k scaled to [0, 1]

    The paper's baseline score cancels in the softmax. "official" is the authors' code: s_k is a probability and
    the weight itself, and constant channels are left out. align_corners=True resizes the activations with the centers
    of their corner cells at those of the corner pixels, as pytorch-grad-cam does; normalize="before" scales A_k before
    it is resized, as torchcam does, so that a mask whose peak falls between pixels stays below 1. SS-CAM takes the mean
    of s_k over noisy samples, IS-CAM over scaled ones.

    budget=n, which is ours, scores n distinct masks (and one for all constant channels) and estimates the others from
    these, see `fastcam.budget`; one that covers all changes nothing.
    """
    if variant == "official":
        return torch.where(constant[:, None], 0.0, s)[..., None, None]
    return s.softmax(-1)[..., None, None]


@method(
    "ablationcam",
    LayerScores("channels"),
    paper="Desai 2020, WACV, eq. 2-3",
    divide=("score", "magnitude", "none"),
)
def ablationcam(a: Tensor, s: Tensor, y: Tensor, *, divide: str = "score") -> Tensor:
    """w_k = (y - y_k) / y, y_k = the score with channel k set to zero

    The paper's division turns every sign around where y < 0; divide="magnitude" takes |y|, "none" divides by nothing.
    """
    drop = y[..., None] - s
    if divide != "none":
        by = y if divide == "score" else y.abs()
        drop = drop / torch.where(by == 0, 1.0, by)[..., None]
    return drop[..., None, None]


@method(
    "reciprocam",
    LayerScores("cells"),
    paper="Byun 2022, arXiv:2209.14074, eq. 2-4",
    clip="never",
    gives_map=True,
    kernel=("point", "gaussian", "neighbors"),
    score=("probability", "logit"),
)
def reciprocam(a: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """L_ij = the class probability of A with all cells but (i, j) set to zero

    kernel="gaussian" writes the cell's vector to its 3x3 neighborhood, "neighbors" keeps the neighbors' own vectors
    (the form made for transformers); score="logit" is that of OpenVINO.
    """
    return s.unflatten(-1, a.shape[-2:])
