"""DIRECT, a global search by dividing rectangles, which asks for the values of many points at a time."""

from __future__ import annotations

import itertools
import math

Point = tuple[float, float]
ALIKE = 1e-13  # values that count as equal


class Direct:
    """The least value of a function on the unit square: ask for points, tell their values, until `done`.

    The square is divided into rectangles with a value at each center. Every round divides those that could hold the
    least value for some slope of the function: (size, value) on the lower right of the convex hull of all, where that
    slope promises to gain `eps` of the least value found.
    Source: Jones, Perttunen and Stuckman 1993, J. Optim. Theory Appl. 79, sec. 3 and 4.

    Args:
        count: points to evaluate in all; the last round is cut there.
        eps: the least gain worth a division, as a share of the least value.
    """

    def __init__(self, count: int, eps: float) -> None:
        self.count, self.eps = count, eps
        self.points: list[Point] = []
        self.values: list[float] = []
        self._thirds: list[tuple[int, int]] = []  # how often each rectangle was cut into thirds, along x and along y
        self._plan: list[tuple[int, list[int]]] = []

    @property
    def done(self) -> bool:
        """Whether all points are evaluated."""
        return len(self.points) >= self.count

    def ask(self) -> list[Point]:
        """The points of the next round, not more than are left."""
        if not self.points:
            return [(0.5, 0.5)]
        self._plan, asked = [], []
        for rectangle in self._promising():
            cuts = self._thirds[rectangle]
            axes = [axis for axis in (0, 1) if cuts[axis] == min(cuts)]
            self._plan.append((rectangle, axes))
            for axis, side in itertools.product(axes, (1, -1)):
                step = side * 3.0 ** -(min(cuts) + 1)
                x, y = self.points[rectangle]
                asked.append((x + step, y) if axis == 0 else (x, y + step))
        return asked[: self.count - len(self.points)]

    def tell(self, points: list[Point], values: list[float]) -> None:
        """Take the values of the points asked for.

        Args:
            points: as `ask` gave them.
            values: of each.
        """
        first = len(self.points)
        self.points, self.values = self.points + points, self.values + values
        self._thirds += [(0, 0)] * len(points)
        if self.done:
            return
        for rectangle, axes in self._plan:
            own = {axis: (first + 2 * k, first + 2 * k + 1) for k, axis in enumerate(axes)}
            first += 2 * len(axes)
            found = {axis: min(self.values[index] for index in pair) for axis, pair in own.items()}
            cuts = self._thirds[rectangle]
            for axis in sorted(axes, key=found.__getitem__):  # the better pair gets the larger rectangles
                cuts = (cuts[0] + 1, cuts[1]) if axis == 0 else (cuts[0], cuts[1] + 1)
                for index in own[axis]:
                    self._thirds[index] = cuts
            self._thirds[rectangle] = cuts
        self._plan = []

    def _promising(self) -> list[int]:
        """The rectangles to divide, the largest first."""
        sizes: dict[tuple[int, int], list[int]] = {}
        for index, (x, y) in enumerate(self._thirds):
            sizes.setdefault((min(x, y), max(x, y)), []).append(index)
        reach = {cuts: math.hypot(3.0 ** -cuts[0], 3.0 ** -cuts[1]) / 2 for cuts in sizes}
        low = {cuts: min(self.values[index] for index in same) for cuts, same in sizes.items()}
        least, chosen = min(self.values), []
        for cuts in sorted(sizes, key=reach.__getitem__, reverse=True):
            slopes = {
                other: (low[other] - low[cuts]) / (reach[other] - reach[cuts]) for other in sizes if other != cuts
            }
            below = max((k for other, k in slopes.items() if reach[other] < reach[cuts]), default=-math.inf)
            above = min((k for other, k in slopes.items() if reach[other] > reach[cuts]), default=math.inf)
            gains = above == math.inf or low[cuts] - above * reach[cuts] <= least - self.eps * abs(least)
            if above > 0 and below <= above and gains:
                chosen += [index for index in sizes[cuts] if self.values[index] - low[cuts] <= ALIKE]
        return chosen
