"""Score-CAM of a few masks, in loops: which are scored, and what the others are taken to score."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from tests.formulas import Grid, Halves, Target, combine, scale, zeros
from tests.formulas_scores import image_probabilities, image_scores, masks_of, softmax, times

Row = list[float]


def distance(one: Row, other: Row) -> float:
    return math.sqrt(math.fsum((a - b) ** 2 for a, b in zip(one, other, strict=True)))


def deviation(row: Row) -> float:
    mean = math.fsum(row) / len(row)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in row) / len(row))


def choose(masks: list[Row], weights: Row, count: int) -> list[int]:
    """The heaviest, then the one of the largest weight times distance to the nearest chosen; the first of equals."""
    chosen: list[int] = []
    while len(chosen) < count:
        best, most = -1, -1.0
        for k, mask in enumerate(masks):
            if k in chosen:
                continue
            far = min((distance(mask, masks[c]) for c in chosen), default=1.0)
            if weights[k] * far > most:
                best, most = k, weights[k] * far
        chosen.append(best)
    return sorted(chosen)


def solve(matrix: Grid, right: Row) -> Row:
    """Gaussian elimination, the largest pivot of a column first."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    n = len(rows)
    for i in range(n):
        p = max(range(i, n), key=lambda r: abs(rows[r][i]))
        rows[i], rows[p] = rows[p], rows[i]
        for r in range(n):
            if r != i:
                factor = rows[r][i] / rows[i][i]
                rows[r] = [a - factor * b for a, b in zip(rows[r], rows[i], strict=True)]
    return [rows[i][n] / rows[i][i] for i in range(n)]


def estimate(masks: list[Row], chosen: list[int], scores: Row) -> Row:
    """Simple kriging with a Matérn 3/2 covariance: its length twice the root mean square distance of two masks."""
    pairs = [distance(a, b) ** 2 for a in masks for b in masks]
    length = 2 * math.sqrt(math.fsum(pairs) / len(pairs))

    def covariance(a: int, b: int) -> float:
        r = math.sqrt(3) * distance(masks[a], masks[b]) / length
        return (1 + r) * math.exp(-r)

    mean = math.fsum(scores) / len(scores)
    within = [[covariance(a, b) + (1e-3 if a == b else 0.0) for b in chosen] for a in chosen]
    solved = solve(within, [s - mean for s in scores])
    guessed = [
        mean + math.fsum(covariance(k, c) * v for c, v in zip(chosen, solved, strict=True)) for k in range(len(masks))
    ]
    for c, s in zip(chosen, scores, strict=True):
        guessed[c] = s
    return guessed


def masks_and_weights(a: list[Grid], flat: list[bool]) -> tuple[list[Row], Row, list[int]]:
    """The distinct masks of channels that vary, the sum of these channels' deviations, and each channel's mask."""
    masks: list[Row] = []
    weights: Row = []
    place = []
    for k, grid in enumerate(a):
        if flat[k]:
            place.append(-1)
            continue
        mask = [value for row in scale(grid) for value in row]
        if mask not in masks:
            masks.append(mask)
            weights.append(0.0)
        place.append(masks.index(mask))
        weights[place[k]] += deviation([value for row in grid for value in row])
    return masks, weights, place


def budgeted(net: Halves, x: Tensor, budget: int, score: Callable[[list[Tensor]], Row]) -> tuple[Row, list[Grid]]:
    """A score of each channel, of which only `budget` masks and the empty one are scored, and the maps."""
    a, up, flat = masks_of(net, x)
    masks, weights, place = masks_and_weights(a, flat)
    chosen = choose(masks, weights, budget)
    seen = score([times(x, scale(up[place.index(c)])) for c in chosen])
    scores = estimate(masks, chosen, seen)
    (empty,) = score([times(x, zeros(*x.shape[-2:]))])
    return [empty if at < 0 else scores[at] for at in place], a


def scorecam(net: Halves, x: Tensor, c: Target, budget: int) -> Grid:
    scores, a = budgeted(net, x, budget, lambda images: image_scores(net, images, c))
    return combine(softmax(scores), a)


def official(net: Halves, x: Tensor, c: int, budget: int) -> Grid:
    scores, a = budgeted(net, x, budget, lambda images: image_probabilities(net, images, c))
    _, _, flat = masks_of(net, x)
    return combine([0.0 if flat[k] else score for k, score in enumerate(scores)], a)


def iscam(net: Halves, x: Tensor, c: Target, budget: int, samples: int) -> Grid:
    def mean_score(images: list[Tensor]) -> Row:
        scaled = [[image * (i * (i + 1) / 2 / samples) for i in range(1, samples + 1)] for image in images]
        return [math.fsum(image_scores(net, of, c)) / samples for of in scaled]

    scores, a = budgeted(net, x, budget, mean_score)
    return combine(softmax(scores), a)
