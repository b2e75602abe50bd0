"""Does the map stay where it is under noise, and go where the weights go? MaxSensitivity, cascading randomization."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from fastcam import ops

from .complexity import pearson
from .fields import MAP
from .mean import Mean
from .registry import metric

if TYPE_CHECKING:
    from fastcam.cam import CAM


def max_sensitivity(maps: Tensor, noisy: Tensor) -> Tensor:
    """max_n ‖L(x + e_n) - L(x)‖ / ‖L(x)‖, e uniform.

    Args:
        maps: (B, H, W)
        noisy: (n, B, H, W) maps of the images with noise, for the same class.

    Returns:
        (B,) float64, 0 for a map of zeros. Source: Yeh 2019, arXiv:1901.09392, eq. 4.

    >>> max_sensitivity(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[[3.0, 4.0]]], [[[0.0, 4.0]]]]))
    tensor([0.6000], dtype=torch.float64)
    """
    m = maps.double().flatten(1)
    change = (noisy.double().flatten(2) - m).norm(dim=2).amax(0)
    norm = m.norm(dim=1)
    return (change / norm.masked_fill(norm == 0, 1)).masked_fill(norm == 0, 0)


def average_ranks(maps: Tensor) -> Tensor:
    """Ranks of the pixels in falling order, equal pixels sharing the mean of theirs. (B, n) -> (B, n) float64"""
    found = []
    for values, ranks in zip(maps, ops.rank_pixels(maps[:, None].float())[:, 0].long(), strict=True):
        in_order = torch.empty_like(values).scatter_(0, ranks, values)
        group = torch.cat([ranks.new_zeros(1), (in_order.diff() != 0).long().cumsum(0)])
        sizes = group.bincount()
        mean = sizes.cumsum(0).double() - (sizes + 1) / 2
        found.append(mean[group][ranks])
    return torch.stack(found)


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Correlation of the ranks of two maps' pixels; equal pixels share a rank.

    Args:
        a: (B, ...)
        b: of the same shape.

    Returns:
        (B,) float64 in [-1, 1], NaN where a map is constant.

    >>> spearman(torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([[1.0, 4.0, 5.0]]))
    tensor([1.0000], dtype=torch.float64)
    """
    return pearson(average_ranks(a.flatten(1)), average_ranks(b.flatten(1)))


