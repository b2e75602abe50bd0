"""Black boxes: maps from the scores of changed images alone, no layer and no gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .evidence import Options
from .evidence_perturbed import PerturbedScores
from .registry import method


def accumulator(images: Tensor) -> torch.dtype:
    """What masks of these images are computed in: float32 at least."""
    return torch.promote_types(images.dtype, torch.float32)


def pair(name: str, value: Any) -> tuple[int, int]:
    """(vertical, horizontal) of an option that is one positive int for both, or two.

    Raises:
        ValueError: anything else.
    """
    both = (value, value) if isinstance(value, int) else value
    whole = isinstance(both, (tuple, list)) and len(both) == 2
    if not whole or not all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in both):
        raise ValueError(f"occlusion: {name}={value!r} must be a positive int of pixels, or (vertical, horizontal)")
    return both[0], both[1]


def check_patches(options: Options) -> None:
    """Sizes and strides that leave no pixel uncovered."""
    size, stride = pair("size", options["size"]), pair("stride", options["stride"])
    if stride[0] > size[0] or stride[1] > size[1]:
        raise ValueError(
            f"occlusion: stride={options['stride']!r} is larger than size={options['size']!r}, so some pixels would "
            "never be covered; give a stride up to the size"
        )


@dataclass(frozen=True)
class Patches:
    """A patch of one value at each position of a grid over the image; the last ones may end at its edge.

    Attributes:
        rows: (n, H) bool, the pixel rows that the patches of each grid row cover.
        columns: (m, W) bool, the same of columns.
        size: (height, width) of a patch, in pixels.
        value: (C | 1, 1 | H, 1 | W) what stands there instead.
    """

    rows: Tensor
    columns: Tensor
    size: tuple[int, int]
    value: Tensor

    @classmethod
    def make(cls, options: Options, images: Tensor) -> Patches:
        """The patches that these options ask for on images of this size.

        Raises:
            ValueError: patches larger than the image, or a value that does not fit it.
        """
        size, stride = pair("size", options["size"]), pair("stride", options["stride"])
        extent = (int(images.shape[2]), int(images.shape[3]))
        if size[0] > extent[0] or size[1] > extent[1]:
            raise ValueError(
                f"occlusion: size={options['size']!r} is larger than the image of {extent[0]}x{extent[1]} pixels; "
                "give a smaller patch"
            )
        covered = []
        for patch, step, pixels in zip(size, stride, extent, strict=True):
            starts = step * torch.arange(math.ceil((pixels - patch) / step) + 1, device=images.device)[:, None]
            at = torch.arange(pixels, device=images.device)
            covered.append((at >= starts) & (at < starts + patch))
        value = torch.as_tensor(options["value"], dtype=images.dtype, device=images.device)
        value = value[:, None, None] if value.dim() == 1 else value.reshape((1,) * (3 - value.dim()) + value.shape)
        try:
            value.expand_as(images)
        except RuntimeError as error:
            raise ValueError(
                f"occlusion: value has shape {tuple(value.shape)} for images of {tuple(images.shape[1:])}; give one "
                "number, (C,), or (C, H, W)"
            ) from error
        return cls(covered[0], covered[1], size, value)

    @property
    def count(self) -> int:
        """Positions."""
        return len(self.rows) * len(self.columns)

    def write(self, image: Tensor, start: int, stop: int, out: Tensor) -> None:
        """The image (1, C, H, W) under patches [start, stop)."""
        at = torch.arange(start, stop, device=image.device)
        y = within(self.rows[at // len(self.columns)], self.size[0])[:, :, None]
        x = within(self.columns[at % len(self.columns)], self.size[1])[:, None]
        out.copy_(image)
        out.movedim(1, -1)[(at - start)[:, None, None], y, x] = self.value.expand_as(image[0]).movedim(0, -1)[y, x]

    def spread(self, values: Tensor) -> Tensor:
        """The mean, at each pixel, of the values (B, T, N) of the patches that cover it. (B, T, H, W)"""
        grid = values.unflatten(-1, (len(self.rows), len(self.columns)))
        rows, columns = self.rows.to(values.dtype), self.columns.to(values.dtype)
        return (rows.T @ grid @ columns) / torch.outer(rows.sum(0), columns.sum(0))

    def draw(self, values: Tensor) -> Tensor:
        """The values (B, T, N) at the centers of their patches, linear in between, even beyond. (B, T, H, W)"""
        grid = values.unflatten(-1, (len(self.rows), len(self.columns)))
        return between(self.rows, values.dtype) @ grid @ between(self.columns, values.dtype).T


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


def check_random_masks(options: Options) -> None:
    """Cells that are a count, and a probability that leaves something to see and something to hide."""
    cells, p = options["cells"], options["p"]
    if not isinstance(cells, int) or isinstance(cells, bool) or cells < 2:
        raise ValueError(f"rise: cells={cells!r} must be an int of 2 or more, the cells of a mask along a side")
    if not isinstance(p, (int, float)) or not 0 < p < 1:
        raise ValueError(f"rise: p={p!r} must lie between 0 and 1, both excluded; it is the share of visible cells")


@dataclass(frozen=True)
class RandomMasks:
    """N random grids, each upsampled and cropped to the image when it is wanted: R_top G L_leftᵀ, never stored.

    Attributes:
        grids: (N, s, s) zeros and ones.
        tops: (N,) first row of each crop.
        lefts: (N,) its first column.
        rows: (cell, H, s) the weights of the grid's rows in a pixel's row, for each first row.
        columns: (cell, W, s) the same of columns.
    """

    grids: Tensor
    tops: Tensor
    lefts: Tensor
    rows: Tensor
    columns: Tensor

    @classmethod
    def make(cls, options: Options, images: Tensor) -> RandomMasks:
        """Draw grids, then tops, then lefts, from one generator with the option `seed`."""
        cells, samples = options["cells"], options["samples"]
        generator = torch.Generator().manual_seed(options["seed"])
        grids = torch.rand(samples, cells, cells, generator=generator) < options["p"]
        weights, offsets = [], []
        for pixels in images.shape[2:]:
            cell = math.ceil(pixels / cells)
            up = mirrored(cells, (cells + 1) * cell)
            weights.append(torch.stack([up[first : first + pixels] for first in range(cell)]))
            offsets.append(torch.randint(cell, (samples,), generator=generator).to(images.device))
        dtype = accumulator(images)
        rows, columns = (one.to(images.device, dtype) for one in weights)
        return cls(grids.to(images.device, dtype), offsets[0], offsets[1], rows, columns)

    @property
    def count(self) -> int:
        """N."""
        return len(self.grids)

    def masks(self, start: int, stop: int) -> Tensor:
        """Masks [start, stop) at full size. (n, H, W)"""
        up = self.rows[self.tops[start:stop]] @ self.grids[start:stop]
        return up @ self.columns[self.lefts[start:stop]].mT

    def write(self, image: Tensor, start: int, stop: int, out: Tensor) -> None:
        """The image (1, C, H, W) times masks [start, stop)."""
        torch.mul(image, self.masks(start, stop)[:, None], out=out)

    def total(self, scores: Tensor) -> Tensor:
        """Σ_i s_i M_i of scores (B, T, N): the grids are summed by their crop first, so this is two products a map.

        Returns:
            (B, T, H, W)
        """
        cells = self.grids.shape[1]
        place = self.tops * len(self.columns) + self.lefts
        flat, rows, columns = self.grids.flatten(1).double(), self.rows.double(), self.columns.double()
        rows, columns = rows.transpose(0, 1).flatten(1), columns.transpose(0, 1).flatten(1)
        maps = []
        for one in scores.flatten(0, 1).double():
            sums = flat.new_zeros(len(self.rows) * len(self.columns), cells**2)
            sums = sums.index_add(0, place, one[:, None] * flat)
            sums = sums.view(len(self.rows), len(self.columns), cells, cells).transpose(1, 2).flatten(2).flatten(0, 1)
            maps.append((rows @ sums @ columns.T).to(scores.dtype))
        return torch.stack(maps).unflatten(0, scores.shape[:2])


def mirrored(cells: int, pixels: int) -> Tensor:
    """Weights (pixels, cells) of linear upsampling with half-pixel centers, mirrored about the outer cells' centers."""
    at = (torch.arange(pixels, dtype=torch.float64) + 0.5) * cells / pixels - 0.5
    low = at.floor().long()
    share = at - low
    weights = torch.zeros(pixels, cells, dtype=torch.float64)
    for index, weight in ((low, 1 - share), (low + 1, share)):
        inside = (cells - 1) - ((cells - 1) - index.abs()).abs()
        weights.scatter_add_(1, inside[:, None], weight[:, None])
    return weights


@method(
    "rise",
    PerturbedScores(RandomMasks.make, "samples"),
    paper="Petsiuk 2018, arXiv:1806.07421, eq. 6",
    clip="never",
    gives_map=True,
    check=check_random_masks,
    score=("probability", "logit"),
    samples=4000,
    cells=7,
    p=0.5,
    seed=0,
)
def rise(versions: RandomMasks, s: Tensor, y: Tensor, *, p: float = 0.5) -> Tensor:
    """L = 1 / (N p) Σ_i s_i M_i, s_i the class probability of x * M_i, M_i random grids, upsampled and shifted

    All images and classes share the masks. The paper takes 4000 for VGG-16 and 8000 for ResNet-50, on 7 x 7 cells of
    which half are visible; its upsampling is scikit-image's of order 1, which mirrors at the border.
    """
    return versions.total(s) / (versions.count * p)
