"""RISE: a map from the scores of the image under random masks, no layer and no gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .evidence import Options
from .evidence_perturbed import PerturbedScores
from .perturbations import along
from .registry import method


def check_random_masks(options: Options) -> None:
    """Cells that are a count, and a probability that leaves something to see and something to hide."""
    cells, p = options["cells"], options["p"]
    if not isinstance(cells, int) or isinstance(cells, bool) or cells < 2:
        raise ValueError(f"rise: cells={cells!r} must be an int of 2 or more, the cells of a mask along a side")
    if not isinstance(p, (int, float)) or not 0 < p < 1:
        raise ValueError(f"rise: p={p!r} must lie between 0 and 1, both excluded; it is the share of visible cells")


@dataclass(frozen=True)
class RandomMasks:
    """N random grids, each upsampled and cropped to the image when it is wanted: two matrix products, never stored.

    Attributes:
        grids: (N, s, s) zeros and ones, with an axis for each of the image's.
        offsets: for each axis (N,), the first pixel of each crop.
        weights: for each axis (cell, pixels, s), the weights of the grid's cells in each pixel, for each first pixel.
    """

    grids: Tensor
    offsets: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]

    @classmethod
    def make(cls, options: Options, images: Tensor) -> RandomMasks:
        """Draw the grids, then the offsets axis by axis, from one generator with the option `seed`."""
        cells, samples = options["cells"], options["samples"]
        generator = torch.Generator().manual_seed(options["seed"])
        shape, dtype = images.shape[2:], torch.promote_types(images.dtype, torch.float32)
        grids = torch.rand(samples, *[cells] * len(shape), generator=generator) < options["p"]
        weights, offsets = [], []
        for pixels in shape:
            cell = math.ceil(pixels / cells)
            up = mirrored(cells, (cells + 1) * cell)
            weights.append(torch.stack([up[first : first + pixels] for first in range(cell)]).to(images.device, dtype))
            offsets.append(torch.randint(cell, (samples,), generator=generator).to(images.device))
        return cls(grids.to(images.device, dtype), tuple(offsets), tuple(weights))

    @property
    def count(self) -> int:
        """N."""
        return len(self.grids)

    def masks(self, start: int, stop: int) -> Tensor:
        """Masks [start, stop) at full size. (n, *space)"""
        each = zip(self.weights, self.offsets, strict=True)
        return along(self.grids[start:stop], [weights[offsets[start:stop]] for weights, offsets in each])

    def write(self, image: Tensor, start: int, stop: int, out: Tensor) -> None:
        """The image (1, C, *space) times masks [start, stop)."""
        torch.mul(image, self.masks(start, stop)[:, None], out=out)

    def total(self, scores: Tensor) -> Tensor:
        """Σ_i s_i M_i of scores (B, T, N): the grids are summed by their crop first, so a map takes few products.

        Returns:
            (B, T, *space)
        """
        cells, rank = self.grids.shape[1], len(self.weights)
        crops = tuple(map(len, self.weights))
        place = torch.zeros_like(self.offsets[0])
        for offsets, count in zip(self.offsets, crops, strict=True):
            place = place * count + offsets
        flat = self.grids.flatten(1).double()
        matrices = [one.double().transpose(0, 1).flatten(1) for one in self.weights]
        order = [axis for pair in zip(range(rank), range(rank, 2 * rank), strict=True) for axis in pair]
        maps = []
        for one in scores.flatten(0, 1).double():
            sums = flat.new_zeros(math.prod(crops), cells**rank).index_add(0, place, one[:, None] * flat)
            sums = sums.view(*crops, *[cells] * rank).permute(order)
            sums = sums.reshape([count * cells for count in crops])
            maps.append(along(sums, matrices).to(scores.dtype))
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
