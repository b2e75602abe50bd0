"""The scores of any number of images: chunks at their best size, within the memory allowed."""

from __future__ import annotations

import functools
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
from .runtimes import refuse
from .scoring import DEFAULT_MEMORY, Budget, Chunks, score_rows
from .streams import Writer

__all__ = ["Scorer", "Tally", "counting"]

# Workspaces, and freed blocks not reused yet, over the largest input and output of one module. Where malloc keeps what
# is freed, memory is fragmented too: under a budget of 256 MB EfficientNet-Lite0 grew by 341 with 2, by 292 with 3.
ROW_SLACK = 3.0


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
        image: int | Tensor = 0,
    ) -> Tensor:
        """The scores of rows that are made as they are needed.

        Args:
            like: (B, C, H, W) images, (B, C, L) or (B, C, D, H, W); the rows have their size, type and device.
            rows: how many there are.
            fill: (start, stop, out) writes the rows [start, stop) into out (n, C, H, W).
            score: (logits, start, stop) -> (n, T)
            args: further inputs of the model for `like`.
            kwargs: the same by name.
            image: which of the B the further inputs are taken from, one for all rows or (rows,).

        Returns:
            (T, rows) in float32 at least.

        Raises:
            ValueError: the runtime cannot take such images or further inputs.
        """
        network, budget = self.network, self.budget
        if rows == 0:
            return like.new_zeros((1, 0), dtype=torch.promote_types(like.dtype, torch.float32))
        named, size, device = kwargs or {}, tuple(like.shape[1:]), like.device
        alone = not (args or named)
        self._check(like, alone)
        compiled = budget.compile is True
        model = torch.compile(network.model) if compiled else network.model

        def others(value: Any, start: int, stop: int) -> Any:
            if not (isinstance(value, Tensor) and value.dim() and len(value) == len(like)):
                return value
            if isinstance(image, Tensor):
                return value[image[start:stop].to(value.device)]
            return value[image : image + 1].expand(stop - start, *value.shape[1:])

        def in_torch(chunk: Tensor, start: int, stop: int) -> Any:
            count(forwards=len(chunk))
            given = [others(v, start, stop) for v in args]
            return network.select(model(chunk, *given, **{k: others(v, start, stop) for k, v in named.items()}))

        @functools.cache
        def first() -> Tensor:
            row = like.new_empty((1, *size))
            fill(0, 1, row)
            return row

        with evaluation(network.model), network.running(device, compiled=compiled):
            known = network.facts.row_bytes
            key = ("images", size, like.dtype, device, network.precision, budget.compile)
            if key not in known:
                known[key] = int(ROW_SLACK * row_bytes(network.model, lambda: in_torch(first(), 0, 1)))
            engine = None
            if alone and not compiled:
                engine = engines.find(network, budget, like, rows, first, lambda row: in_torch(row, 0, 1))
            run = in_torch if engine is None else lambda chunk, start, stop: engine(chunk)
            last = len(size) == 3 and size[0] > 1 and (engine is None or engine.channels_last)
            writer = Writer(size, like.dtype, device, channels_last=last)
            bounded = budget.max_memory or (DEFAULT_MEMORY if budget.batch_size == "auto" else None)
            chunks = Chunks(
                rows,
                known[key] + writer.row_bytes,
                (*key, engine and budget.runtime),
                network.facts.tunings,
                budget.batch_size,
                bounded and max(1, bounded - (engine.bytes_ if engine else 0)),
                device,
            )
            return score_rows(chunks, writer, fill, run, score)

    def _check(self, like: Tensor, alone: bool) -> None:
        budget = self.budget
        if budget.runtime != "torch":
            refuse(budget.runtime, like, not alone)
        if budget.compile == "graphs" and (like.device.type != "cuda" or not alone):
            given = f"the images are on {like.device}" if alone else "the model has further inputs"
            raise ValueError(
                f"compile='graphs' records CUDA graphs of a model that takes images alone, {given}; "
                "use compile=True or False"
            )
