"""From activations to logits where no pooled tail is proved: the cut network, or the whole one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .outputs import describe, replace_first
from .split import Split

if TYPE_CHECKING:
    from .forward import Forward


@dataclass
class CutTail:
    """The tail of a cut network, with what bypasses the layer carried along."""

    forward: Forward
    split: Split
    kind = "split"

    def __call__(self, maps: Tensor, image: int = 0) -> Any:
        """Logits of activations that stand in for those of one image. maps: (n, C, h, w) -> (n, ...)"""
        activations, bypass = self.forward.parts
        native = self.forward.captured.layout.output(maps, activations[image : image + 1])
        with self.forward.network.running(maps.device):
            output = self.split.run_tail(native.to(activations.dtype), self.split.expand(bypass, image, len(maps)))
        return self.forward.network.select(output)


@dataclass
class WholeModel:
    """The whole model with the layer's output replaced: the exact fallback where no cut can be made."""

    forward: Forward
    kind = "whole"

    def __call__(self, maps: Tensor, image: int = 0) -> Any:
        """Logits of activations that stand in for those of one image. maps: (n, C, h, w) -> (n, ...)"""
        f = self.forward
        own = f.captured.output.detach()[image : image + 1]
        native = f.captured.layout.output(maps, own).to(own.dtype)
        module = dict(f.network.model.named_modules())[f.captured.name]

        def many(value: Any) -> Any:
            batched = isinstance(value, Tensor) and value.dim() and len(value) == len(f.images)
            return value[image : image + 1].expand(len(maps), *value.shape[1:]) if batched else value

        handle = module.register_forward_hook(lambda _m, _i, output: replace_first(output, native))
        try:
            with f.network.running(maps.device):
                output = f.network.model(
                    many(f.images), *map(many, f.args), **{k: many(v) for k, v in f.kwargs.items()}
                )
        finally:
            handle.remove()
        logits = f.network.select(output)
        if isinstance(logits, Tensor) and len(logits) != len(maps):
            raise ValueError(f"expected {len(maps)} rows of logits, the model gave a {describe(logits)}")
        return logits
