"""Attributions of the image itself, (B, T, C, H, W): from its gradients, from DeepLIFT, from a mask over its pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from .evidence import Options
from .evidence_inputs import BiasGradients, GuidedGradients, InputContributions, InputGradients, PixelMask
from .registry import method

CHW = (-3, -2, -1)
HW = (-2, -1)
POINTS = ("right", "left", "trapezoid", "midpoint", "gausslegendre")


def reduced(attributions: Tensor, how: str) -> Tensor:
    """One map of all channels: "max" of their magnitudes, "abs" for the sum of these, "sum" with signs.

    Args:
        attributions: (B, T, C, H, W)
        how: as above.

    Returns:
        (B, T, H, W)
    """
    if how == "sum":
        return attributions.sum(-3)
    return attributions.abs().amax(-3) if how == "max" else attributions.abs().sum(-3)


def evidence_for(options: Options) -> str:
    """A signed map shows what speaks for the target; magnitudes are shown whole."""
    return "before" if options["reduce"] == "sum" else "never"


def check_spread(options: Options) -> None:
    """The noise cannot be less than none."""
    spread = options["spread"]
    if isinstance(spread, bool) or not isinstance(spread, (int, float)) or spread < 0:
        raise ValueError(f"spread={spread!r} must be a number from 0 on, the noise as a share of each image's range")


@method(
    "saliency",
    InputGradients(),
    paper="Simonyan 2014, arXiv:1312.6034, section 3.1",
    clip=evidence_for,
    gives_map=True,
    reduce=("max", "abs", "sum"),
)
@method(
    "deconvnet",
    InputGradients(rule="deconvnet"),
    paper="Zeiler 2014, arXiv:1311.2901; as a rule for gradients: Springenberg 2015, arXiv:1412.6806, fig. 1",
    formula="A = dS/dx with relu's backward R -> relu(R), whatever the forward gave",
    clip=evidence_for,
    gives_map=True,
    reduce=("abs", "max", "sum"),
)
@method(
    "guidedbackprop",
    InputGradients(rule="guided"),
    paper="Springenberg 2015, arXiv:1412.6806, fig. 1",
    formula="A = dS/dx with relu's backward R -> relu(R) where the forward was positive",
    clip=evidence_for,
    gives_map=True,
    reduce=("abs", "max", "sum"),
)
def saliency(x: Tensor, g: Tensor) -> Tensor:
    """A = dS/dx

    The paper shows the largest magnitude of the three channels. Deconvolution and guided backpropagation are shown as
    pictures in their papers; the sum of magnitudes is the usual gray picture of these.
    """
    return g


@method(
    "inputxgradient",
    InputGradients(),
    paper="Shrikumar 2016, arXiv:1605.01713",
    clip=evidence_for,
    gives_map=True,
    reduce=("sum", "abs", "max"),
)
@method(
    "integratedgradients",
    InputGradients(over="path"),
    paper="Sundararajan 2017, arXiv:1703.01365, eq. 1 and 3",
    formula="A = (x - x') mean_i dS/dx(x_i), x_i on the line from the baseline x' to x",
    clip=evidence_for,
    gives_map=True,
    reduce=("sum", "abs", "max"),
    samples=50,
    rule=POINTS,
    baseline=None,
)
def inputxgradient(x: Tensor, g: Tensor) -> Tensor:
    """A = x dS/dx

    Integrated gradients: the points are those of the paper's sum, k / m for k = 1..m; with rule="gausslegendre", as
    captum has it, fewer of them add up to S(x) - S(x'). A baseline of zeros is the mean picture where images are
    normalized; give the black one as `baseline` for the paper's.
    """
    return x * g


@method(
    "smoothgrad",
    InputGradients(over="noise"),
    paper="Smilkov 2017, arXiv:1706.03825; squared: Hooker 2019, arXiv:1806.10758; variance: Adebayo 2018, 1810.03292",
    clip=evidence_for,
    gives_map=True,
    check=check_spread,
    reduce=("abs", "max", "sum"),
    kind=("mean", "squared", "variance"),
    samples=50,
    spread=0.15,
    seed=0,
)
def smoothgrad(x: Tensor, g: Tensor, *, kind: str = "mean") -> Tensor:
    """A = mean_n dS/dx(x + e_n), e_n ~ N(0, spread (max x - min x)); or mean_n of its square, or its variance"""
    mean, variance = g
    return {"mean": mean, "squared": variance + mean**2, "variance": variance}[kind]


@method(
    "guidedgradcam",
    GuidedGradients(),
    paper="Selvaraju 2017, arXiv:1610.02391, section 3.2",
    clip=evidence_for,
    gives_map=True,
    reduce=("abs", "max", "sum"),
)
def guidedgradcam(g: Tensor, cam: Tensor) -> Tensor:
    """A = guided dS/dx * up(relu(Grad-CAM)), bilinear and not normalized"""
    return g * cam


@method(
    "deeplift",
    InputContributions(),
    paper="Shrikumar 2017, arXiv:1704.02685, section 3",
    clip=evidence_for,
    gives_map=True,
    reduce=("sum", "abs", "max"),
    rule=("rescale", "revealcancel"),
    baseline=None,
)
def deeplift(dx: Tensor, m: Tensor) -> Tensor:
    """A = m (x - x'), m the multipliers of the Rescale rule: through a nonlinearity, (y - y') / (z - z')

    They add up to S(x) - S(x') where all that multiplies two activations is left out (gates and attention hand on
    their gradient). rule="revealcancel" takes positive and negative parts apart in every linear layer that a ReLU
    follows, as the paper advises for dense layers; where there is none it is Rescale.
    """
    return dx * m


@method(
    "fullgrad",
    BiasGradients(),
    paper="Srinivas 2019, arXiv:1905.00780, eq. 5",
    clip="never",
    gives_map=True,
    scale=("layer", "channel"),
    eps=0.0,
)
def fullgrad(x: Tensor, g: Tensor, b: Tensor, *, scale: str = "layer", eps: float = 0.0) -> Tensor:
    """L = sum_c psi(x g) + sum_l sum_c psi(b_l g_l), psi: magnitude, scaled to [0, 1], resized to the image

    b_l are the biases of convolutions and of linear layers over cells, and of batch norms with their means folded in.
    scale="layer" takes one minimum and one maximum for all channels of a layer, as the authors' code does; "channel"
    one for each, as pytorch-grad-cam does, which adds eps=1e-7 to what it divides by. The authors resize with corners
    aligned; here it is as everywhere.
    """
    return rescaled(x * g, scale, eps) + b


def rescaled(values: Tensor, scale: str, eps: float = 0.0) -> Tensor:
    """The sum over channels of magnitudes (..., C, h, w), scaled to [0, 1] over each "layer" or each "channel".

    What is constant is zero.

    Returns:
        (..., h, w)
    """
    over, size = (CHW if scale == "layer" else HW), values.abs()
    low, high = size.amin(over, keepdim=True), size.amax(over, keepdim=True)
    share = torch.where(high == low, 0.0, 1 / torch.where(high == low, 1.0, high - low + eps))
    if scale == "layer":
        return (size - low).sum(-3) * share.squeeze(-3)
    return ((size - low) * share).sum(-3)


def check_search(options: Options) -> None:
    """Numbers of the search for a mask."""
    for name, least in (("rate", 0.0), ("sparsity", 0.0)):
        value = options[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < least:
            raise ValueError(f"{name}={value!r} must be a number from {least:g} on")
    steps = options["steps"]
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps={steps!r} must be a positive int")


@method(
    "fgvis",
    PixelMask(),
    paper="Wagner 2019, CVPR, arXiv:1908.02686",
    clip="never",
    gives_map=True,
    check=check_search,
    game=("preservation", "deletion"),
    score=("probability", "logit"),
    defense=(True, False),
    steps=500,
    rate=0.1,
    sparsity=0.03,
)
def fgvis(x: Tensor, kept: Tensor, *, game: str = "preservation") -> Tensor:
    """A = m x, m in [0, 1] of every channel of every pixel least sum(m) sparsity - S(m x); deletion: (1 - m) x

    From m = 1, `steps` steps of gradient descent, sum(m) weighed with `sparsity` times the largest gradient of S. Of
    preservation it is the last m with S(m x) no less than S(x), and while it is less sum(m) weighs nothing. Against
    adversarial evidence a gradient is cut at a nonlinearity's output h(m x) wherever that has left the range between 0
    and h(x) (defense). The map is the mean of m, or of 1 - m, over channels. Games and defense are the paper's, which
    tunes the weight until both scores are alike. No published code could be had: how that is done here, and 500, 0.1
    and 0.03, are our choices.
    """
    return (kept if game == "preservation" else 1 - kept) * x
