"""Counterfactual explanations: which cells of another image, put in place of which cells here, change the class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .explanation import finish
from .inputs import check_images
from .model.capture import evaluation
from .model.forward import Forward
from .model.layers import One, find_one
from .model.network import Network, without_autocast
from .model.outputs import Selector
from .model.tally import Tally, counting
from .scoring import Budget
from .swaps import Search
from .targets import TargetSpec, resolve


@dataclass(frozen=True)
class Counterfactual:
    """The swaps of each pair, in the order in which they were found.

    Attributes:
        swaps: (B, S, 2, 2) integers: swaps[b, s] is ((row, column) here, (row, column) there), in cells of the layer;
            -1 where a pair took fewer than S. One index for a cell of a signal's layer, three of a volume's.
        probabilities: (B, S + 1) of the distractor's class: before, and after each swap; the last stays.
        flips: (B,) after how many swaps the distractor's class has the highest logit for the first time; -1 for never.
        maps: (B, H, W) float32 in [0, 1] of the images: what each cell's swap added to the probability.
        distractor_maps: (B, H, W) the same for the distractors' cells.
        target: (B,) the distractors' classes.
        logits: (B, classes) of the images as they are.
        layer: its name.
        cost: what it took.
    """

    swaps: Tensor
    probabilities: Tensor
    flips: Tensor
    maps: Tensor
    distractor_maps: Tensor
    target: Tensor
    logits: Tensor
    layer: str
    cost: Tally

    @property
    def flipped(self) -> Tensor:
        """Whether the class changed. (B,) bool"""
        return self.flips >= 0


def counterfactual(
    model: nn.Module,
    images: Tensor,
    distractors: Tensor,
    target: TargetSpec = None,
    layer: One | None = None,
    swaps: int | None = None,
    *,
    reuse: bool = False,
    batch_size: int | str = "auto",
    max_memory: int | None = None,
    precision: str = "float32",
    output: Selector = None,
) -> Counterfactual:
    """(i, j) = argmax P_c'(A with A_i <- A'_j), greedily, until c' wins: Goyal 2019, arXiv:1904.07451.

    Behind global average pooling and a linear layer, a step is one product of matrices of all cells here and there,
    and no forward. Elsewhere each swap that is tried is a forward of what follows the layer, or of its head where that
    pools. Of swaps that tie, the first in row-major order is taken, up to rounding. That a cell there is used once, by
    default, and what the maps show are choices of this package.

    Args:
        model: see `CAM`.
        images: (B, C, H, W), or signals (B, C, L) or volumes (B, C, D, H, W).
        distractors: of the same shape, one for each image, of another class.
        target: the classes c' to reach, an int or (B,); None takes what the model predicts for the distractors.
        layer: whose cells are swapped; None for the last spatial map.
        swaps: exactly so many for each pair; None stops each once its class changes, or when all cells are swapped.
        reuse: whether a cell there may be used more than once. A cell here is swapped once in any case.
        batch_size: see `CAM`.
        max_memory: see `CAM`.
        precision: see `CAM`.
        output: see `CAM`.

    Returns:
        A `Counterfactual`.

    Raises:
        ValueError: shapes differ, an image is of the distractor's class already, or there are fewer cells than swaps.
        TypeError: images that are no floating-point tensors.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), pool, nn.Linear(2, 2, bias=False))
        >>> net[0].weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
        >>> net[0].bias.data.zero_(); net[3].weight.data = torch.eye(2)
        tensor([0., 0.])
        >>> bright = torch.tensor([[[[2.0, -1.0], [0.0, 0.0]]]])
        >>> found = counterfactual(net, bright, -bright)
        >>> found.swaps.tolist(), found.flips.tolist()
        ([[[[0, 0], [0, 0]]]], [1])
    """
    network, budget = Network(model, output, precision), Budget(batch_size, max_memory)
    for given in (images, distractors):
        check_images(given, network.model, precision)
    if images.shape != distractors.shape:
        raise ValueError(
            f"images have shape {tuple(images.shape)}, distractors {tuple(distractors.shape)}; give one distractor of "
            "the same size for each image"
        )
    if batch_size != "auto" and (not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(f"batch_size must be 'auto' or a positive int, got {batch_size!r}")
    if swaps is not None and (not isinstance(swaps, int) or isinstance(swaps, bool) or swaps < 1):
        raise ValueError(f"swaps must be a positive int or None, got {swaps!r}")
    layer = find_one(network.model, layer, "cells are swapped at one layer")
    network = network.in_ambient_precision(images.device)
    with counting() as cost, evaluation(network.model), torch.inference_mode(False), torch.no_grad():
        (here,) = network.forward(images, (), {}, layer, grad=False)
        (there,) = network.forward(distractors, (), {}, here.captured.name, grad=False)
        classes = _classes(here, there, target)
        with without_autocast(images.device):
            taken, probabilities, flips = Search(here, there, classes, budget).run(swaps, reuse)
    layout, none = here.captured.layout, taken[..., None] < 0
    maps = finish(layout.spread(_gains(taken, probabilities, layout.size)), tuple(images.shape[2:]), "before")
    return Counterfactual(
        swaps=torch.stack(torch.unravel_index(taken.clamp_min(0), layout.shape), 3).masked_fill(none, -1),
        probabilities=probabilities,
        flips=flips,
        maps=maps[:, 0],
        distractor_maps=maps[:, 1],
        target=classes,
        logits=here.logits.clone(),
        layer=here.captured.name,
        cost=cost,
    )


def _classes(here: Forward, there: Forward, target: TargetSpec) -> Tensor:
    """The classes to reach. (B,)"""
    batch = len(here.images)
    chosen = resolve(target, there.logits, batch)
    if chosen.classes is None or not chosen.single:
        raise ValueError(
            f"target must be one class for all, ({batch},) for one a pair, or None for what is predicted for the "
            f"distractors, got {target!r}"
        )
    classes, own = chosen.classes[:, 0], here.logits.argmax(1)
    if bool((own == classes).any()):
        b = int((own == classes).nonzero()[0])
        raise ValueError(
            f"image {b} is predicted as class {int(own[b])}, which is also the class to reach; give a distractor of "
            "another class, or another target"
        )
    return classes


def _gains(taken: Tensor, probabilities: Tensor, grid: tuple[int, int]) -> Tensor:
    """What each swap added to the probability, at its cells here and there. (B, 2, h, w)"""
    gains = (probabilities.diff() * (taken[:, :, 0] >= 0)).unsqueeze(2).expand(-1, -1, 2)
    flat = gains.new_zeros(len(taken), 2, grid[0] * grid[1]).scatter_add(2, taken.clamp_min(0).mT, gains.mT)
    return flat.unflatten(2, grid)
