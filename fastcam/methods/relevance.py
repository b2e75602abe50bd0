"""Methods from layer-wise relevance propagation: r (B, T, C, h, w) at a layer, (B, T, C, H, W) at the image."""

from __future__ import annotations

from torch import Tensor

from .evidence import Options
from .evidence_relevance import InputRelevance, LayerRelevance
from .inputs import evidence_for
from .registry import method

HW = (-2, -1)


def check_numbers(options: Options) -> None:
    """The numbers of the rules are within what keeps relevance."""
    for name in ("alpha", "beta", "gamma", "epsilon"):
        value = options[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
            raise ValueError(f"lrp: {name}={value!r} must be a number from 0 on")
    if abs(options["alpha"] - options["beta"] - 1) > 1e-9:
        raise ValueError(
            f"lrp: alpha={options['alpha']!r} and beta={options['beta']!r} must differ by 1, or relevance is not kept; "
            "common are 2 and 1, or 1 and 0, which is rule='zplus'"
        )


@method(
    "relevancecam",
    LayerRelevance(),
    paper="Lee 2021, CVPR, Relevance-CAM; official code: mongeoroo/Relevance-CAM",
    clip="never",
    variant=("paper", "official"),
    norm=("pass", "merge"),
)
def relevancecam(a: Tensor, r: Tensor) -> Tensor:
    """w_k = mean_ij R_k, LRP-z+ from R = 1 at the class and -1/N at the N - 1 others

    The paper's z+ (alpha 1, beta 0) in every layer with weights and in averages, sums in proportion, max pools to
    the winner, batch norms and activations passed. "official" is the authors' code, which adds the whole bias of a
    convolution to z twice; with convolutions that have none, as in a ResNet, it is the same. Norm "merge" joins a
    batch norm to the convolution in front of it instead, as LRP is commonly run today.
    """
    return r.mean(HW, keepdim=True)


@method(
    "lrp",
    InputRelevance(),
    paper="Bach 2015, PLOS ONE 10(7); rules by layer: Montavon 2019, LNCS 11700, chapter 10",
    clip=evidence_for,
    gives_map=True,
    check=check_numbers,
    rule=("zplus", "alphabeta", "gamma", "epsilon"),
    dense=("epsilon", "same"),
    first=("flat", "box", "same"),
    norm=("merge", "pass"),
    bias=("share", "none"),
    alpha=2.0,
    beta=1.0,
    gamma=0.25,
    epsilon=1e-6,
    low=None,
    high=None,
    reduce=("sum", "abs", "max"),
)
def lrp(r: Tensor) -> Tensor:
    """R_i = sum_j (z_ij / z_j) R_j layer by layer, z_ij = x_i w_ij as each layer's rule has it, R = y_c at the class

    The defaults are the composite known as epsilon-plus-flat: z+ in convolutions, epsilon in linear layers, flat in
    the first. rule="alphabeta" makes it epsilon-alpha2-beta1-flat, rule="gamma", first="box" epsilon-gamma-box;
    rule="epsilon", first="same" is the epsilon rule everywhere. Sums and averages share in proportion. Norm "merge"
    joins a batch norm to the convolution in front of it, "pass" lets relevance through. With bias "share" a bias
    keeps its part; with "none" it takes none, so that more relevance reaches the image. low and high are the least
    and largest pixel value under "box", a number or one a channel; None is each image's own.
    """
    return r
