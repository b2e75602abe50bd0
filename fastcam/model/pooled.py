"""The pooled tail: scores that are h(mean_ij psi(A_ij)), found by structure and proved on each forward.

Behind such a tail every gradient and every masked score is a small matrix product: a gradient is a row of
the head's weights, and one cell or channel taken away shifts the pooled vector by a known amount.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from fastcam.ops.spaces import as_pictures

from .capture import Captured
from .outputs import widen
from .structure import Event, Structure, candidates, fits, takes_maps

# Of the largest entry. float32: ten times what pooling in another order costs over 49..3136 cells.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}
Score = Callable[[Any], Tensor]


@dataclass
class PooledTail:
    """A proved pooled tail of one forward.

    Attributes:
        structure: its modules.
        captured: the layer's output of this forward.
    """

    structure: Structure
    captured: Captured
    kind = "pooled"

    @cached_property
    def linear(self) -> tuple[Tensor, Tensor | None] | None:
        """(W (classes, D), b (classes,) or None) of a linear head in float32, or None for another head.

        A head of nothing at all (SqueezeNet pools the class scores) is the identity, with W = I.
        """
        module = self.structure.linear
        if module is not None:
            bias = module.bias
            return widen(module.weight.flatten(1)), None if bias is None else widen(bias)
        return (self.structure.unit(self.pooled), None) if self.structure.empty else None

    @property
    def identity(self) -> bool:
        """Whether psi does nothing."""
        return not self.structure.psi and not self.structure.relu

    def features(self, maps: Tensor) -> Tensor:
        """Psi at each position.

        Args:
            maps: (n, C, h, w)

        Returns:
            (n, D, h, w)
        """
        layout, x = self.captured.layout, maps
        if self.structure.psi:
            # A copy, because an activation may work in place.
            x = layout.positions(maps).clone()
            for module in self.structure.psi:
                x = _call(module, x)
            x = layout.from_positions(x)
        return x.relu() if self.structure.relu else x

    def head(self, pooled: Tensor) -> Tensor:
        """The logits of pooled vectors.

        Args:
            pooled: (n, D)

        Returns:
            (n, classes) float32
        """
        if self.structure.linear is not None:
            assert self.linear is not None
            weight, bias = self.linear
            return nn.functional.linear(pooled.to(weight.dtype), weight, bias)
        x = pooled
        for module in self.structure.head:
            if isinstance(module, nn.Flatten):
                continue
            flat = isinstance(module, nn.Linear) or (isinstance(module, nn.LayerNorm) and not takes_maps(module))
            ones = [1] * len(self.captured.layout.shape)
            x = _call(module, x.flatten(1) if flat else x.reshape(*x.shape[:2], *ones))
        return widen(x.flatten(1))

    def __call__(self, maps: Tensor, image: int = 0) -> Tensor:
        """The logits of activations: h(mean psi(A)).

        Args:
            maps: (n, C, h, w)
            image: unused; nothing bypasses a pooled tail.

        Returns:
            (n, classes)
        """
        return self.head(widen(self.features(maps)).mean((-2, -1)))

    @cached_property
    def pooled(self) -> Tensor:
        """The pooled vector of this forward. (B, D) float32"""
        return widen(self.features(self.captured.maps.detach())).mean((-2, -1))

    @cached_property
    def zero(self) -> Tensor:
        """psi(0). (D,) float32"""
        maps = self.captured.maps[:1].detach()
        return widen(self.features(torch.zeros_like(maps))[0, :, 0, 0])

    def without_channels(self, image: int) -> Tensor:
        """Logits of one image with each channel set to zero, behind a channel-wise psi.

        Taking channel k away moves the pooled vector by psi_k(0) - q_k in that channel alone.

        Returns:
            (C, classes)
        """
        shift = self.zero - self.pooled[image]
        if self.linear is not None:
            return self.head(self.pooled[image : image + 1]) + shift[:, None] * self.linear[0].T
        return self.head(self.pooled[image] + shift.diag())

    def with_one_cell(self, kernel: str) -> Tensor:
        """Pooled vectors of the activations with one cell on, all others zero (see `ops.mask_cells`).

        Args:
            kernel: "point", "gaussian" or "neighbors".

        Returns:
            (B, h*w, D)
        """
        maps, layout = self.captured.maps.detach(), self.captured.layout
        cells, axes = maps.shape[-2] * maps.shape[-1], len(layout.shape)
        zero = self.zero[:, None, None]

        def above_zero(scale: float) -> Tensor:
            return widen(self.features(maps * scale)) - zero

        if kernel == "point":
            pooled = above_zero(1.0)
        else:
            pooled = torch.zeros_like(zero)
            for moved in range(axes + 1):  # neighbors that lie off along so many axes
                offsets = [o for o in itertools.product((-1, 0, 1), repeat=axes) if sum(map(abs, o)) == moved]
                own = layout.spread(above_zero(0.5 ** (axes + moved)))
                if kernel == "gaussian":  # the cell's own vector lands on each of its neighbors inside the map
                    own = own * _around(own.new_ones(1, 1, *layout.shape), offsets)
                else:
                    own = _around(own, offsets)
                pooled = pooled + as_pictures(own)
        return (zero + pooled / cells).flatten(2).mT

    def gradients(self, maps: Tensor, score: Score, classes: Tensor | None) -> Tensor:
        """dS/dA from the head's weights; only psi is differentiated, where there is one.

        Args:
            maps: A (B, C, h, w)
            score: logits (B, classes) -> (B, T)
            classes: (B, T) when the score is these classes' logits, else None.

        Returns:
            (B, T, C, h, w), or (B, T, C, 1, 1) where it is the same at every cell.
        """
        cells = maps.shape[-2] * maps.shape[-1]
        if self.linear is not None and classes is not None:
            v = self.linear[0][classes] / cells
        else:
            with torch.enable_grad():
                q = self.pooled.detach().requires_grad_()
                s = score(self.head(q))
                rows = [torch.autograd.grad(s[:, t].sum(), q, retain_graph=True)[0] for t in range(s.shape[1])]
            v = torch.stack(rows, 1) / cells
        if self.identity:
            return v[..., None, None]
        if not self.structure.psi:
            return (maps > 0)[:, None] * v[..., None, None]
        with torch.enable_grad():
            a = maps.detach().requires_grad_()
            f = self.features(a)
            pulled = [
                torch.autograd.grad(f, a, v[:, t, :, None, None].expand_as(f).to(f.dtype), retain_graph=True)[0]
                for t in range(v.shape[1])
            ]
        return widen(torch.stack(pulled, 1))


def _around(maps: Tensor, offsets: Sequence[tuple[int, ...]]) -> Tensor:
    """The sum of a cell's neighbors at these offsets, zero outside the map. (n, D, *space)"""
    axes = tuple(range(2, maps.dim()))
    padded = nn.functional.pad(maps, (1, 1) * len(axes))
    shifted = [padded.roll([-step for step in offset], axes) for offset in offsets]
    inside = (..., *[slice(1, -1)] * len(axes))
    return torch.stack([one[inside] for one in shifted]).sum(0)


