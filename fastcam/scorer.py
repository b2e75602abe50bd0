"""The scores of any number of images: chunks at their best size, within the memory allowed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import engines
from .model.capture import evaluation
from .model.network import Network
from .model.structure import row_bytes
from .model.tally import Tally, count, counting
from .scoring import Budget, Buffer, Chunks, score_rows

__all__ = ["Scorer", "Tally", "counting"]

ROW_SLACK = 2.0  # workspaces, and freed blocks not reused yet, over the largest input and output of one module


@dataclass
class Scorer:
    """A network and what its forwards may use.

    Attributes:
        network: to run.
        budget: chunk size and memory.
    """

    network: Network
    budget: Budget

    def __call__(self, images: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The logits of a batch in one forward, the model in evaluation mode, without gradients.

        Args:
            images: (B, C, H, W) as the model takes them.
            *args: further inputs of the model.
            **kwargs: the same by name.

        Returns:
            (B, classes) for a classifier.
        """
        network = self.network.in_ambient_precision(images.device)
        with evaluation(network.model), network.running(images.device):
            count(forwards=len(images))
            return network.select(network.model(images, *args, **kwargs))

    def stream(
        self,
        like: Tensor,
        rows: int,
        fill: Callable[[int, int, Tensor], None],
        score: Callable[[Any, int, int], Tensor],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        image: int = 0,
    ) -> Tensor:
        """The scores of rows that are made as they are needed.

        Args:
            like: (B, C, H, W) images; the rows have their size, type and device.
            rows: how many there are.
            fill: (start, stop, out) writes the rows [start, stop) into out (n, C, H, W).
            score: (logits, start, stop) -> (n, T)
            args: further inputs of the model for `like`.
            kwargs: the same by name.
            image: which of the B the further inputs are taken from.

        Returns:
            (T, rows) in float32 at least.

        Raises:
            ValueError: the runtime cannot take such images or further inputs.
        """
        network, budget = self.network, self.budget
        if rows == 0:
            return like.new_zeros((1, 0), dtype=torch.promote_types(like.dtype, torch.float32))
        named = kwargs or {}
        model = torch.compile(network.model) if budget.compile else network.model
        size, runtime = tuple(like.shape[1:]), budget.runtime
        key = ("images", size, like.dtype, like.device, network.precision, budget.compile)

        def others(value: Any, rows: int) -> Any:
            batched = isinstance(value, Tensor) and value.dim() and len(value) == len(like)
            return value[image : image + 1].expand(rows, *value.shape[1:]) if batched else value

        def in_torch(chunk: Tensor) -> Any:
            count(forwards=len(chunk))
            given = [others(v, len(chunk)) for v in args]
            return network.select(model(chunk, *given, **{k: others(v, len(chunk)) for k, v in named.items()}))

        with evaluation(network.model), network.running(like.device, compiled=budget.compile):
            known, first = network.facts.row_bytes, like.new_empty((1, *size))
            if key not in known or runtime != "torch":
                fill(0, 1, first)
            if key not in known:
                known[key] = int(ROW_SLACK * row_bytes(network.model, lambda: in_torch(first)))
            run: Callable[[Tensor], Any] = in_torch
            if runtime != "torch":
                run = engines.find(network, runtime, like, bool(args or named), first, in_torch) or in_torch
            tuned = key if run is in_torch else (*key, runtime)
            bytes_ = known[key] + first.numel() * first.element_size()
            tunings = network.facts.tunings
            chunks = Chunks(rows, bytes_, tuned, tunings, budget.batch_size, budget.max_memory, like.device)
            buffer = Buffer(size, like.dtype, like.device, channels_last=run is in_torch and size[0] > 1)
            return score_rows(chunks, buffer, fill, run, score)
