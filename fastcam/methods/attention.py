"""Maps of transformers, from the attention between all tokens: relevance (B, T, N) of each of them."""

from __future__ import annotations

import torch
from torch import Tensor

from .evidence import Options
from .evidence_derivatives import Attention, number, whole
from .registry import method


def check_layers(options: Options) -> None:
    """None, or indices of layers."""
    layers = options["layers"]
    if layers is None or whole(layers):
        return
    if not isinstance(layers, (list, tuple, range)) or not layers or not all(map(whole, layers)):
        raise ValueError(
            f"legrad: layers={layers!r} must be None for all, or a list of indices such as [-2, -1] for the last two"
        )


@method(
    "legrad",
    Attention(gradients=True),
    paper="Bousselham 2024, arXiv:2404.03214",
    gives_map=True,
    check=check_layers,
    score=("mean", "own", "model"),
    layers=None,
)
def legrad(p: tuple[Tensor, ...], g: tuple[Tensor, ...], query: Tensor) -> Tensor:
    """L = mean_l mean_(heads, queries) relu(ds_l / dA_l), A_l the attention of layer l, s_l the score of its tokens

    s_l is what follows the last block, asked of the tokens that block l gives: of their mean, as the authors' code does
    for class-token networks ("mean"), or pooled as the network does it ("own"). "model" takes the network's score for
    every layer. `layers` chooses some of them by index.
    """
    return torch.stack([one.relu().mean((-3, -2)) for one in g]).mean(0)


def check_rollout(options: Options) -> None:
    """A share of attention."""
    discard = options["discard"]
    if not number(discard) or not 0 <= discard < 1:
        raise ValueError(f"rollout: discard={discard!r} must be a share of the attention to drop, from 0 up to 1")


@method(
    "rollout",
    Attention(gradients=False),
    paper="Abnar 2020, arXiv:2005.00928, eq. 1",
    clip="never",
    gives_map=True,
    check=check_rollout,
    heads=("mean", "max", "min"),
    discard=0.0,
)
def rollout(p: tuple[Tensor, ...], query: Tensor, *, heads: str = "mean", discard: float = 0.0) -> Tensor:
    """L = the query's row of (A_n + I) / 2 ... (A_1 + I) / 2, A_l the heads' mean attention; the same for every class

    heads="max" or "min" fuses the heads that way; discard=0.9 sets the lowest 9 of 10 entries of each fused A_l to
    zero, but never the class token's attention to itself. Rows are then scaled to a sum of one again.
    """
    row = query
    for attention in reversed(p):
        fused = attention.mean(-3) if heads == "mean" else getattr(attention, f"a{heads}")(-3)
        dropped = int(discard * fused.shape[-1] ** 2)
        if dropped:
            flat = fused.flatten(-2)
            lowest = flat.topk(dropped, largest=False).indices
            kept = torch.ones_like(flat).scatter(-1, lowest, 0.0)
            kept[..., 0] = 1
            fused = (flat * kept).view_as(fused)
        step = fused + torch.eye(fused.shape[-1], dtype=fused.dtype, device=fused.device)
        step = step / step.sum(-1, keepdim=True)
        row = row.to(step.dtype) @ step if row is query else (row[..., None, :] @ step)[..., 0, :]
    return row


@method(
    "attentionrelevance",
    Attention(gradients=True),
    paper="Chefer 2021, arXiv:2103.15679, eq. 5-6",
    clip="never",
    gives_map=True,
)
def attentionrelevance(p: tuple[Tensor, ...], g: tuple[Tensor, ...], query: Tensor) -> Tensor:
    """L = the query's row of R, R = I, then R + mean_heads relu(g_l A_l) R for each layer, g_l = dS / dA_l"""
    row: Tensor | None = None  # the product from the last layer back, of which one row is enough
    for attention, gradient in zip(reversed(p), reversed(g), strict=True):
        mean = (gradient * attention).relu().mean(-3)
        row = query.to(mean.dtype).expand(mean.shape[:-1]) if row is None else row
        row = row + (row[..., None, :] @ mean)[..., 0, :]
    assert row is not None
    return row
