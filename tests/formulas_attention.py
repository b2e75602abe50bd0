"""Maps from the attention of a transformer, straight from their papers, in float64: see `formulas.py`.

A transformer is given step by step, so that any attention can be put in the place of its own. `legrad` and the others
see one image x (3, H, W) and one target c, and return the map (h, w) of the grid's tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tests.formulas import Grid, Target, score_of


class Block(NamedTuple):
    """A block of pre-norm attention: z + proj(A v), then + mlp. `qkv` gives (N, 3 D): q, k and v."""

    qkv: Callable[[Tensor], Tensor]
    proj: Callable[[Tensor], Tensor]
    mlp: Callable[[Tensor], Tensor]


class Steps(NamedTuple):
    """A transformer: images to tokens (N, D), blocks, and scores (n,) of the last tokens."""

    embed: Callable[[Tensor], Tensor]
    blocks: list[Block]
    heads: int
    end: Callable[[Tensor], Tensor]
    grid: tuple[int, int]
    prefix: int
    class_token: bool = True

    def parts(self, block: Block, z: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """q, k and v of each head, (N, d) each."""
        q, k, v = (part.chunk(self.heads, 1) for part in block.qkv(z).chunk(3, 1))
        return list(zip(q, k, v, strict=True))

    def attention(self, block: Block, z: Tensor) -> Tensor:
        """softmax(q kᵀ / √d) of each head. (heads, N, N)"""
        rows = []
        for q, k, _ in self.parts(block, z):
            e = torch.exp(q @ k.T / math.sqrt(q.shape[1]))
            rows.append(e / e.sum(1, keepdim=True))
        return torch.stack(rows)

    def after(self, block: Block, z: Tensor, attention: Tensor) -> Tensor:
        """The tokens that a block makes with this attention."""
        mixed = [a @ v for a, (_, _, v) in zip(attention, self.parts(block, z), strict=True)]
        z = z + block.proj(torch.cat(mixed, 1))
        return z + block.mlp(z)

    def rows(self) -> list[float]:
        """The share of each token's row: the class token's, or those of the grid alike."""
        cells = self.grid[0] * self.grid[1]
        if self.class_token:
            return [1.0] + [0.0] * (self.prefix + cells - 1)
        return [0.0] * self.prefix + [1 / cells] * cells

    def map(self, values: Sequence[float]) -> Grid:
        """The grid of what the tokens after the prefix have."""
        h, w = self.grid
        return [list(values[self.prefix + i * w : self.prefix + (i + 1) * w]) for i in range(h)]


def layers_of(net: Steps, x: Tensor) -> list[Tensor]:
    """The attention of each layer of an image."""
    found, z = [], net.embed(x)
    for block in net.blocks:
        found.append(net.attention(block, z))
        z = net.after(block, z, found[-1])
    return found


def gradients(net: Steps, x: Tensor, c: Target) -> tuple[list[Tensor], list[Tensor]]:
    """A and dy_c/dA of each layer, y_c the network's score, and all that comes later following the change."""
    attention, slopes = [a.detach() for a in layers_of(net, x)], []
    for at in range(len(net.blocks)):
        z, own = net.embed(x), attention[at].clone().requires_grad_()
        for index, block in enumerate(net.blocks):
            z = net.after(block, z, own if index == at else net.attention(block, z))
        (g,) = torch.autograd.grad(score_of(net.end(z)[None], c)[0], own)
        slopes.append(g)
    return attention, slopes


def legrad(net: Steps, x: Tensor, c: Target, score: str = "mean", layers: list[int] | None = None) -> Grid:
    """Bousselham et al. 2024: the mean over layers, heads and queries of (ds_l/dA_l)⁺.

    s_l is the score of the tokens z_l of layer l, in the place of the last: of their mean, as in the authors' code, or
    of all ("own"). "model": of the last ones, for every layer.
    """
    slopes, z = gradients(net, x, c)[1], net.embed(x).detach()
    if score != "model":
        for index, block in enumerate(net.blocks):
            own = net.attention(block, z).detach().requires_grad_()
            z = net.after(block, z, own)
            asked = z.mean(0, keepdim=True).expand_as(z) if score == "mean" else z
            (slopes[index],) = torch.autograd.grad(score_of(net.end(asked)[None], c)[0], own, retain_graph=True)
            z = z.detach()
    chosen = slopes if layers is None else [slopes[i] for i in layers]
    total = [0.0] * chosen[0].shape[2]
    for slope in chosen:
        heads, n, _ = slope.shape
        for h in range(heads):
            for row in slope[h].tolist():
                for j, value in enumerate(row):
                    total[j] += max(value, 0.0) / (heads * n * len(chosen))
    return net.map(total)


def product(a: list[list[float]], b: list[list[float]]) -> list[list[float]]:
    """The matrix product."""
    columns = list(zip(*b, strict=True))
    return [[math.fsum(p * q for p, q in zip(row, column, strict=True)) for column in columns] for row in a]


def identity(n: int) -> list[list[float]]:
    return [[float(i == j) for j in range(n)] for i in range(n)]


def weighed(net: Steps, matrix: list[list[float]]) -> Grid:
    """The mean of the rows that decide."""
    share = net.rows()
    return net.map([math.fsum(s * row[j] for s, row in zip(share, matrix, strict=True)) for j in range(len(matrix))])


def rollout(net: Steps, x: Tensor, c: Target, heads: str = "mean", discard: float = 0.0) -> Grid:
    """Abnar & Zuidema 2020: R = (A_n + I)/2 ... (A_1 + I)/2, A_l over heads the mean (or max, or min).

    discard: that share of the smallest entries of A_l are zero, but for that of the first token to itself; every row is
    divided by its sum.
    """
    result: list[list[float]] = []
    for layer in layers_of(net, x):
        many = layer.tolist()
        n = len(many[0])
        fuse = {"mean": lambda values: math.fsum(values) / len(values), "max": max, "min": min}[heads]
        fused = [[fuse([head[i][j] for head in many]) for j in range(n)] for i in range(n)]
        order = sorted((fused[i][j], i, j) for i in range(n) for j in range(n))
        for _, i, j in order[: int(discard * n * n)]:
            fused[i][j] = fused[i][j] if (i, j) == (0, 0) else 0.0
        step = [[fused[i][j] + float(i == j) for j in range(n)] for i in range(n)]
        step = [[value / math.fsum(row) for value in row] for row in step]
        result = product(step, result or identity(n))
    return weighed(net, result)


def attentionrelevance(net: Steps, x: Tensor, c: Target) -> Grid:
    """Chefer et al. 2021, eqs. 5-6: R := I, then R := R + E_h[(∇A ⊙ A)⁺] R, layer by layer."""
    r: list[list[float]] = []
    for a, g in zip(*gradients(net, x, c), strict=True):
        terms = (a * g).tolist()
        n = len(terms[0])
        mean = [[math.fsum(max(head[i][j], 0.0) for head in terms) / len(terms) for j in range(n)] for i in range(n)]
        r = r or identity(n)
        r = [[p + q for p, q in zip(*rows, strict=True)] for rows in zip(r, product(mean, r), strict=True)]
    return weighed(net, r)
