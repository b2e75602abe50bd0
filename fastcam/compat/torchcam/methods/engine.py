"""From an extractor's question to fastcam's: targets, outputs, and whether a subclass has its own way."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from fastcam.compat.torchcam.methods.scores import Classes, OutputTarget, Targets, _target_scores, per_sample

PACKAGE = __name__.rpartition(".")[0]


def ours(extractor: Any, *methods: str) -> bool:
    """Whether none of these methods is overridden, by a subclass of the user or on the object itself."""
    return all(getattr(extractor, name).__module__.startswith(f"{PACKAGE}.") for name in methods)


def output_for(targets: Targets | None) -> Callable[[Any], Any] | None:
    """The `output=` of fastcam: a sample each for callables, and the logits that it finds for classes."""
    return None if targets is None else per_sample


def target_for(class_idx: Classes | None, targets: Targets | None) -> Any:
    """The `target=` of fastcam: classes as they are, callables of a sample as functions of a batch."""

    def of_rows(target: OutputTarget) -> Callable[[Any], Tensor]:
        return partial(_target_scores, targets=target)

    if targets is None:
        return class_idx
    return of_rows(targets) if callable(targets) else [of_rows(target) for target in targets]
