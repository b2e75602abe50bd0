"""Deletion, insertion, ROAD and randomization again, one changed image at a time.

A score function takes one image (C, H, W) in float64 and gives the score of the explained class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tests.formulas_metrics import Grid, column, correlation, flat, ranks, values

Score = Callable[[Tensor], float]
ROAD_WEIGHTS = {1: 1 / 6, 2: 1 / 12}  # by the number of steps to a neighbor: beside, and across the corner


def falling(grid: Grid, last_first: bool = False) -> list[int]:
    """Flat indices in falling order of value; of equal values the lower index first; NaN at the end.

    `last_first`: of equal values the higher index first, as a flipped stable argsort has it.
    """

    def key(k: int) -> tuple[bool, float, int]:
        value = numbers[k]
        missing = math.isnan(value)
        return missing, 0.0 if missing else -value, -k if last_first else k

    numbers = flat(grid)
    return sorted(range(len(numbers)), key=key)


def curve(score: Score, start: Tensor, finish: Tensor, order: Sequence[int], counts: Sequence[int]) -> list[float]:
    """The scores of `start` with the first `count` pixels of the order taken from `finish`."""
    width = start.shape[-1]
    out = []
    for count in counts:
        x = start.double().clone()
        for k in order[:count]:
            i, j = divmod(k, width)
            x[:, i, j] = finish[:, i, j].double()
        out.append(score(x))
    return out


def rise_counts(pixels: int, step: int) -> list[int]:
    """0, step, 2 step, ... and all: ceil(pixels / step) steps, the last one maybe shorter (Petsiuk et al. 2018)."""
    return [min(i * step, pixels) for i in range(math.ceil(pixels / step) + 1)]


def deletion(score: Score, image: Tensor, grid: Grid, step: int, baseline: Tensor | None = None) -> list[float]:
    """From the image to the baseline, the zero of the normalized image, most salient pixels first."""
    end = torch.zeros_like(image) if baseline is None else baseline
    order = falling(grid)
    return curve(score, image, end, order, rise_counts(len(order), step))


def insertion(score: Score, image: Tensor, grid: Grid, step: int, baseline: Tensor | None = None) -> list[float]:
    """From the baseline, the blurred image, to the image, most salient pixels first."""
    start = blur(image) if baseline is None else baseline
    order = falling(grid)
    return curve(score, start, image, order, rise_counts(len(order), step))


def blur_taps(size: int = 11, sigma: float = 5.0) -> list[float]:
    """RISE's kernel, one side: a unit impulse in `size` cells, filtered by a Gaussian cut at 4 sigma whose reach
    beyond the ends is reflected back (d c b a | a b c d | d c b a)."""
    reach = int(4 * sigma + 0.5)
    bell = [math.exp(-(k**2) / (2 * sigma**2)) for k in range(-reach, reach + 1)]
    impulse = [1.0 if i == size // 2 else 0.0 for i in range(size)]
    out = []
    for i in range(size):
        terms = []
        for k in range(-reach, reach + 1):
            at = (i + k) % (2 * size)
            terms.append(bell[k + reach] * impulse[at if at < size else 2 * size - 1 - at])
        out.append(math.fsum(terms) / math.fsum(bell))
    return out


def blur(image: Tensor, size: int = 11, sigma: float = 5.0) -> Tensor:
    """Each channel convolved with the outer product of the taps, zeros beyond the border."""
    taps, half = blur_taps(size, sigma), size // 2
    out = []
    for grid in values(image):
        h, w = len(grid), len(grid[0])
        out.append(
            [
                [
                    math.fsum(
                        taps[v - y + half] * taps[u - x + half] * grid[v][u]
                        for v in range(max(0, y - half), min(h, y + half + 1))
                        for u in range(max(0, x - half), min(w, x + half + 1))
                    )
                    for x in range(w)
                ]
                for y in range(h)
            ]
        )
    return torch.tensor(out, dtype=torch.float64)


def torchcam_curves(
    score: Score, image: Tensor, grid: Grid, steps: int = 20, baseline: Tensor | None = None
) -> tuple[list[float], list[float], list[float]]:
    """torchcam's fractions, deletion and insertion: ceil(HW / steps) pixels a step, zeros for both."""
    zero = torch.zeros_like(image) if baseline is None else baseline
    order = falling(grid)
    counts = [*range(0, len(order), math.ceil(len(order) / steps)), len(order)]
    fractions = [count / len(order) for count in counts]
    return fractions, curve(score, image, zero, order, counts), curve(score, zero, image, order, counts)


def trapezoid(fractions: Sequence[float], scores: Sequence[float]) -> float:
    """The area under a curve over the true fractions."""
    return math.fsum(
        (fractions[k + 1] - fractions[k]) * (scores[k + 1] + scores[k]) / 2 for k in range(len(scores) - 1)
    )


