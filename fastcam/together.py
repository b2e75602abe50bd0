"""Several methods on one batch."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor

from .ask import Sights
from .cam import CAM
from .explanation import Explanation
from .model.capture import evaluation
from .model.tally import counting
from .targets import TargetSpec


def explain_together(cams: Sequence[CAM], images: Tensor, target: TargetSpec = None) -> list[Explanation]:
    """Several methods on one batch: those at one layer of one model share its forward, and the gradients there.

    Meta-methods share none, for they look at other images.

    Args:
        cams: the methods.
        images: (B, C, H, W)
        target: see `CAM.__call__`.

    Returns:
        An `Explanation` for each, as its own `explain` gives it.
    """
    if any(cam.metas for cam in cams):
        plain = iter(explain_together([cam for cam in cams if not cam.metas], images, target))
        return [cam.explain(images, target=target) if cam.metas else next(plain) for cam in cams]
    sights = Sights()
    questions = [cam._question(images, (), {}, target) for cam in cams]
    for question in questions:
        question.sights = sights
        if question.method.evidence.grad:
            sights.with_gradients.add(question.sight)
    with torch.inference_mode(False), torch.no_grad(), contextlib.ExitStack() as stack:
        for model in {id(cam.network.model): cam.network.model for cam in cams}.values():
            stack.enter_context(evaluation(model))
        shared = {}
        for question in questions:
            if question.sight not in shared:
                with counting() as shared[question.sight]:
                    question.look(images)
        found = [cam._explanation(question) for cam, question in zip(cams, questions, strict=True)]
    for question, explanation in zip(questions, found, strict=True):
        explanation.cost.add(shared[question.sight])
    return found
