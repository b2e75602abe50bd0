"""Counterfactual explanations again, in plain loops: every swap of cells is tried by running the tail on it."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from tests.formulas import Halves, ratio


class Found(NamedTuple):
    """Of one pair: ((row, column) here, (row, column) there) of each swap, probabilities, when the class changed."""

    swaps: list[tuple[tuple[int, int], tuple[int, int]]]
    probabilities: list[float]
    flip: int
    margins: list[float]  # by how much each swap beats the second best


def probability(net: Halves, a: Tensor, x: Tensor, c: int) -> list[float]:
    with torch.no_grad():
        return net.tail(a, x.expand(len(a), *x.shape)).softmax(1)[:, c].tolist()


def search(net: Halves, x: Tensor, other: Tensor, c: int, swaps: int | None, reuse: bool = False) -> Found:
    """Goyal et al. 2019, sec. 3: edit f(I) by the (i, j) with the largest g_c', until argmax g is c'."""
    with torch.no_grad():
        a, b = net.head(x[None])[0], net.head(other[None])[0]
    cells = list(product(range(a.shape[1]), range(a.shape[2])))
    here, there = list(cells), list(cells)
    found = Found([], probability(net, a[None], x, c), -1, [])
    flip = -1
    for step in range(len(cells) if swaps is None else swaps):
        tried = []
        for i in here:
            edits = a.repeat(len(there), 1, 1, 1)
            for edit, j in zip(edits, there, strict=True):
                edit[:, i[0], i[1]] = b[:, j[0], j[1]]
            tried += [(p, i, j) for p, j in zip(probability(net, edits, x, c), there, strict=True)]
        p, i, j = max(tried, key=lambda one: one[0])
        second = sorted(one[0] for one in tried)[-2:]
        a[:, i[0], i[1]] = b[:, j[0], j[1]]
        here.remove(i)
        if not reuse:
            there.remove(j)
        found.swaps.append((i, j))
        found.probabilities.append(p)
        found.margins.append(1 - ratio(second[0], second[-1]))
        with torch.no_grad():
            won = int(net.tail(a[None], x[None]).argmax()) == c
        if won and flip < 0:
            flip = step + 1
            if swaps is None:
                break
    return found._replace(flip=flip)
