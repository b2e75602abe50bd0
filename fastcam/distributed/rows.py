"""Rows as columns: an image by a method each, joined over methods, batches and shards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Columns = dict[str, Any]


def interleave(values: Mapping[str, Mapping[str, Tensor]], shared: Mapping[str, Sequence[Any]]) -> Columns:
    """The rows of a batch, image by image and within an image method by method.

    Args:
        values: by method and name, (B,) or (B, n); a name that a method lacks is NaN in its rows.
        shared: by name, what an image's rows have in common, B entries each.

    Returns:
        The columns of `shared`, "method", and those of `values`.
    """
    methods = list(values)
    columns: Columns = {name: [entry for entry in column for _ in methods] for name, column in shared.items()}
    columns["method"] = methods * len(next(iter(shared.values())))
    for name in dict.fromkeys(name for own in values.values() for name in own):
        like = next(own[name] for own in values.values() if name in own)
        each = [own.get(name, torch.full_like(like, torch.nan)).detach().cpu().double() for own in values.values()]
        columns[name] = torch.stack(each, 1).flatten(0, 1)
    return columns


def join(pieces: Iterable[Columns]) -> Columns:
    """The rows of several pieces, one after the other; numbers that a piece lacks are NaN in its rows.

    Args:
        pieces: columns of equal length each; a name stands for lists or for tensors (rows,) or (rows, n).

    Returns:
        All columns of all pieces, in the order in which they first appear.
    """
    found = [(piece, height(piece)) for piece in pieces if piece]
    joined: Columns = {}
    for name, first in {name: column for piece, _ in reversed(found) for name, column in piece.items()}.items():
        if isinstance(first, Tensor):
            empty = first[:0]
            parts = [piece.get(name, empty.new_full((rows, *first.shape[1:]), torch.nan)) for piece, rows in found]
            joined[name] = torch.cat(parts)
        else:
            joined[name] = [entry for piece, rows in found for entry in piece.get(name, [None] * rows)]
    order = dict.fromkeys(name for piece, _ in found for name in piece)
    return {name: joined[name] for name in order}


def height(columns: Columns) -> int:
    """How many rows there are."""
    return len(next(iter(columns.values()))) if columns else 0
