"""Convolutions that do the activation and the addition behind them in the same pass: torch's oneDNN kernels.

They are those that `torch.compile` uses on a CPU, and float32's results differ from torch's by rounding alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.nn import functional

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
PACK_ROWS = 8  # weights are laid out for a batch; other batches run as well
Unary = tuple[str, list[float], str]  # oneDNN's name of an activation, its numbers, its variant
NOTHING: Unary = ("none", [], "")
BEHIND_ADDITION = ("none", "relu")  # other activations have no kernel there


class Convolution(nn.Module):
    """A convolution, what is added to it, and the activation of both.

    Args:
        like: whose stride, dilation and groups it has.
        padding: (top and bottom, left and right)
        weight: (out, in / groups, h, w)
        bias: (out,) or None.
        unary: the activation.
        size: (C, H, W) of its input.
    """

    def __init__(
        self,
        like: nn.Conv2d,
        padding: tuple[int, ...],
        weight: Tensor,
        bias: Tensor | None,
        unary: Unary,
        size: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.geometry = ([*padding], [*like.stride], [*like.dilation], like.groups)
        self.dtype, self.unary, self.bias = weight.dtype, unary, bias
        # A plain attribute: a packed weight has no storage that a parameter could stand for.
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self.geometry, [PACK_ROWS, *size])

    def forward(self, rows: Tensor, other: Tensor | None = None) -> Tensor:
        """unary(rows * weight + bias + other); (n, C, H, W) -> (n, out, H', W')"""
        rows, (kind, numbers, variant) = rows.to(self.dtype), self.unary
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(
                rows, self.weight, self.bias, *self.geometry, kind, numbers, variant
            )
        unary = (None, [], None) if kind == "none" else self.unary
        return torch.ops.mkldnn._convolution_pointwise.binary(
            rows, other.to(self.dtype), self.weight, self.bias, *self.geometry, "add", 1.0, *unary
        )


def unary_of(node: Node, module: nn.Module | None) -> Unary | None:
    """The activation that a node of a graph is, or None where there is no kernel for it.

    Args:
        node: of a traced network.
        module: that it calls, if any.
    """
    if module is not None:
        kinds: dict[type, Callable[[Any], Unary]] = {
            nn.ReLU: lambda m: ("relu", [], ""),
            nn.ReLU6: lambda m: ("hardtanh", [0.0, 6.0], ""),
            nn.Hardtanh: lambda m: ("hardtanh", [m.min_val, m.max_val], ""),
            nn.SiLU: lambda m: ("swish", [], ""),
            nn.Hardswish: lambda m: ("hardswish", [], ""),
            nn.LeakyReLU: lambda m: ("leaky_relu", [m.negative_slope], ""),
            nn.GELU: lambda m: ("gelu", [], m.approximate),
        }
        return kinds[type(module)](module) if type(module) in kinds else None
    relu = (node.op == "call_function" and node.target in (functional.relu, torch.relu)) or (
        node.op == "call_method" and node.target in ("relu", "relu_")
    )
    return ("relu", [], "") if relu else None
