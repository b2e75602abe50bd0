"""Deep Feature Factorization: what the images of a batch have in common, as a few concepts and where they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .fusion import resized
from .inputs import check_images
from .model.capture import evaluation
from .model.forward import Forward
from .model.layers import One, find_one
from .model.network import Network, without_autocast
from .model.outputs import Selector, require_finite, widen
from .model.reshape import Reshape
from .model.tally import Tally, counting
from .nmf import factor


@dataclass(frozen=True)
class Factors:
    """Concepts and where they are, A = Σ_k maps_k concepts_k; the concept that explains most first.

    Attributes:
        maps: (B, K, H, W) in [0, 1], `raw` resized. A concept has one scale for the whole batch, so that an image
            that lacks it has an empty map.
        raw: (B, K, h, w) in [0, 1], at the layer's size; the largest value of each concept is 1.
        concepts: (K, C) what the layer gives where a concept is at its peak, and no other is there.
        scores: (K, classes) logits of an image that is the concept everywhere, or None where what follows the layer
            does not pool.
        logits: what the model gave for the images.
        error: |A - W H| / |A|, of the activations that were factorized.
        steps: updates of the factors.
        layer: its name.
        cost: what it took.
    """

    maps: Tensor
    raw: Tensor
    concepts: Tensor
    scores: Tensor | None
    logits: Any
    error: float
    steps: int
    layer: str
    cost: Tally


def factorize(
    model: nn.Module,
    images: Tensor,
    components: int = 8,
    layer: One | None = None,
    *,
    steps: int = 200,
    tolerance: float = 1e-5,
    precision: str = "float32",
    output: Selector = None,
    reshape: Reshape | None = None,
) -> Factors:
    """A = W H, all cells of all images times channels, none of them negative: Collins 2018, arXiv:1806.10206, eq. 2.

    Activations of layers without ReLU have negative values too; there each channel's smallest value is subtracted first
    and added to the concepts again, as pytorch-grad-cam does. The start and all steps are the same on every run.

    Args:
        model: see `CAM`.
        images: (B, C, H, W), or signals (B, C, L) or volumes (B, C, D, H, W); one forward of the whole batch.
        components: how many concepts, K.
        layer: whose activations; None for the last spatial map.
        steps: at most so many.
        tolerance: stop once a step lowers the error by no more than this share.
        precision: see `CAM`.
        output: see `CAM`.
        reshape: see `CAM`.

    Returns:
        A `Factors`.

    Raises:
        ValueError: more components than cells or channels, or images and layers that cannot be explained.
        TypeError: images that are no floating-point tensor.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> factors = factorize(net, torch.rand(2, 3, 16, 16), components=3)
        >>> factors.maps.shape, factors.concepts.shape, factors.scores.shape
        (torch.Size([2, 3, 16, 16]), torch.Size([3, 8]), torch.Size([3, 5]))
    """
    network = Network(model, output, precision, reshape)
    check_images(images, network.model, precision)
    for name, value in (("components", components), ("steps", steps)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a positive int, got {value!r}")
    if not isinstance(tolerance, (int, float)) or not tolerance >= 0:
        raise ValueError(f"tolerance must be a number from 0 on, got {tolerance!r}")
    layer = find_one(network.model, layer, "one layer is factorized at a time")
    network = network.in_ambient_precision(images.device)
    with counting() as cost, evaluation(network.model), torch.inference_mode(False), torch.no_grad():
        (forward,) = network.forward(images, (), {}, layer, grad=False)
        with without_autocast(images.device):
            return _factors(forward, components, steps, tolerance, cost)


def _factors(forward: Forward, components: int, steps: int, tolerance: float, cost: Tally) -> Factors:
    captured, logits = forward.captured, forward.logits
    a = widen(captured.maps.detach())
    require_finite(a, f"layer {captured.name!r} gives", "check the model's weights")
    v = a.flatten(2).mT.flatten(0, 1)
    if components > min(v.shape):
        raise ValueError(
            f"components={components} is more than layer {captured.name!r} has for {len(a)} images: {v.shape[0]} cells "
            f"and {v.shape[1]} channels; ask for fewer"
        )
    low = v.amin(0).clamp_max(0)
    w, h, error, taken = factor(v - low, components, steps, tolerance)
    raw = captured.layout.spread(w.unflatten(0, (len(a), *a.shape[2:])).movedim(-1, 1)).contiguous()
    concepts = h + low
    scores = None
    if forward.pooled is not None:
        scores = forward.pooled(concepts.to(captured.maps.dtype)[..., None, None].expand(-1, -1, *a.shape[2:]))
    return Factors(
        maps=resized(raw, tuple(forward.images.shape[2:])).float(),
        raw=raw,
        concepts=concepts,
        scores=scores,
        logits=logits.clone() if isinstance(logits, Tensor) else logits,
        error=error,
        steps=taken,
        layer=captured.name,
        cost=cost,
    )
