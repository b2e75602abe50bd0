"""Every metric again, straight from its paper: plain loops in float64, with nothing of fastcam inside.

A function takes tensors as its namesake in `fastcam.metrics` does and gives float64 values, one per image. This
file has what is computed from scores and from maps alone, and the drop protocols; `formulas_boxes.py` has boxes,
`formulas_localization.py` the metrics on them, `formulas_perturb.py` deletion, insertion, ROAD and randomization.

NaN in gives NaN out, except where a formula says what NaN means; a comparison with NaN is false.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Grid = list[list[float]]
Scores = Callable[[Tensor], Sequence[float]]  # one image (C, H, W) -> a score for each class


def values(x: Tensor) -> list:
    """A tensor as nested lists of Python floats, which are float64."""
    return x.detach().double().cpu().tolist()


def column(numbers: Sequence[float]) -> Tensor:
    return torch.tensor(list(numbers), dtype=torch.float64)


def flat(grid: Grid) -> list[float]:
    return [value for row in grid for value in row]


def positive(value: float) -> float:
    """max(0, value), where NaN stays NaN."""
    return 0.0 if value <= 0 else value


def average_drop(before: Tensor, after: Tensor) -> Tensor:
    """max(0, Y - O) / Y (Chattopadhay et al. 2018, section 4.1), a fraction; 0 where Y is 0."""
    pairs = zip(values(before), values(after), strict=True)
    return column([positive(y - o) / y if y != 0 else 0.0 for y, o in pairs])


def increase_in_confidence(before: Tensor, after: Tensor) -> Tensor:
    """1[O > Y] (Chattopadhay et al. 2018, section 4.1), strict."""
    return column([1.0 if o > y else 0.0 for y, o in zip(values(before), values(after), strict=True)])


def average_gain(before: Tensor, after: Tensor) -> Tensor:
    """max(0, O - Y) / (1 - Y) (Zhang et al. 2023, Opti-CAM); 0 where Y is 1."""
    pairs = zip(values(before), values(after), strict=True)
    return column([positive(o - y) / (1 - y) if y != 1 else 0.0 for y, o in pairs])


def win_rate(drop: Tensor, others: Tensor) -> Tensor:
    """1[drop < every other method's drop] (Chattopadhay et al. 2018, "win %"), strict: nobody wins a tie."""
    return column(
        [1.0 if all(d < o for o in row) else 0.0 for d, row in zip(values(drop), values(others.T), strict=True)]
    )


def average_drop_in_deletion(before: Tensor, after_inverse: Tensor) -> Tensor:
    """(Y - D) / Y with D the score under the inverse mask (Jung & Oh 2021), not clipped; 0 where Y is 0."""
    pairs = zip(values(before), values(after_inverse), strict=True)
    return column([(y - d) / y if y != 0 else 0.0 for y, d in pairs])


def correlation(a: list[float], b: list[float]) -> float:
    """Pearson's r; NaN where one of the two is constant, is a single number or holds a NaN."""
    numbers = [*a, *b]
    if any(math.isnan(value) for value in numbers) or min(a) == max(a) or min(b) == max(b):
        return math.nan
    mean_a, mean_b = math.fsum(a) / len(a), math.fsum(b) / len(b)
    product = math.fsum((p - mean_a) * (q - mean_b) for p, q in zip(a, b, strict=True))
    square_a = math.fsum((p - mean_a) ** 2 for p in a)
    square_b = math.fsum((q - mean_b) ** 2 for q in b)
    return product / (math.sqrt(square_a) * math.sqrt(square_b))


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's r of each pair of maps (B, H, W)."""
    return column([correlation(flat(p), flat(q)) for p, q in zip(values(a), values(b), strict=True)])


def ranks(numbers: list[float]) -> list[float]:
    """Rising ranks from 1; equal numbers share the mean of their ranks."""
    out = []
    for value in numbers:
        below = sum(1 for other in numbers if other < value)
        same = sum(1 for other in numbers if other == value)
        out.append(below + (same + 1) / 2)
    return out


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's r of the ranks of each pair of maps (B, H, W); NaN as there."""
    out = []
    for p, q in zip(values(a), values(b), strict=True):
        broken = any(math.isnan(value) for value in [*flat(p), *flat(q)])
        out.append(math.nan if broken else correlation(ranks(flat(p)), ranks(flat(q))))
    return column(out)


def coherency(maps: Tensor, masked_maps: Tensor) -> Tensor:
    """(1 + r) / 2 of a map and the map of the image it masks (Poppi et al. 2021, eq. 3); 0 where r is NaN."""
    return column([0.0 if math.isnan(r) else (1 + r) / 2 for r in values(pearson(maps, masked_maps))])


def complexity(maps: Tensor) -> Tensor:
    """|m|_1 / number of pixels (Poppi et al. 2021, eq. 4)."""
    return column([math.fsum(abs(value) for value in flat(grid)) / len(flat(grid)) for grid in values(maps)])


def adcc(drop: Tensor, coherency: Tensor, complexity: Tensor) -> Tensor:
    """The harmonic mean of coherency, 1 - complexity and 1 - drop (Poppi et al. 2021, eq. 5); 0 where one is 0."""
    out = []
    for d, h, c in zip(values(drop), values(coherency), values(complexity), strict=True):
        parts = [h, 1 - c, 1 - d]
        out.append(0.0 if 0 in parts else 3 / math.fsum(1 / part for part in parts))
    return column(out)


def adcc_of_means(drop: Tensor, coherency: Tensor, complexity: Tensor) -> float:
    """The published form: one harmonic mean, of the means over the data set."""
    means = [column([math.fsum(values(x)) / len(x)]) for x in (drop, coherency, complexity)]
    return float(adcc(*means))


def auc(scores: Tensor) -> Tensor:
    """(Σ s - s_0/2 - s_n/2) / n for n + 1 scores (B, n + 1) (Petsiuk et al. 2018)."""
    return column([(math.fsum(row) - row[0] / 2 - row[-1] / 2) / (len(row) - 1) for row in values(scores)])


def sparseness(maps: Tensor) -> Tensor:
    """The Gini index of |m| (Chalasani et al. 2020): Σ_i (2i - n - 1) m_(i) / (n Σ m), m rising, i from 1."""
    out = []
    for grid in values(maps):
        rising = sorted(abs(value) for value in flat(grid))
        n, mass = len(rising), math.fsum(rising)
        moment = math.fsum((2 * i - n - 1) * value for i, value in enumerate(rising, start=1))
        out.append(moment / (n * mass) if mass != 0 else 0.0)
    return column(out)


def max_sensitivity(maps: Tensor, noisy: Tensor) -> Tensor:
    """max_n |m_n - m|_F / |m|_F (Yeh et al. 2019, def. 3), noisy (n, B, H, W); 0 where the map is zero."""
    out = []
    for b, grid in enumerate(values(maps)):
        size = math.sqrt(math.fsum(value**2 for value in flat(grid)))
        shifts = []
        for sample in values(noisy):
            pairs = zip(flat(sample[b]), flat(grid), strict=True)
            shifts.append(math.sqrt(math.fsum((p - q) ** 2 for p, q in pairs)))
        out.append(max(shifts) / size if size != 0 else 0.0)
    return column(out)


def ssim(a: Tensor, b: Tensor, size: int = 11, sigma: float = 1.5, data_range: float = 1.0) -> Tensor:
    """Mean structural similarity (Wang et al. 2004) over the windows that lie inside the map.

    Gaussian windows of `size` pixels, weights that add up to one, K1 = 0.01, K2 = 0.03, no sample correction.
    A map smaller than the window takes the largest odd window that fits.
    """
    h, w = a.shape[-2:]
    while size > min(h, w):
        size -= 2
    half = size // 2
    taps = [math.exp(-((i - half) ** 2) / (2 * sigma**2)) for i in range(size)]
    weights = [[p * q / math.fsum(taps) ** 2 for q in taps] for p in taps]
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    out = []
    for p, q in zip(values(a), values(b), strict=True):
        places = []
        for i in range(h - size + 1):
            for j in range(w - size + 1):
                window = [(weights[u][v], p[i + u][j + v], q[i + u][j + v]) for u in range(size) for v in range(size)]
                mean_p = math.fsum(t * x for t, x, _ in window)
                mean_q = math.fsum(t * y for t, _, y in window)
                var_p = math.fsum(t * (x - mean_p) ** 2 for t, x, _ in window)
                var_q = math.fsum(t * (y - mean_q) ** 2 for t, _, y in window)
                both = math.fsum(t * (x - mean_p) * (y - mean_q) for t, x, y in window)
                above = (2 * mean_p * mean_q + c1) * (2 * both + c2)
                places.append(above / ((mean_p**2 + mean_q**2 + c1) * (var_p + var_q + c2)))
        out.append(math.fsum(places) / len(places))
    return column(out)


def masked(
    image: Tensor,
    grid: Tensor,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Tensor:
    """image (C, H, W) times a map (H, W), pixel by pixel.

    As given, so that what is masked becomes the zero of the normalized image, the mean color; or, with `mean` and
    `std`, in the pixels before normalization, so that it becomes black.
    """
    out = image.double().clone()
    for c in range(len(out)):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                m, x = float(grid[i, j]), float(out[c, i, j])
                if mean is None or std is None:
                    out[c, i, j] = x * m
                else:
                    out[c, i, j] = ((x * std[c] + mean[c]) * m - mean[c]) / std[c]
    return out


def first_largest(numbers: Sequence[float]) -> int:
    return max(range(len(numbers)), key=lambda k: (numbers[k], -k))


def drop_protocol(
    score: Scores,
    images: Tensor,
    maps: Tensor,
    targets: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> dict[str, Tensor]:
    """Average drop, increase, gain and drop in deletion of each image, and the scores they come from.

    `targets` None: the class predicted for the whole image. `score` decides between probability and logit;
    `mean` and `std` mask before normalization. The inverse mask is 1 - m.
    """
    before, after, inverse = [], [], []
    for n, image in enumerate(images):
        whole = score(image.double())
        c = first_largest(whole) if targets is None else targets[n]
        before.append(whole[c])
        after.append(score(masked(image, maps[n].double(), mean, std))[c])
        inverse.append(score(masked(image, 1 - maps[n].double(), mean, std))[c])
    y, o, d = column(before), column(after), column(inverse)
    return {
        "before": y,
        "after": o,
        "after_inverse": d,
        "average_drop": average_drop(y, o),
        "increase_in_confidence": increase_in_confidence(y, o),
        "average_gain": average_gain(y, o),
        "average_drop_in_deletion": average_drop_in_deletion(y, d),
    }