def ssim(a: Tensor, b: Tensor, size: int = 11, sigma: float = 1.5) -> Tensor:
    """Mean of (2 μ_a μ_b + c_1)(2 σ_ab + c_2) / ((μ_a² + μ_b² + c_1)(σ_a² + σ_b² + c_2)) over Gaussian windows.

    Args:
        a: (B, H, W) in [0, 1]
        b: (B, H, W)
        size: side of the windows, which lie inside the map; a smaller map takes the largest odd side that fits.
        sigma: of the windows, in pixels.

    Returns:
        (B,) float64. Source: Wang 2004, c_1 = 0.01², c_2 = 0.03².
    """
    size = min(size, *((side - 1) // 2 * 2 + 1 for side in a.shape[-2:]))
    taps = torch.exp(-((torch.arange(size, dtype=torch.float64, device=a.device) - size // 2) ** 2) / (2 * sigma**2))
    taps = (taps / taps.sum()).view(1, 1, 1, -1)

    def mean(maps: Tensor) -> Tensor:
        return conv2d(conv2d(maps[:, None], taps), taps.mT)[:, 0]

    x, y = a.double(), b.double()
    mx, my = mean(x), mean(y)
    xx, yy, xy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c, d = 0.01**2, 0.03**2
    similar = (2 * mx * my + c) * (2 * xy + d) / ((mx**2 + my**2 + c) * (xx + yy + d))
    return similar.mean((1, 2))


SIMILARITIES = {"spearman": spearman, "pearson": pearson, "ssim": ssim}


def cascade(model: nn.Module, into: nn.Module, steps: int, seed: int = 0) -> Iterator[nn.Module]:
    """The model with more and more of its layers drawn anew, from the output down.

    Args:
        model: left as it is.
        into: a copy of it, whose weights are overwritten.
        steps: stages; each draws an equal share of the layers that have parameters, the last one all.
        seed: of the draw.

    Yields:
        `into`, after each stage. Source: Adebayo 2018, arXiv:1810.03292.
    """
    into.load_state_dict(model.state_dict())
    layers = [m for m in into.modules() if any(p is not None for p in m._parameters.values())][::-1]
    done = 0
    for step in range(1, steps + 1):
        until = math.ceil(step * len(layers) / steps)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed + step)
            for layer in layers[done:until]:
                _draw(layer)
        done = until
        yield into


def _draw(layer: nn.Module) -> None:
    reset = getattr(layer, "reset_parameters", None)
    if callable(reset):
        reset()
        return
    for parameter in layer._parameters.values():
        if parameter is not None:  # a class token, a layer scale: their own spread around their own mean
            noise = torch.randn(parameter.shape).to(parameter)
            parameter.copy_(parameter.mean() + noise * parameter.std(correction=0))


def cascading_randomization(
    cam: CAM,
    images: Tensor,
    target: Tensor,
    maps: Tensor,
    steps: int = 8,
    similarity: str = "spearman",
    seed: int = 0,
    see: Callable[[CAM], Tensor] | None = None,
) -> Tensor:
    """How alike maps stay as the model's layers are drawn anew, from the output down.

    Args:
        cam: whose model is copied and never changed.
        images: (B, C, H, W)
        target: (B,) classes.
        maps: (B, H, W) of the trained model.
        steps: stages, see `cascade`.
        similarity: "spearman", "pearson" or "ssim"; a constant map is like nothing, 0.
        seed: of the draw.
        see: a `CAM` -> its maps (B, H, W), where `maps` are not what a call gives, but resized otherwise.

    Returns:
        (B, steps) float64.

    Raises:
        ValueError: the model cannot be copied.
    """
    model = cam.network.model
    try:
        into = copy.deepcopy(model)
    except Exception as error:
        raise ValueError(
            f"randomization works on a copy, and {type(model).__name__} cannot be copied ({error}); leave it out"
        ) from error
    other = cam.on(into)
    alike = SIMILARITIES[similarity]
    again = see or (lambda one: one(images, target=target))
    stages = [alike(maps, again(other)) for _ in cascade(model, into, steps, seed)]
    return torch.stack(stages, 1).nan_to_num(0)


@metric(
    "max_sensitivity",
    ("maps", "noisy_maps"),
    formula="mean of max over n of |map(x + noise_n) - map(x)| / |map(x)|",
    direction="down",
    range="from 0",
    paper="Yeh 2019, arXiv:1901.09392",
    cost="n maps",
    reads=("classes", *MAP, "sensitivity_radius", "sensitivity_samples"),
)
class MaxSensitivity(Mean):
    """Mean of `max_sensitivity`; `update(maps, noisy)` takes (B, H, W), (n, B, H, W)."""

    def values(self, maps: Tensor, noisy: Tensor) -> Tensor:
        """(B,)"""
        return max_sensitivity(maps, noisy)


@metric(
    "randomization",
    ("randomized",),
    formula="mean similarity of maps before and after layers are drawn anew, from the output down",
    direction="down",
    range="-1 to 1",
    paper="Adebayo 2018, arXiv:1810.03292",
    cost="one map a stage",
    reads=("classes", "upsample", "randomization_steps", "similarity"),  # ranks do not see scales
)
class Randomization(Mean):
    """Mean similarity over stages; `details` holds each stage's. `update(similarities)` takes (B, stages).

    Args:
        steps: stages.
        **kwargs: of `torchmetrics.Metric`.
    """

    def __init__(self, steps: int = 8, **kwargs: Any) -> None:
        super().__init__(1 + steps, **kwargs)

    def values(self, similarities: Tensor) -> Tensor:
        """(B, 1 + stages)"""
        return torch.cat([similarities.mean(1, keepdim=True), similarities], 1)

    def compute(self) -> Tensor:
        """A scalar."""
        mean = self.mean()
        self.details = {"randomization_curve": mean[1:]}
        return mean[0]
