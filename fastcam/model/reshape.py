"""A layer's maps by a user's own function, where no rule finds them: `reshape=` of `CAM`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fastcam.ops.spaces import as_pictures

from .outputs import describe, first_tensor, replace_first
from .tokens import Layout

Reshape = Callable[[Any], Tensor]


@dataclass(frozen=True)
class Reshaped(Layout):
    """A layout that a function gives: it picks and orders the entries of the layer's output.

    Attributes:
        see: the layer's tensor -> (B, C, *space); None where the maps are no part of one tensor and cannot be put back.
    """

    see: Callable[[Tensor], Tensor] | None = None

    def maps(self, output: Tensor) -> Tensor:
        """The output as the function shows it. (B, C, h, w)"""
        return as_pictures(output if self.see is None else self.see(output))

    def output(self, maps: Tensor, like: Tensor) -> Tensor:
        """The layer's output with all that the function shows replaced by `maps`, see `Layout.output`.

        The transposed derivative of a function that only picks and orders puts each entry back where it came from.

        Raises:
            ValueError: the function computes something, or joins several tensors.
        """
        see = self.require_one()
        with torch.inference_mode(False), torch.enable_grad():
            x = like.detach().clone().repeat(len(maps) // len(like), *[1] * (like.dim() - 1)).requires_grad_()
            seen = see(x)
            new = self.spread(maps).to(seen.dtype).clone()
            (picked,) = torch.autograd.grad(seen, x, torch.ones_like(seen), retain_graph=True)
            (placed,) = torch.autograd.grad(seen, x, new)
        if not bool(((picked == 0) | (picked == 1)).all()):
            raise self._cannot("scales, adds or repeats entries")
        return torch.where(picked > 0, placed, x.detach())

    def require_one(self) -> Callable[[Tensor], Tensor]:
        """The function; raises where the maps are of several tensors."""
        if self.see is None:
            raise self._cannot("joins several tensors, or shows another one than the first")
        return self.see

    @staticmethod
    def _cannot(why: str) -> ValueError:
        return ValueError(
            f"reshape= {why}, so a cell or channel of its maps cannot be switched off in the network; use a method "
            "that masks the image, or only looks (scorecam, eigencam)"
        )


def joined(reshape: Reshape, output: Any) -> Tensor | None:
    """The maps of an output that are no part of its first tensor, such as a feature pyramid's; None of any other."""
    if isinstance(output, Tensor) or (not isinstance(output, Mapping) and _shows_first(reshape, output)):
        return None
    maps = reshape(output)
    if not isinstance(maps, Tensor):
        raise ValueError(f"reshape= must give maps (B, C, h, w) of a {describe(output)}, it gave a {describe(maps)}")
    return maps


def _shows_first(reshape: Reshape, output: Any) -> bool:
    """Whether the function shows the output's first tensor, where the network is cut and differentiated."""
    first = first_tensor(output)
    if first is None or not first.is_floating_point():
        return False
    with torch.inference_mode(False), torch.enable_grad():
        leaf = first.detach().clone().requires_grad_()
        maps = reshape(replace_first(output, leaf))
        if not isinstance(maps, Tensor) or not maps.requires_grad:
            return False
        return torch.autograd.grad(maps.sum(), leaf, retain_graph=True, allow_unused=True)[0] is not None


def layout_by(reshape: Reshape, output: Any, tensor: Tensor, usual: Layout | None) -> Layout:
    """The layout of a function on this output; the usual one where that shows the same.

    Args:
        reshape: what the layer gives -> (B, C, h, w), (B, C, l) or (B, C, d, h, w).
        output: as the layer gave it; what `joined` made of one with names.
        tensor: its first tensor, or the same.
        usual: what `find_layout` says of it.

    Raises:
        ValueError: the function gives something else.
    """

    def in_place(t: Tensor) -> Tensor:
        return reshape(replace_first(output, t))

    one = isinstance(output, Tensor)
    see = in_place if not one else None if output is tensor else reshape
    with torch.no_grad():
        maps = tensor if see is None else see(tensor)
    if not isinstance(maps, Tensor) or not 3 <= maps.dim() <= 5 or len(maps) != len(tensor):
        raise ValueError(
            f"reshape= must give maps (B, C, h, w) of what the layer gives, a {describe(output)}; it gave a "
            f"{describe(maps)}"
        )
    if usual is not None and see is reshape:
        own, shown = usual.maps(tensor), as_pictures(maps)
        if own.shape == shown.shape and torch.equal(own, shown):
            return usual
    return replace(Reshaped.of("reshaped", tuple(maps.shape[2:])), see=see)
