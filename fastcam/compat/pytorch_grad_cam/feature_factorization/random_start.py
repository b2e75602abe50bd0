"""Non-negative matrix factorization from scikit-learn's random start, by the steps it takes from there."""

from __future__ import annotations

import numpy as np

STEPS = 200
TOLERANCE = 1e-4


def factor_from(v: np.ndarray, components: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """V = W H, each row of one factor at its best in turn, until the steps are small against the first one.

    The start is |N(0, 1)| sqrt(mean V / K) from NumPy's generator, the stop where the sum of projected gradients has
    fallen to 1e-4 of what it was: `sklearn.decomposition.NMF(K, init="random", random_state=seed)`, whose local optimum
    this one is. `fastcam.factorize` starts from singular vectors.

    Args:
        v: (N, C), not negative, float32 or float64.
        components: K
        seed: of the start.

    Returns:
        W (N, K) and H (K, C).
    """
    generator = np.random.RandomState(seed)  # the stream that scikit-learn draws from
    scale = np.sqrt(v.mean() / components)
    h = np.abs(scale * generator.standard_normal((components, v.shape[1])).astype(v.dtype))
    w = np.abs(scale * generator.standard_normal((v.shape[0], components)).astype(v.dtype)).T.copy()
    first = None
    for _ in range(STEPS):
        moved = step(w, h @ v.T, h @ h.T) + step(h, w @ v, w @ w.T)
        first = moved if first is None else first
        if moved <= TOLERANCE * first:
            break
    return w.T, h


def step(rows: np.ndarray, mixed: np.ndarray, gram: np.ndarray) -> float:
    """R_k = max(0, R_k - (G_k R - M_k) / G_kk), row after row, in place; a row with G_kk = 0 stays.

    Args:
        rows: R (K, n)
        mixed: M (K, n), the other factor times V.
        gram: G (K, K), the other factor's inner products.

    Returns:
        The sum of |G_k R - M_k|, each before its row moves; where R is zero, of negative ones only, which lift it.
    """
    curvature = gram.diagonal()
    inverse = np.divide(1, curvature, out=np.zeros_like(curvature), where=curvature != 0)[:, None]
    gram, mixed, before, moves = gram * inverse, mixed * inverse, rows.copy(), np.empty_like(rows)
    for row, move, weights, wanted in zip(rows, moves, gram, mixed, strict=True):
        np.dot(weights, rows, out=move)
        np.subtract(move, wanted, out=move)
        np.subtract(row, move, out=row)
        np.maximum(row, 0, out=row)
    return float(np.abs(moves * ((before > 0) | (moves < 0))).sum(1) @ curvature)