def reciprocam_curves(score: Score, image: Tensor, grid: Grid) -> tuple[list[float], list[float]]:
    """Recipro-CAM's deletion and insertion with the patches of a map of h x w cells, hw + 1 scores each.

    A patch is W // w pixels wide and reaches one more to the right and below, within the image. Deletion: the image,
    then 1 ... hw patches at zero. Insertion: 1 ... hw patches on the image's mean color, then the image once more;
    the start without a patch is left out.
    """
    h, w = len(grid), len(grid[0])
    _, H, W = image.shape
    dy, dx = H // h, W // w
    rank = patch_ranks(grid, H, W, dy, dx)
    whole = score(image.double())
    color = image.double().mean((1, 2))
    deleted, inserted = [whole], []
    for count in range(1, h * w + 1):
        out, back = image.double().clone(), image.double().clone()
        for y in range(H):
            for x in range(W):
                if rank[y][x] < count:
                    out[:, y, x] = 0.0
                else:
                    back[:, y, x] = color
        deleted.append(score(out))
        inserted.append(score(back))
    return deleted, [*inserted, whole]


def patch_ranks(grid: Grid, H: int, W: int, dy: int, dx: int) -> list[list[int]]:
    """For each pixel the rank of the first patch, in falling order of the map, that covers it; hw where none does."""
    h, w = len(grid), len(grid[0])
    out = [[h * w] * W for _ in range(H)]
    for rank, k in enumerate(falling(grid)):
        i, j = divmod(k, w)
        for y in range(i * dy, min((i + 1) * dy, H - 1) + 1):
            for x in range(j * dx, min((j + 1) * dx, W - 1) + 1):
                out[y][x] = min(out[y][x], rank)
    return out


def reciprocam_auc(scores: Sequence[float]) -> float:
    """The trapezoids of hw + 1 scores at distance 1, over hw + 1 and not hw."""
    return trapezoid(range(len(scores)), scores) / len(scores)


def impute(image: Tensor, removed: Sequence[Sequence[bool]]) -> Tensor:
    """Each removed pixel is the weighted mean of its neighbors in the image, 1/6 beside and 1/12 across the corner,
    over the weights there are (Rong et al. 2022, section 5.1); one linear system."""
    H, W = image.shape[-2:]
    holes = [(y, x) for y in range(H) for x in range(W) if removed[y][x]]
    if len(holes) == H * W:
        raise ValueError("every pixel is removed: nothing is left to impute from")
    number = {pixel: k for k, pixel in enumerate(holes)}
    system = torch.zeros(len(holes), len(holes), dtype=torch.float64)
    known = torch.zeros(len(holes), len(image), dtype=torch.float64)
    for (y, x), k in number.items():
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                near = (y + dy, x + dx)
                if (dy, dx) == (0, 0) or not (0 <= near[0] < H and 0 <= near[1] < W):
                    continue
                weight = ROAD_WEIGHTS[abs(dy) + abs(dx)]
                system[k, k] += weight
                if near in number:
                    system[k, number[near]] -= weight
                else:
                    known[k] += weight * image[:, near[0], near[1]].double()
    out = image.double().clone()
    for (y, x), value in zip(holes, torch.linalg.solve(system, known), strict=True):
        out[:, y, x] = value
    return out


def percentile(numbers: Sequence[float], percent: float) -> float:
    """NumPy's: straight between the two order statistics around percent / 100 of the way."""
    rising = sorted(numbers)
    at = percent / 100 * (len(rising) - 1)
    low = min(int(at), len(rising) - 1)
    high = min(low + 1, len(rising) - 1)
    return rising[low] + (at - low) * (rising[high] - rising[low])


def removed_by_rank(grid: Grid, share: float, order: str = "morf") -> list[list[bool]]:
    """The int(share HW) most (morf) or least (lerf) salient pixels; for lerf the order is the other one reversed."""
    first = falling(grid)
    first = first if order == "morf" else first[::-1]
    gone = set(first[: int(len(first) * share)])
    return [[i * len(grid[0]) + j in gone for j in range(len(grid[0]))] for i in range(len(grid))]


def removed_by_percentile(grid: Grid, percent: float, order: str = "morf") -> list[list[bool]]:
    """pytorch-grad-cam's: what is not under the percentile of m (morf) or of 1 - m (lerf), so 100 - percent of it."""
    own = grid if order == "morf" else [[1 - value for value in row] for row in grid]
    level = percentile(flat(own), percent)
    return [[value >= level for value in row] for row in own]


def road(score: Score, image: Tensor, removed: Sequence[Sequence[bool]], noise: Tensor) -> float:
    """The score of the imputed image; `noise` (C, H, W), already scaled, is added to what was imputed."""
    x = impute(image, removed)
    for y, row in enumerate(removed):
        for u, gone in enumerate(row):
            if gone:
                x[:, y, u] += noise[:, y, u].double()
    return score(x)


def road_combined(most: Sequence[float], least: Sequence[float]) -> float:
    """(mean LeRF - mean MoRF) / 2 over the percentages, in [-1/2, 1/2] for probabilities."""
    return (math.fsum(least) / len(least) - math.fsum(most) / len(most)) / 2


def cascade(layers: Sequence[str], trained: dict[str, Tensor], fresh: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The parameters after each step of cascading randomization (Adebayo et al. 2018, section 3.1).

    `layers` from the input to the output. Step n has the last n layers from `fresh` and all others trained.
    """
    states = []
    for n in range(1, len(layers) + 1):
        state = dict(trained)
        for name in trained:
            if name.rpartition(".")[0] in layers[-n:]:
                state[name] = fresh[name]
        states.append(state)
    return states


def rank_correlations(reference: Grid, randomized: Sequence[Grid]) -> Tensor:
    """Spearman's rho of the map of the trained network with the map after each step."""
    return column([correlation(ranks(flat(reference)), ranks(flat(grid))) for grid in randomized])