def _call(module: nn.Module, x: Tensor) -> Tensor:
    """Run a module in its own precision, whatever autocast gave in the forward."""
    weight = next(module.parameters(recurse=False), None)
    return module(x if weight is None else x.to(weight.dtype))


def prove(
    structure: Structure, captured: Captured, given: Tensor | None, gave: Tensor | None, logits: Any
) -> PooledTail | None:
    """The pooled tail, if this forward confirms it.

    Args:
        structure: to test.
        captured: the layer's output.
        given: what the head's first module was given in this forward; None where there is no head.
        gave: what a linear head gave in this forward, if that is known; otherwise the head runs once more.
        logits: of this forward.

    Returns:
        The tail when the pooled psi(A) equals `given` and the head's output equals `logits`, else None.
    """
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        return None
    if not all(fits(module, captured.layout) for module in structure.psi):
        return None
    tail = PooledTail(structure, captured)
    try:
        with torch.inference_mode(False), torch.no_grad():
            pooled = tail.pooled
            if structure.head and (given is None or given.flatten(1).shape != pooled.shape):
                return None
            if given is not None and not _close(pooled, given.flatten(1), captured.output.dtype):
                return None
            if gave is not None:
                return tail if gave is logits or torch.equal(gave.flatten(1), logits) else None
            return tail if _close(tail.head(pooled), logits, _coarser(captured.output, logits)) else None
    except (RuntimeError, TypeError, ValueError, IndexError):
        return None  # modules that cannot be called on their own are no pooled tail


def find(events: list[Event], captured: Captured, logits: Any) -> PooledTail | None:
    """The pooled tail among what ran after the layer, or None."""
    for structure in candidates(events):
        first = next((e for e in events if e.module in structure.head[:1]), None)
        tail = prove(structure, captured, None if first is None else first.vector, None, logits)
        if tail is not None:
            return tail
    return None


def _coarser(a: Tensor, b: Tensor) -> torch.dtype:
    return max(a.dtype, b.dtype, key=lambda dtype: TOLERANCE.get(dtype, 0.0))


def _close(a: Tensor, b: Tensor, dtype: torch.dtype) -> bool:
    if a.shape != b.shape:
        return False
    b = widen(b.detach())
    error, scale = (torch.linalg.vector_norm(t, torch.inf).item() for t in (a - b, b))
    return error <= TOLERANCE.get(dtype, 0.0) * scale
