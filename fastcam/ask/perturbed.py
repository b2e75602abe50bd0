"""Scores of changed versions of the images themselves: occlusion, RISE."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from fastcam.methods.evidence_perturbed import PerturbedScores, Versions
from fastcam.model.forward import Forward
from fastcam.model.outputs import widen
from fastcam.model.tokens import as_pictures
from fastcam.targets import Target

from .question import Question
from .rows import score_images


def perturbed(question: Question, forward: Forward, target: Target) -> Tensor:
    """The map made of the scores of the images' versions, of all images in one stream. (B, T, H, W)"""
    evidence, images = question.method.evidence, question.images.detach()
    assert isinstance(evidence, PerturbedScores)
    probability = question.options.get("score") == "probability"
    versions = evidence.make(question.options, images)
    # As the rows of pictures of more than one channel mostly are.
    laid = images.contiguous(memory_format=torch.channels_last) if images.dim() == 4 else images
    fills = [functools.partial(write, versions, one) for one in laid.split(1)]
    starts = range(0, (len(images) + 1) * versions.count, versions.count)
    s = score_images(question, target, starts, fills, probability).unflatten(1, (len(images), -1)).transpose(0, 1)
    return as_pictures(question.method(question.options, versions, s, own_scores(forward, target, probability)))


def own_scores(forward: Forward, target: Target, probability: bool) -> Tensor:
    """The scores of the images as they are. (B, T)"""
    if probability and target.classes is not None:
        return widen(forward.logits.detach()).softmax(1).gather(1, target.classes)
    with torch.no_grad():
        return widen(target.score(forward.logits).detach())


def write(versions: Versions, image: Tensor, start: int, stop: int, out: Tensor) -> None:
    """Versions [start, stop) of the image, in their own precision whatever the network runs in."""
    with torch.autocast(image.device.type, enabled=False):
        versions.write(image, start, stop, out)
