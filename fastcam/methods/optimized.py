"""Opti-CAM: channel weights that an optimizer finds, so that the masked image keeps its score."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcam.ops.resize_normalize import is_flat, min_max, resize

from .evidence import Options
from .evidence_perturbed import OptimizedScores
from .registry import method

DECAY = (0.9, 0.999)  # Adam's own, of the mean and of the mean square of the gradient
TINY = 1e-8


def check_steps(options: Options) -> None:
    """A count of steps and a rate."""
    steps, rate = options["steps"], options["rate"]
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"opticam: steps={steps!r} must be a positive int")
    if not isinstance(rate, (int, float)) or not rate > 0:
        raise ValueError(f"opticam: rate={rate!r} must be a positive number, the step of the optimizer")


class Adam:
    """Adam's steps without weight decay: u - rate m / (√v + tiny), m and v corrected for their start at zero.

    Source: Kingma and Ba 2015, arXiv:1412.6980, alg. 1.
    """

    def __init__(self, rate: float) -> None:
        self.rate, self.count = rate, 0
        self.mean: Tensor | float = 0.0
        self.square: Tensor | float = 0.0

    def step(self, parameters: Tensor, gradient: Tensor) -> Tensor:
        """The parameters after one more step."""
        self.count += 1
        first, second = DECAY
        self.mean = first * self.mean + (1 - first) * gradient
        self.square = second * self.square + (1 - second) * gradient**2
        spread = (self.square / (1 - second**self.count)).sqrt() + TINY
        return parameters - self.rate * self.mean / (1 - first**self.count) / spread


def equal_parameters(a: Tensor) -> Tensor:
    """The same for every channel. (B, C)"""
    return torch.full_like(a[:, :, 0, 0], 0.5)


def optimized_mask(parameters: Tensor, a: Tensor, size: tuple[int, int]) -> Tensor:
    """The map Σ_k softmax_k(u) relu(A_k) at the images' size, scaled to [0, 1]. (n, 1, H, W)"""
    one = (parameters.softmax(1)[..., None, None] * a.relu()).sum(1, keepdim=True)
    return min_max(resize(one, size), is_flat(one))[0]


def lost_score(own: Tensor, masked: Tensor, options: Options) -> Tensor:
    """What of the score a mask takes away, or how far it moves it."""
    lost = own - masked
    return lost.abs() if options["objective"] == "distance" else lost


@method(
    "opticam",
    OptimizedScores(equal_parameters, optimized_mask, lost_score),
    paper="Zhang 2023, arXiv:2301.07002",
    gives_map=True,
    check=check_steps,
    objective=("score", "distance"),
    steps=50,
    rate=0.1,
)
def opticam(a: Tensor, parameters: Tensor) -> Tensor:
    """L = Σ_k softmax_k(u) relu(A_k), u by Adam so that x * H scores highest, H the resized L scaled to [0, 1]

    objective="distance" brings the masked image's score to the image's own instead. Steps and rate are those of the
    authors' script; it looks ten times whether a whole batch still gains and may stop before the last step, here every
    step is taken, for an image must not depend on the others of its batch.
    """
    return (parameters.softmax(-1)[..., None, None] * a.relu()).sum(2)
