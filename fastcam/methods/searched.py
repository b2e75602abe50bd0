"""AISE: a black box asked where it matters, by Gaussian windows that a global search places."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .direct import Direct
from .evidence import Options
from .evidence_perturbed import SearchedScores
from .registry import method

SIGNS = {"both": (1.0, -1.0), "keep": (1.0,), "remove": (-1.0,)}  # the window, and all but the window


def check_windows(options: Options) -> None:
    """Counts, and widths in order."""
    widths, narrow, wide = options["widths"], options["narrow"], options["wide"]
    if not isinstance(widths, int) or isinstance(widths, bool) or widths < 1:
        raise ValueError(f"aise: widths={widths!r} must be a positive int, how many widths of the window are tried")
    if not all(isinstance(v, (int, float)) and v > 0 for v in (narrow, wide)) or narrow > wide:
        raise ValueError(
            f"aise: narrow={narrow!r} and wide={wide!r} must be positive shares of the image's sides, in order"
        )
    if not isinstance(options["eps"], (int, float)) or options["eps"] < 0:
        raise ValueError(f"aise: eps={options['eps']!r} must be 0 or more, the gain that makes a search look closer")


def widths_of(options: Options) -> Tensor:
    """Standard deviations of the windows, as shares of the image's sides. (S,)"""
    return torch.linspace(options["narrow"], options["wide"], options["widths"], dtype=torch.float64)


def profiles(centers: Tensor, widths: Tensor, pixels: int) -> Tensor:
    """exp(-(u - c)² / 2 σ²) along a side, u from 0 at the first pixel to 1 at the last, 1 at the pixel that is nearest.

    Args:
        centers: (...) c.
        widths: σ, in a shape that fits.
        pixels: of the side.

    Returns:
        (..., pixels)
    """
    at = torch.linspace(0, 1, pixels, dtype=centers.dtype, device=centers.device)
    exponents = -0.5 * ((at - centers[..., None]) / widths[..., None]) ** 2
    return (exponents - exponents.amax(-1, keepdim=True)).exp()


@dataclass(frozen=True)
class Windows:
    """An image seen through Gaussian windows alone, or through all but them.

    Attributes:
        rows: (n, H) each window along the vertical.
        columns: (n, W) along the horizontal.
        signs: 1 for the window, -1 for all but it; a window's versions follow each other.
    """

    rows: Tensor
    columns: Tensor
    signs: Tensor

    @classmethod
    def make(cls, which: Tensor, spots: Tensor, options: Options, images: Tensor) -> Windows:
        """The windows of these widths (n,), by number, at these places (n, 2)."""
        widths, dtype = widths_of(options)[which], torch.promote_types(images.dtype, torch.float32)
        columns, rows = (
            profiles(spots[:, axis], widths, int(images.shape[3 - axis])).to(images.device, dtype) for axis in (0, 1)
        )
        return cls(rows, columns, torch.tensor(SIGNS[options["objective"]], dtype=dtype, device=images.device))

    @property
    def count(self) -> int:
        """Versions."""
        return len(self.rows) * len(self.signs)

    def write(self, image: Tensor, start: int, stop: int, out: Tensor) -> None:
        """Versions [start, stop) of the image (1, C, H, W)."""
        at = torch.arange(start, stop, device=image.device)
        window, sign = at // len(self.signs), self.signs[at % len(self.signs)]
        masks = (sign[:, None] * self.rows[window])[:, :, None] * self.columns[window][:, None]
        masks += (sign < 0).to(masks.dtype)[:, None, None]
        torch.mul(image, masks[:, None], out=out)


def worth(scores: Tensor, options: Options) -> Tensor:
    """The score through the window less that without it, or one of the two. scores: (T, versions) -> (T, n)"""
    signs = SIGNS[options["objective"]]
    return (scores.unflatten(1, (-1, len(signs))) * scores.new_tensor(signs)).sum(2)


def searches(options: Options) -> list[Direct]:
    """One for each width."""
    return [Direct(options["samples"], options["eps"]) for _ in range(options["widths"])]


@method(
    "aise",
    SearchedScores(searches, Windows.make, worth),
    paper="OpenVINO XAI: Adaptive Input Sampling for Explanation of Black-box Models",
    clip="never",
    gives_map=True,
    check=check_windows,
    objective=("both", "keep", "remove"),
    estimate=("mean", "sum"),
    score=("probability", "logit"),
    samples=50,
    widths=3,
    narrow=0.1,
    wide=0.25,
    eps=0.1,
)
def aise(spots: Tensor, values: Tensor, options: Options, size: tuple[int, int]) -> Tensor:
    """L = mean over widths σ of Σ_i v_i G_i / Σ_i G_i, v_i = score of x * G_i less that of x * (1 - G_i), G_i Gaussian

    Where the windows of each width lie is chosen by DIRECT, which looks for the largest v. Windows, widths and options
    of the search are those of OpenVINO XAI, the one implementation; it asks for one window at a time, through SciPy,
    takes the sigmoid of logits for a score, and estimate="sum" is its map, Σ_σ K_σ / max K_σ with K_σ = Σ_i v_i G_i.
    Where no v is positive that sum is lowest where the search looked most, so the mean is the default. Here the search
    is this package's own, the scores are softmax probabilities, and all images, targets and widths search side by side.
    """
    widths = widths_of(options)[:, None]
    columns, rows = (profiles(spots[..., axis], widths, size[1 - axis]) for axis in (0, 1))
    if options["estimate"] == "mean":
        first = values[..., :1]  # beside it values that are all alike leave nothing, not even rounding
        maps = ((values - first)[..., None] * rows).mT @ columns / (rows.mT @ columns)
        return (first[..., None] + maps).mean(2)
    maps = (values[..., None] * rows).mT @ columns
    most = maps.amax((-2, -1), keepdim=True)
    return torch.where(most > 0, maps / most.where(most > 0, 1.0), maps).sum(2)
