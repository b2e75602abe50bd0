"""The images that Deletion, Insertion and ROAD score, made as they are needed from ranks alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from fastcam import ops
from fastcam.ops.spaces import as_pictures, blur_spaces

from .perturbation import pixel_counts
from .protocols import Protocol

if TYPE_CHECKING:
    from .batch import Batch

CONSTANT = ("zero", "black")  # start images that do not depend on the image
STEPS = 100  # of a curve of signals and volumes, which have no rows of pixels as pictures have


def starts(batch: Batch) -> dict[str, Tensor]:
    """The images without information that the protocol asks for, by kind; (B, C, H, W), constants expanded.

    Of signals and volumes as pictures, see `as_pictures`.
    """
    x, protocol, found = as_pictures(batch.images), batch.protocol, {}
    for kind in {protocol.insertion_start, protocol.deletion_end}:
        if kind == "blur":
            found[kind] = as_pictures(blur_spaces(batch.images))
        elif kind == "mean":
            found[kind] = x.mean((2, 3), keepdim=True).expand_as(x)
        elif kind == "black":
            assert batch.black is not None
            found[kind] = batch.black[None].to(x).expand_as(x)
        else:
            found[kind] = x.new_zeros(1, x.shape[1], 1, 1).expand_as(x)
    return found


def score_stream(batch: Batch, rows: PixelRows | RoadRows, explained: Tensor) -> Tensor:
    """The scores of all rows, each for the class of its image. (rows,)"""
    classes = explained[rows.image.to(explained.device)]
    probability = batch.protocol.score == "probability"

    def score(logits: Tensor, start: int, stop: int) -> Tensor:
        logits = logits.float().softmax(1) if probability else logits
        return logits.gather(1, classes[start:stop, None])

    return batch.scorer.stream(batch.images, len(rows.image), rows.fill, score)[0]


def step_counts(images: Tensor, protocol: Protocol) -> list[int]:
    """How many pixels, or patches, have changed at each point of a curve of these images."""
    size = (int(images[0, 0].numel() // images.shape[-1]), int(images.shape[-1]))
    if protocol.patch is None:
        return pixel_counts(size, protocol.steps or (None if images.dim() == 4 else STEPS))
    rows, columns = (max(1, side // protocol.patch) for side in size)
    return list(range(rows * columns + 1))


def shares(batch: Batch) -> Tensor | None:
    """Where the points of a curve stand, as the protocol measures areas; None for equal steps. (n + 1,)"""
    protocol = batch.protocol
    if protocol.auc == "steps":
        return None
    counts = step_counts(batch.images, protocol)
    if protocol.auc == "fractions":
        return torch.tensor(counts, dtype=torch.float64) / counts[-1]
    return torch.arange(len(counts), dtype=torch.float64) / len(counts)


def patch_ranks(maps: Tensor, size: tuple[int, int], patch: int) -> Tensor:
    """Ranks of patches for each pixel: the first of those that hold it, each reaching one pixel into the next.

    Args:
        maps: (B, h, w); with a cell a patch each is ranked as it is, else by the mean of what it covers.
        size: (H, W) of the images.
        patch: side in pixels.

    Returns:
        (B, H, W) int32
    """
    height, width = size
    rows, columns = max(1, height // patch), max(1, width // patch)
    ranks = ops.rank_pixels(adaptive_avg_pool2d(maps[:, None], (rows, columns))[:, 0])
    y, x = ((torch.arange(side, device=maps.device) // patch) for side in (height, width))
    y, x = y.clamp_max(rows - 1), x.clamp_max(columns - 1)
    above = torch.where(torch.arange(height, device=maps.device) % patch == 0, (y - 1).clamp_min(0), y)
    left = torch.where(torch.arange(width, device=maps.device) % patch == 0, (x - 1).clamp_min(0), x)
    own = torch.minimum(ranks[:, y], ranks[:, above])
    return torch.minimum(own[:, :, x], own[:, :, left]).contiguous()


class PixelRows:
    """Images between two others: pixels change in the order of the map, its highest first.

    The first deletion image and the last insertion image are the image itself, which is scored already, and an
    end that is the same for all images is scored once for all: neither is among the rows.

    Args:
        images: (B, C, H, W), or (B, C, L) or (B, C, D, H, W), which are written as pictures.
        maps: (B, H, W) or alike; for patches also at the layer's size (B, h, w).
        protocol: steps, patches and start images.
        others: start images by kind.
        deletion: whether to make the deletion rows.
        insertion: whether to make the insertion rows.
    """

    def __init__(
        self,
        images: Tensor,
        maps: Tensor,
        protocol: Protocol,
        others: dict[str, Tensor],
        deletion: bool,
        insertion: bool,
    ) -> None:
        self.images, self.others, self.protocol = as_pictures(images), others, protocol
        counts, maps = step_counts(images, protocol), as_pictures(maps[:, None])[:, 0].contiguous()
        size = (int(self.images.shape[-2]), int(self.images.shape[-1]))
        self.ranks = ops.rank_pixels(maps) if protocol.patch is None else patch_ranks(maps, size, protocol.patch)
        out, start = protocol.deletion_end, protocol.insertion_start
        self.segments: list[tuple[int, str, list[int]]] = []
        for b in range(len(images)):
            if deletion:
                self.segments.append((b, "deletion", counts[1:-1] if out in CONSTANT else counts[1:]))
            if insertion:
                empty = start in CONSTANT or protocol.insertion_first == "one"
                self.segments.append((b, "insertion", counts[1:-1] if empty else counts[:-1]))
        lengths = [len(counts) for _, _, counts in self.segments]
        self.offsets = torch.tensor([0, *lengths]).cumsum(0).tolist()
        self.image = torch.repeat_interleave(torch.tensor([b for b, _, _ in self.segments]), torch.tensor(lengths))

    def fill(self, start: int, stop: int, rows: Tensor) -> None:
        """Writes rows [start, stop) into (n, C, H, W) or alike."""
        rows = as_pictures(rows)
        for (b, kind, counts), first in zip(self.segments, self.offsets, strict=False):
            low, high = max(start, first), min(stop, first + len(counts))
            if low >= high:
                continue
            x = self.images[b : b + 1]
            if kind == "deletion":
                pair = (x, self.others[self.protocol.deletion_end][b : b + 1])
            else:
                pair = (self.others[self.protocol.insertion_start][b : b + 1], x)
            changed = counts[low - first : high - first]
            ops.perturb_steps(*pair, self.ranks[b : b + 1], changed, rows[low - start : high - start])

    def curves(
        self, scores: Tensor, before: Tensor, score_of: Callable[[Tensor, str], Tensor]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Whole curves (B, n + 1), deletion and insertion, from the rows' scores and the ends.

        Args:
            scores: (rows,)
            before: (B,) scores of the images.
            score_of: (one image, its kind) -> its scores (B,); the image is (1, C, H, W), as a picture.
        """
        found: dict[str, list[Any]] = {"deletion": [], "insertion": []}
        for (_, kind, _), part in zip(
            self.segments, scores.split(torch.tensor(self.offsets).diff().tolist()), strict=True
        ):
            found[kind].append(part)
        curves: list[Tensor | None] = []
        for kind, end in (("deletion", self.protocol.deletion_end), ("insertion", self.protocol.insertion_start)):
            if not found[kind]:
                curves.append(None)
                continue
            parts = [torch.stack(found[kind])]
            whole = [before[:, None].to(scores), *parts] if kind == "deletion" else [*parts, before[:, None].to(scores)]
            if kind == "insertion" and self.protocol.insertion_first == "one":
                whole.append(whole[-1])
            elif end in CONSTANT:
                last = score_of(self.others[end][:1], end)[:, None].to(scores)
                whole = [*whole, last] if kind == "deletion" else [last, *whole]
            curves.append(torch.cat(whole, 1))
        return curves[0], curves[1]


