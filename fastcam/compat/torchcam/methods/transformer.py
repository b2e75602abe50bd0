"""torchcam's LeGrad: what a transformer's layers would say of their tokens, differentiated at their attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastcam.compat.torchcam.methods.core import _CAM, Layer
from fastcam.compat.torchcam.methods.hooks import Hook
from fastcam.compat.torchcam.methods.scores import Classes, Targets, chosen

NEED_WEIGHTS, AVERAGED = 4, 6  # where `nn.MultiheadAttention.forward` takes them positionally


class LeGrad(_CAM):
    """mean_l mean_{heads, queries} relu(d s_l / d P_l), P_l block l's attention, s_l the class score of its tokens.

    From Bousselham 2024, arXiv:2404.03214. The prefix's keys are left out. Each block has a batch-first
    `self_attention: nn.MultiheadAttention` and gives tokens (N, tokens, features).

    Args:
        model: the network.
        target_layer: blocks, or their names.
        score_projection: tokens of a block -> logits (N, classes); None is torchvision's `VisionTransformer`: its last
            norm and its heads on the mean of the tokens.
        prefix_tokens: how many tokens stand before the patches.
        grid_shape: (h, w) of the patches; None is a square.
        enable_hooks: whether the hooks take note from the start.
        strict_compat: without effect; all values are torchcam's.

    Raises:
        ValueError: no block, a block that cannot be served, or a value that makes no sense.
        TypeError: an argument, or a block's attention, of another type.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: Layer | list[Layer],
        *,
        score_projection: Callable[[Tensor], Tensor] | None = None,
        prefix_tokens: int = 1,
        grid_shape: tuple[int, int] | None = None,
        enable_hooks: bool = True,
        strict_compat: bool | None = None,
    ) -> None:
        if target_layer is None or target_layer == []:
            raise ValueError("LeGrad explains transformer blocks: pass at least one explicit target block")
        _check(prefix_tokens, grid_shape, score_projection)
        self._score_projection = _projection_of(model) if score_projection is None else score_projection
        self.prefix_tokens = prefix_tokens
        self.grid_shape = grid_shape
        super().__init__(model, target_layer, enable_hooks=enable_hooks, strict_compat=strict_compat)
        try:
            attentions = [_attention_of(self.submodule_dict[name], name) for name in self.target_names]
        except (TypeError, ValueError):
            self.remove_hooks()
            raise
        for idx, attention in enumerate(attentions):
            before, after = Hook(self, "_prepare_attention", idx), Hook(self, "_capture_attention", idx)
            self.hook_handles.append(attention.register_forward_pre_hook(before, with_kwargs=True))
            self.hook_handles.append(attention.register_forward_hook(after, with_kwargs=True))

    def reset_hooks(self) -> None:
        """Forget the attention and what was said of the tokens."""
        super().reset_hooks()
        blocks = len(self.target_names)
        self.hook_attn: list[Tensor | None] = [None] * blocks
        self._token_counts: list[int | None] = [None] * blocks
        self._weight_options: list[tuple[bool, bool] | None] = [None] * blocks

    def _prepare_attention(
        self, module: nn.MultiheadAttention, input_: tuple[Any, ...], kwargs: dict[str, Any], idx: int = 0
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Ask the attention for its probabilities, one map a head, and let the graph begin here if all is frozen."""
        if not self._hooks_enabled:
            return None
        if not torch.is_grad_enabled():
            raise RuntimeError("LeGrad needs a forward with gradient tracking: run it outside no_grad, inference_mode")
        if module.training and module.dropout > 0:
            raise ValueError("LeGrad explains no random attention: dropout is active; call model.eval() first")
        if len(input_) < 3 or not all(isinstance(one, Tensor) for one in input_[:3]):
            raise ValueError("LeGrad needs attention that is called with a tensor query, key and value")
        query, key, value = input_[:3]
        if query is not key or query is not value:
            raise ValueError("LeGrad explains self-attention, where query, key and value are one tensor")
        if query.dim() != 3:
            raise ValueError(f"LeGrad needs tokens (batch, tokens, embedding), not {tuple(query.shape)}")
        args, named = list(input_), dict(kwargs)
        if not (
            query.requires_grad
            or any(p.requires_grad for p in (module.in_proj_weight, module.in_proj_bias) if p is not None)
        ):
            args[:3] = [query.detach().requires_grad_()] * 3
        asked = []
        for name, place, ours in (("need_weights", NEED_WEIGHTS, True), ("average_attn_weights", AVERAGED, False)):
            if len(args) > place:
                asked.append(bool(args[place]))
                args[place] = ours
            else:
                asked.append(bool(named.get(name, True)))
                named[name] = ours
        self._weight_options[idx] = (asked[0], asked[1])
        return tuple(args), named

    def _capture_attention(
        self,
        module: nn.MultiheadAttention,
        input_: tuple[Any, ...],
        _kwargs: dict[str, Any],
        output: Any,
        idx: int = 0,
    ) -> tuple[Tensor, Tensor | None] | None:
        """Keep the probabilities P, and hand on W_o (P V): the output has to be made from what is kept."""
        if not self._hooks_enabled:
            return None
        if not isinstance(output, tuple) or len(output) != 2 or not isinstance(output[1], Tensor):
            raise ValueError("LeGrad needs the per-head attention probabilities that `nn.MultiheadAttention` returns")
        p, tokens = output[1], input_[2]
        if p.dim() != 4:
            raise ValueError(
                f"LeGrad needs attention probabilities shaped (batch, heads, queries, keys), not {tuple(p.shape)}"
            )
        batch, length, width = tokens.shape
        if (*p.shape[:2], p.shape[3]) != (batch, module.num_heads, length):
            raise ValueError(
                f"incompatible attention probability shape {tuple(p.shape)} of {module.num_heads} heads for tokens "
                f"{tuple(tokens.shape)}"
            )
        options = self._weight_options[idx]
        if options is None:
            raise RuntimeError("missing original attention return options: the hook before the attention did not run")
        bias = None if module.in_proj_bias is None else module.in_proj_bias[2 * width :]
        v = functional.linear(tokens, module.in_proj_weight[2 * width :], bias)
        v = v.unflatten(2, (module.num_heads, -1)).transpose(1, 2)
        self.hook_attn[idx] = p
        needed, averaged = options
        shown = None if not needed else p.mean(1) if averaged else p
        return module.out_proj((p @ v).transpose(1, 2).flatten(2)), shown

    def _hook_a(self, _: nn.Module, _input: Any, output: Any, idx: int = 0) -> None:
        """Keep what the projection says of the block's tokens."""
        if not self._hooks_enabled:
            return
        if not isinstance(output, Tensor) or output.dim() != 3:
            raise ValueError("LeGrad's target blocks must return tokens (batch, tokens, embedding)")
        logits = self._score_projection(output)
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(output):
            raise ValueError("`score_projection` must make class logits (batch, classes) of tokens")
        self.hook_a[idx] = logits
        self._token_counts[idx] = output.shape[1]

    def _precheck(self, class_idx: Any, scores: Any = None, targets: Any = None) -> None:
        super()._precheck(class_idx, scores, targets)
        self._blocks()

    def _blocks(self) -> list[tuple[Tensor, Tensor]]:
        """The logits and the attention of each block."""
        seen = [(s, p) for s, p in zip(self.hook_a, self.hook_attn, strict=True) if s is not None and p is not None]
        if len(seen) != len(self.target_names):
            raise AssertionError("run model(inputs) through every LeGrad target block first")
        return seen

    def _get_weights(self, class_idx: Any, scores: Any = None, retain_graph: bool = False, **_: Any) -> list[Tensor]:
        """The share of each patch in each block. (N, patches)"""
        blocks, shares = self._blocks(), []
        for i, (logits, p) in enumerate(blocks):
            keep = retain_graph or i + 1 < len(blocks)
            try:
                with torch.enable_grad():
                    score = chosen(logits, class_idx, None).sum()
                (g,) = torch.autograd.grad(score, p, retain_graph=keep)
            except RuntimeError as error:
                raise RuntimeError(
                    f"the score of block {self.target_names[i]!r} is not connected to its attention, or its graph was "
                    "freed by a call before; pass retain_graph=True there"
                ) from error
            shares.append(g.relu().mean((1, 2))[:, self.prefix_tokens :])
        return shares

    def compute_cams(
        self,
        class_idx: Classes | None = None,
        scores: Any = None,
        normalized: bool = True,
        retain_graph: bool = False,
        *,
        targets: Targets | None = None,
        **kwargs: Any,
    ) -> list[Tensor]:
        """One map for all blocks, in a list; as a call, without its checks.

        Raises:
            ValueError: targets, or patches that make no grid.
        """
        if targets is not None:
            raise ValueError("LeGrad does not support targets; pass class_idx")
        maps, shares = [], self._get_weights(class_idx, scores, retain_graph, **kwargs)
        for share, count in zip(shares, self._token_counts, strict=True):
            if count != share.shape[1] + self.prefix_tokens:
                raise ValueError(
                    f"attention keys and target-block tokens must match: a block gives {count} tokens, and has "
                    f"{share.shape[1]} patches after {self.prefix_tokens} of prefix in its attention"
                )
            maps.append(share.unflatten(1, self._grid_of(share.shape[1])))
        cam = torch.stack(maps).mean(0)
        return [self._normalize(cam) if normalized else cam]

    def _grid_of(self, patches: int) -> tuple[int, int]:
        """(h, w) of so many patches."""
        if patches < 1:
            raise ValueError(f"prefix_tokens={self.prefix_tokens} must leave at least one patch token")
        side = math.isqrt(patches)
        grid = self.grid_shape or (side, side)
        if grid[0] * grid[1] != patches:
            raise ValueError(
                f"grid_shape={grid} does not match {patches} patches"
                if self.grid_shape
                else f"{patches} patches make no square patch grid; pass grid_shape=(h, w)"
            )
        return grid


def _check(prefix_tokens: Any, grid_shape: Any, score_projection: Any) -> None:
    """Raise where an option cannot be meant."""
    if not isinstance(prefix_tokens, int):
        raise TypeError(f"`prefix_tokens` must be an integer, not {prefix_tokens!r}")
    if prefix_tokens < 0:
        raise ValueError(f"`prefix_tokens` must be non-negative, not {prefix_tokens}")
    if grid_shape is not None:
        pair = isinstance(grid_shape, tuple) and len(grid_shape) == 2
        if not pair or not all(isinstance(n, int) for n in grid_shape):
            raise TypeError(f"`grid_shape` must be a tuple of two integers, not {grid_shape!r}")
        if min(grid_shape) < 1:
            raise ValueError(f"`grid_shape` must be positive, not {grid_shape}")
    if score_projection is not None and not callable(score_projection):
        raise TypeError(f"`score_projection` must be callable, not {score_projection!r}")


def _projection_of(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """What torchvision's transformer says of tokens."""
    norm, heads = getattr(getattr(model, "encoder", None), "ln", None), getattr(model, "heads", None)
    if not isinstance(norm, nn.Module) or not isinstance(heads, nn.Module):
        raise ValueError(
            f"{type(model).__name__} is no torchvision VisionTransformer: pass `score_projection`, a function from a "
            "block's tokens to logits"
        )
    return lambda tokens: heads(norm(tokens.mean(1)))


def _attention_of(block: nn.Module, name: str) -> nn.MultiheadAttention:
    """The attention of a block.

    Raises:
        TypeError: there is none under that name.
        ValueError: it is of a kind whose output cannot be made again from its probabilities.
    """
    attention = getattr(block, "self_attention", None)
    if not isinstance(attention, nn.MultiheadAttention):
        raise TypeError(f"block {name!r} has no `self_attention: nn.MultiheadAttention`; name a block that has")
    width = attention.embed_dim
    if not attention.batch_first:
        raise ValueError(f"block {name!r} needs batch-first attention; make it with batch_first=True")
    if (attention.kdim, attention.vdim) != (width, width) or attention.in_proj_weight is None:
        raise ValueError(f"block {name!r} needs shared-dimension projections of query, key and value")
    if attention.bias_k is not None or attention.bias_v is not None or attention.add_zero_attn:
        raise ValueError(f"block {name!r} has added attention tokens (add_bias_kv, add_zero_attn), which have no patch")
    return attention
