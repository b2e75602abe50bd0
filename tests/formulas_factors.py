"""Non-negative matrix factorization again, in plain loops over float64: NNDSVD, then HALS."""

from __future__ import annotations

import math

import numpy as np

Matrix = list[list[float]]


def positive(values: list[float], sign: float) -> list[float]:
    return [max(sign * value, 0.0) for value in values]


def norm(values: list[float]) -> float:
    return math.sqrt(math.fsum(value * value for value in values))


def start(v: Matrix, count: int) -> tuple[Matrix, Matrix]:
    """Boutsidis and Gallopoulos 2008: W (count, N) and H (count, C), with all singular vectors of LAPACK."""
    u, s, t = (part.tolist() for part in np.linalg.svd(np.array(v), full_matrices=False))
    w, h = [], []
    for k in range(count):
        x, y = [row[k] for row in u], t[k]
        if k == 0:
            sides = [([abs(e) for e in x], [abs(e) for e in y])]
        else:
            sides = [(positive(x, sign), positive(y, sign)) for sign in (1.0, -1.0)]
        x, y = max(sides, key=lambda side: norm(side[0]) * norm(side[1]))
        scale = math.sqrt(s[k] * norm(x) * norm(y))
        w.append([scale * e / norm(x) for e in x])
        h.append([scale * e / norm(y) for e in y])
    return w, h


def hals(v: Matrix, count: int, steps: int) -> tuple[Matrix, Matrix, float]:
    """Cichocki and Phan 2009: each row of W, then each row of H, at its least squares with all others fixed.

    Returns:
        W (count, N) with rows of maximum 1, H (count, C), in the order of their size, and |V - W H| / |V|.
    """
    n, c = len(v), len(v[0])
    w, h = start(v, count)
    for _ in range(steps):
        for k in range(count):
            size = math.fsum(e * e for e in h[k])
            for i in range(n):
                rest = [v[i][j] - sum(w[m][i] * h[m][j] for m in range(count) if m != k) for j in range(c)]
                w[k][i] = max(0.0, math.fsum(r * e for r, e in zip(rest, h[k], strict=True)) / size)
        for k in range(count):
            size = math.fsum(e * e for e in w[k])
            for j in range(c):
                rest = [v[i][j] - sum(w[m][i] * h[m][j] for m in range(count) if m != k) for i in range(n)]
                h[k][j] = max(0.0, math.fsum(r * e for r, e in zip(rest, w[k], strict=True)) / size)
    residual = [v[i][j] - sum(w[k][i] * h[k][j] for k in range(count)) for i in range(n) for j in range(c)]
    for k in range(count):
        peak = max(w[k])
        w[k], h[k] = [e / peak for e in w[k]], [e * peak for e in h[k]]
    order = sorted(range(count), key=lambda k: -norm(w[k]) * norm(h[k]))
    return [w[k] for k in order], [h[k] for k in order], norm(residual) / norm([e for row in v for e in row])