class RoadRows:
    """Images whose most or least relevant pixels are imputed, with a little noise on them.

    Args:
        batch: images, protocol and seeds.
        maps: (B, H, W)
    """

    def __init__(self, batch: Batch, maps: Tensor) -> None:
        self.images, self.noise = batch.images, batch.protocol.road_noise
        self.ranks = ops.rank_pixels(maps)
        pixels = maps[0].numel()
        self.counts = [round(p * pixels) for p in batch.protocol.road_percentiles]
        self.shape = (len(maps), 2, len(self.counts))
        self.image = torch.arange(len(maps)).repeat_interleave(2 * len(self.counts))
        self.seeds = [g.initial_seed() for g in batch.generators(2)]

    def fill(self, start: int, stop: int, rows: Tensor) -> None:
        """Writes rows [start, stop). (n, C, H, W)"""
        images, removed, noise = [], [], []
        for row in range(start, stop):
            b, rest = divmod(row, 2 * len(self.counts))
            least, p = divmod(rest, len(self.counts))
            ranks, count = self.ranks[b], self.counts[p]
            removed.append(ranks >= ranks.numel() - count if least else ranks < count)
            images.append(self.images[b])
            generator = torch.Generator().manual_seed(self.seeds[b] + rest)
            noise.append(torch.randn(self.images.shape[1:], generator=generator))
        gone = torch.stack(removed)
        # Solved on the CPU, where the op has its kernel.
        rows.copy_(ops.impute_pixels(torch.stack(images).cpu(), gone.cpu()))
        rows += self.noise * torch.stack(noise).to(rows) * gone[:, None]
