"""The attention probabilities of a transformer, as nodes of the graph of one forward.

The forward runs in a `TorchFunctionMode`, which sees the attention of any module or plain code: no module is swapped.
The fused kernels hand out no probabilities, so attention is computed in two products there.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .outputs import widen
from .tokens import Layout, find_layout

SOFTMAX = (torch.softmax, Tensor.softmax, functional.softmax, torch.special.softmax)
PLACED = (functional.linear, functional.layer_norm, torch.conv2d)  # what these give tells how many tokens there are
# The same function, which would otherwise hand itself to the mode again and again instead of running inside it.
_HEADS = types.FunctionType(
    functional.multi_head_attention_forward.__code__,
    {**functional.multi_head_attention_forward.__globals__, "has_torch_function": lambda _: False},
    "multi_head_attention_forward",
    functional.multi_head_attention_forward.__defaults__,
)


class Watch(TorchFunctionMode):
    """Keeps each attention between all tokens: `with Watch(...) as watch: forward()`.

    Args:
        batch: B.
        size: of the images, in pixels.
        record: let autograd record from the first attention on.
        cut: make each attention a leaf, so that gradients there know nothing of earlier layers.
        depth: names of the modules that run at the moment, innermost last.
    """

    def __init__(self, batch: int, size: tuple[int, ...], *, record: bool, cut: bool, depth: list[str]) -> None:
        super().__init__()
        self.batch, self.size, self.record, self.cut, self.depth = batch, size, record, cut, depth
        self.seen: list[Tensor] = []
        self.layouts: list[Layout] = []
        self.inside: list[tuple[str, ...]] = []
        self.others: list[tuple[int, ...]] = []
        self.between: list[tuple[int, ...]] = []  # those of the others that came before one that is kept
        self.counts: set[int] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What PyTorch calls in place of any of its functions."""
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        if func is functional.multi_head_attention_forward:
            with self:
                return _HEADS(*args, **kwargs)
        result = func(*args, **kwargs)
        if func in PLACED:
            self._count(result.shape)
        if func in SOFTMAX and (args[1] if len(args) > 1 else kwargs.get("dim")) in (-1, result.dim() - 1):
            return self._kept(result)
        return result

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """softmax(q kᵀ scale + mask) v, in two products."""
        if enable_gqa:
            key, value = (t.repeat_interleave(query.shape[-3] // t.shape[-3], -3) for t in (key, value))
        products = widen((query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.mT)
        if is_causal:
            attn_mask = torch.ones_like(products, dtype=torch.bool).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            products = products.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            products = products + attn_mask
        p = self._kept(products.softmax(-1))
        return functional.dropout(p, dropout_p).to(value.dtype) @ value

    def _count(self, shape: torch.Size) -> None:
        """Keep how many positions a tensor of this shape has, wherever its batch is."""
        if len(shape) == 3 and self.batch in shape[:2]:
            self.counts.add(shape[1] if shape[0] == self.batch else shape[0])
        elif len(shape) == 4:
            self.counts.add(shape[2] * shape[3])

    def _kept(self, p: Tensor) -> Tensor:
        """The probabilities, kept as a node where they are attention between all tokens of every image."""
        n, heads = p.shape[-1], p.numel() // (self.batch * p.shape[-1] ** 2 or 1)
        if p.dim() < 3 or n < 2:
            return p
        layout = find_layout((self.batch, n, 1), self.size)
        square = p.shape[-2] == n and (p.shape[0] == self.batch if p.dim() == 4 else p.dim() == 3)
        if layout is None or not square or not heads or p.shape[0] % self.batch or n not in self.counts:
            self.others.append(tuple(p.shape))
            return p
        if self.record and (self.cut or not p.requires_grad):
            p = p.detach().requires_grad_()
            torch.set_grad_enabled(True)
        self.seen.append(p)
        self.between = list(self.others)
        self.layouts.append(layout)
        self.inside.append(tuple(self.depth))
        return p.clone() if p.requires_grad else p  # what follows may work in place

    def maps(self) -> list[Tensor]:
        """(B, heads, N, N) of each layer.

        Raises:
            ValueError: there is none, or not between the same tokens throughout.
        """
        other = [*self.between, *(shape for shape in self.others if len(shape) > 3 and shape[-1] == shape[-2])]
        if other or len(set(self.layouts)) > 1:
            what = f"attends within windows, channels or groups, a softmax of {other[0]}" if other else "merges tokens"
            raise ValueError(
                f"this network {what}, so its attention maps cannot be combined; use gradcam, layercam or scorecam"
            )
        if not self.seen:
            saw = f" (there is a softmax of shape {self.others[0]})" if self.others else ""
            raise ValueError(
                f"this network has no attention between all tokens of an image{saw}, through "
                "scaled_dot_product_attention or softmax; use gradcam, layercam or scorecam"
            )
        return [p if p.dim() == 4 else p.unflatten(0, (self.batch, -1)) for p in self.seen]
