"""Evidence that a model gives itself: the importance branch of a `fastcam.LFI`."""

from __future__ import annotations

import dataclasses

from fastcam.lfi import LFI
from fastcam.model.forward import Forward
from fastcam.model.outputs import widen
from fastcam.targets import Target

from .question import Answer, Question, activations_of, combine


def look(question: Question) -> list[Forward]:
    """One forward, seen at the layer that the model weighs and at its importance branch."""
    model = question.network.model
    if not isinstance(model, LFI):
        raise ValueError(
            f"{question.method.name} shows what a model has learned to attend to, and {type(model).__name__} has not: "
            "wrap it, fastcam.LFI(model), train it, and explain the wrapped model"
        )
    names = [f"backbone.{model.layer}", "importance"]
    return dataclasses.replace(question, layer=names, sights=None).look(question.images)


def learned(question: Question, forwards: list[Forward], target: Target) -> list[Answer]:
    """The map of the learned weights, the same for every target."""
    features, branch = forwards
    raw = combine(question, activations_of(features), (widen(branch.captured.maps)[:, None],))
    return [Answer(raw.expand(-1, target.count, -1, -1), features, target)]
