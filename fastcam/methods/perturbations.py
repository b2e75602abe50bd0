"""Occlusion: a map from the scores of the image under patches, no layer and no gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .evidence import Options
from .evidence_perturbed import PerturbedScores
from .registry import method


def along(grid: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Each of the last axes of a grid through a matrix of its own, (P, n) or one for each row (N, P, n).

    Args:
        grid: (..., n_1, ..., n_r), or (N, n_1, ..., n_r).
        matrices: r of them.

    Returns:
        (..., P_1, ..., P_r)
    """
    for axis, matrix in enumerate(matrices, -len(matrices)):
        turned = grid.movedim(axis, -1)
        if matrix.dim() == 2:
            turned = turned @ matrix.T
        else:
            rows = turned.reshape(len(turned), -1, turned.shape[-1]) @ matrix.mT
            turned = rows.reshape(*turned.shape[:-1], matrix.shape[1])
        grid = turned.movedim(-1, axis)
    return grid


def pixels_of(name: str, value: Any, rank: int | None = None) -> tuple[int, ...]:
    """An option that is one positive int for all axes, or one for each.

    Args:
        name: of the option.
        value: of it.
        rank: how many axes the images have; None where that is not known yet.

    Raises:
        ValueError: anything else.
    """
    each: tuple[Any, ...] = tuple(value) if isinstance(value, (tuple, list)) else (value,) * (rank or 1)
    whole = all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in each)
    if not whole or len(each) not in ((1, 2, 3) if rank is None else (rank,)):
        axes = {1: "(along,)", 2: "(vertical, horizontal)", 3: "(depth, vertical, horizontal)"}[rank or 2]
        raise ValueError(f"occlusion: {name}={value!r} must be a positive int of pixels, or {axes}")
    return each


def check_patches(options: Options) -> None:
    """Sizes and strides that leave no pixel uncovered."""
    size, stride = pixels_of("size", options["size"]), pixels_of("stride", options["stride"])
    most = max(len(size), len(stride))
    each = zip(size * most if len(size) == 1 else size, stride * most if len(stride) == 1 else stride, strict=False)
    if any(step > patch for patch, step in each):
        raise ValueError(
            f"occlusion: stride={options['stride']!r} is larger than size={options['size']!r}, so some pixels would "
            "never be covered; give a stride up to the size"
        )


@dataclass(frozen=True)
class Patches:
    """A patch of one value at each position of a grid over the image; the last ones may end at its edge.

    Attributes:
        covered: for each axis (n, pixels) bool, which pixels the patches of each place of the grid cover.
        size: of a patch, along each axis.
        value: (C, *space) or what expands to it, what stands there instead.
    """

    covered: tuple[Tensor, ...]
    size: tuple[int, ...]
    value: Tensor

    @classmethod
    def make(cls, options: Options, images: Tensor) -> Patches:
        """The patches that these options ask for on images of this size.

        Raises:
            ValueError: patches larger than the image, or a value that does not fit it.
        """
        extent = tuple(int(pixels) for pixels in images.shape[2:])
        size = pixels_of("size", options["size"], len(extent))
        stride = pixels_of("stride", options["stride"], len(extent))
        if any(patch > pixels for patch, pixels in zip(size, extent, strict=True)):
            raise ValueError(
                f"occlusion: size={options['size']!r} is larger than the image of {'x'.join(map(str, extent))} "
                "pixels; give a smaller patch"
            )
        covered = []
        for patch, step, pixels in zip(size, stride, extent, strict=True):
            starts = step * torch.arange(math.ceil((pixels - patch) / step) + 1, device=images.device)[:, None]
            at = torch.arange(pixels, device=images.device)
            covered.append((at >= starts) & (at < starts + patch))
        value = torch.as_tensor(options["value"], dtype=images.dtype, device=images.device)
        ones = (1,) * len(extent)
        value = value.reshape(-1, *ones) if value.dim() == 1 else value.reshape(ones[value.dim() - 1 :] + value.shape)
        try:
            value = value.expand_as(images[0])
        except RuntimeError as error:
            raise ValueError(
                f"occlusion: value has shape {tuple(value.shape)} for images of {tuple(images.shape[1:])}; give one "
                "number, (C,), or (C, H, W)"
            ) from error
        return cls(tuple(covered), size, value)

    @property
    def counts(self) -> tuple[int, ...]:
        """Places of the grid along each axis."""
        return tuple(map(len, self.covered))

    @property
    def count(self) -> int:
        """Positions."""
        return math.prod(self.counts)

    def write(self, image: Tensor, start: int, stop: int, out: Tensor) -> None:
        """The image (1, C, *space) under patches [start, stop)."""
        at, rank = torch.arange(start, stop, device=image.device), len(self.size)
        hidden = []
        for axis, (place, covered) in enumerate(zip(torch.unravel_index(at, self.counts), self.covered, strict=True)):
            shape = [self.size[axis] if other == axis else 1 for other in range(rank)]
            hidden.append(within(covered[place], self.size[axis]).view(-1, *shape))
        out.copy_(image)
        own = (at - start).view(-1, *[1] * rank)
        out.movedim(1, -1)[(own, *hidden)] = self.value.movedim(0, -1)[tuple(hidden)]

    def spread(self, values: Tensor) -> Tensor:
        """The mean, at each pixel, of the values (B, T, N) of the patches that cover it. (B, T, *space)"""
        matrices = [one.to(values.dtype).T for one in self.covered]
        over = along(values.new_ones(self.counts), matrices)
        return along(values.unflatten(-1, self.counts), matrices) / over

    def draw(self, values: Tensor) -> Tensor:
        """The values (B, T, N) at the centers of their patches, linear in between, even beyond. (B, T, *space)"""
        return along(values.unflatten(-1, self.counts), [between(one, values.dtype) for one in self.covered])


def within(covered: Tensor, size: int) -> Tensor:
    """The pixels of spans (n, pixels) of this size; one that ends at the edge has its last pixel again. (n, size)"""
    first = covered.to(torch.uint8).argmax(1, keepdim=True)
    return (first + torch.arange(size, device=covered.device)).clamp(max=covered.shape[1] - 1)


def between(covered: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights (pixels, n) that interpolate linearly between the centers of n spans (n, pixels) of equal steps."""
    count, pixels = covered.shape
    first = covered.to(torch.uint8).argmax(1)
    at = torch.arange(pixels, device=covered.device, dtype=torch.float64)
    middle = (int(covered[0].sum()) - 1) / 2
    step = int(first[1] - first[0]) if count > 1 else 1
    position = ((at - middle) / step).clamp(0, count - 1)
    return (1 - (position[:, None] - torch.arange(count, device=covered.device)).abs()).clamp(min=0).to(dtype)


@method(
    "occlusion",
    PerturbedScores(Patches.make, "positions"),
    paper="Zeiler 2014, arXiv:1311.2901, sec. 4.2",
    gives_map=True,
    check=check_patches,
    record=("drop", "position"),
    score=("logit", "probability"),
    size=16,
    stride=8,
    value=0.0,
)
def occlusion(versions: Patches, s: Tensor, y: Tensor, *, record: str = "drop") -> Tensor:
    """L_ij = mean over the patches p that cover (i, j) of y - y_p, y_p the score with patch p hidden

    The paper names neither size nor stride and records the class probability at the patch's position, not over what
    it covers: record="position" with score="probability" is that record, as the drop y - y_p so that high is important,
    at the center of each patch and linear in between. value=0 is the mean color of images normalized as in training.
    """
    drop = y[..., None] - s
    return versions.spread(drop) if record == "drop" else versions.draw(drop)
