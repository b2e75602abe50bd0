"""One forward of a transformer: its attention, and what it would say of the tokens of each of its layers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from . import tally
from .attention import Watch
from .capture import Captured
from .forward import Forward
from .layers import INPUT, has_class_token
from .network import Network
from .outputs import describe, first_tensor, replace_first
from .tokens import Layout


class Blocks:
    """Hands what each block gives to what follows the last of them: `with Blocks(...): forward()`.

    The last block's output becomes that of all blocks, one after the other along the batch, and then its own; so one
    forward scores the tokens of every layer.

    Args:
        model: has the blocks.
        names: of the blocks, in the order in which they run.
        shape: (B, N) of the tokens.
        tokens: "mean" for the mean of a block's tokens in place of each, "own" for the tokens themselves.
        cut: let no block's graph reach into the one before.
    """

    def __init__(self, model: nn.Module, names: list[str], shape: tuple[int, int], tokens: str, cut: bool) -> None:
        self.modules = [model.get_submodule(name) for name in names]
        self.shape, self.tokens, self.cut = shape, tokens, cut
        self.given: list[Tensor] = []
        self._handles: list[Any] = []

    def __enter__(self) -> Blocks:
        self._handles = [module.register_forward_hook(self._after) for module in self.modules]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _after(self, module: nn.Module, _: Any, output: Any) -> Any:
        z = first_tensor(output)
        if z is None or z.dim() != 3 or tuple(z.shape[:2]) != self.shape or len(self.given) >= len(self.modules):
            raise unscored(f"{type(module).__name__} gives a {describe(output)}, no tokens {self.shape} in one run")
        self.given.append(z.mean(1, keepdim=True).expand_as(z) if self.tokens == "mean" else z)
        if len(self.given) == len(self.modules):
            return replace_first(output, torch.cat([*self.given, z]))
        return replace_first(output, z.detach()) if self.cut else None


def unscored(why: str) -> ValueError:
    """What to raise where the tokens of a layer cannot be scored by themselves."""
    return ValueError(f"the tokens of each layer cannot be scored: {why}; pass score='model'")


@dataclass
class Attended(Forward):
    """One forward of a transformer, with the attention of each layer.

    Attributes:
        seen: the nodes of the graph, (B, heads, N, N) or (B * heads, N, N) each.
        attention: the same as (B, heads, N, N).
        tokens: their layout.
        scored: what the network says of each layer's tokens, or nothing where that was not asked.
        cut: whether the layers know nothing of each other in backward.
    """

    seen: list[Tensor] = field(default_factory=list)
    attention: list[Tensor] = field(default_factory=list)
    tokens: Layout = field(default_factory=lambda: Layout("tokens", (1, 1)))
    scored: list[Any] = field(default_factory=list)
    cut: bool = False

    @property
    def query(self) -> Tensor:
        """The share of each query in the output: the class token alone, or each cell alike. (N,)"""
        prefix, p = self.tokens.prefix, self.attention[0]
        share = torch.zeros(p.shape[-1], dtype=p.dtype, device=p.device)
        if prefix == 1 or (prefix and has_class_token(self.network.model)):
            share[0] = 1
        else:
            share[prefix:] = 1 / (len(share) - prefix)
        return share


@contextlib.contextmanager
def nested(model: nn.Module, depth: list[str]) -> Iterator[None]:
    """Keeps the names of the modules that run at the moment in `depth`."""
    handles = []
    try:
        for name, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(lambda *_, own=name: depth.append(own)))
            handles.append(module.register_forward_hook(lambda *_: depth.pop() and None))
        yield
    finally:
        for handle in handles:
            handle.remove()


def find_blocks(inside: list[tuple[str, ...]]) -> list[str]:
    """The outermost module around each attention that no other attention runs in.

    Args:
        inside: of each attention, the modules that ran, the model itself first.

    Raises:
        ValueError: two layers run in the same module.
    """
    found = []
    for index, names in enumerate(inside):
        others = {name for other, run in enumerate(inside) if other != index for name in run}
        own = [name for name in names[1:] if name not in others]
        if not own:
            raise unscored(f"several of them run in {names[-1] or 'the network itself'}")
        found.append(own[0])
    return found


def attend(
    network: Network,
    images: Tensor,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    grad: bool,
    graph: bool = False,
    score: str = "model",
) -> Attended:
    """One forward that keeps the attention of each layer, inside `evaluation`.

    Args:
        network: a transformer.
        images: (B, C, H, W)
        args: further inputs of the model.
        kwargs: the same by name.
        grad: record from the first attention on.
        graph: record everything.
        score: "model", or how to score each layer's tokens, "mean" or "own"; where the blocks are is found in a
            forward of its own, once for a model and a shape of images.

    Returns:
        The forward.

    Raises:
        ValueError: no attention between all tokens, or layers whose tokens cannot be scored.
    """
    batch, size = len(images), tuple(images.shape[2:])
    if len(size) != 2:
        raise ValueError(
            "the grid of a transformer's tokens is known of pictures (B, C, H, W), not of input "
            f"{tuple(images.shape)}; use gradcam, layercam or scorecam at a layer of maps"
        )
    layered, key = grad and score != "model", (size, len(args), tuple(kwargs), *map(id, network.model.modules()))
    depth: list[str] = []

    def run(record: bool, blocks: contextlib.AbstractContextManager[Any]) -> tuple[Watch, Any]:
        tally.count(forwards=batch)
        watch = Watch(batch, size, record=record, cut=layered and not graph, depth=depth)
        running = network.running(images.device, autograd=True)
        with running, torch.set_grad_enabled(graph and record), blocks, watch:
            return watch, network.model(images, *args, **kwargs)

    def scored_rows() -> tuple[Watch, Any]:
        try:
            return run(grad, blocks)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise unscored(f"what follows the last block refuses more rows than images, {error}") from error

    blocks: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if layered:
        if key not in network.facts.blocks:
            watch, _ = run(False, nested(network.model, depth))
            n = watch.maps()[0].shape[-1]
            network.facts.blocks[key] = (find_blocks(watch.inside), n)
        names, n = network.facts.blocks[key]
        blocks = Blocks(network.model, names, (batch, n), score, not graph)
    watch, output = scored_rows() if layered else run(grad, blocks)
    with torch.set_grad_enabled(grad):  # a view made without would have no part in the graph
        maps, logits, scored = watch.maps(), network.select(output), []
        if layered:
            if not isinstance(logits, Tensor) or len(logits) != (len(maps) + 1) * batch:
                raise unscored(f"from (layers + 1) x {batch} rows of tokens the network makes a {describe(logits)}")
            *scored, logits = logits.split(batch)
    network.require_finite(logits)
    captured = Captured(INPUT, images, Layout.of("maps", size))
    forward = Attended(network, images, args, kwargs, captured, output, logits, None)
    forward.seen, forward.attention, forward.tokens = watch.seen, maps, watch.layouts[0]
    forward.scored, forward.cut = scored, layered and not graph
    return forward
