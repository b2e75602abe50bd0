"""Correctness before speed: a peer's maps beside fastcam's, both scaled to [0, 1] at the same size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bench.models import Subject
from fastcam import CAM

TOLERANCE = 2e-3  # of the range of a map; the largest seen is 4e-4 (XGrad-CAM divides by small sums)
# (method, peer): the options under which fastcam computes the peer's formula. All others differ on purpose
# (tests/test_peers.py says how), so that only their correlation is of interest.
SAME: dict[tuple[str, str], dict[str, Any]] = {
    ("cam", "torchcam"): {},
    ("gradcam", "pytorch-grad-cam"): {},
    ("gradcam", "torchcam"): {},
    ("gradcam", "captum"): {},
    ("gradcampp", "pytorch-grad-cam"): {"eps": 1e-6},
    ("xgradcam", "pytorch-grad-cam"): {"eps": 1e-7},
    ("xgradcam", "torchcam"): {"eps": 1e-8},
    ("layercam", "pytorch-grad-cam"): {},
    ("layercam", "torchcam"): {},
}


class DisagreementError(AssertionError):
    """A peer that should compute the same map does not."""


def compare(method: str, subject: Subject, classes: list[int], who: str, theirs: Tensor) -> float:
    """The correlation of a peer's maps with fastcam's.

    Args:
        method: its name.
        subject: what both explained.
        classes: of each image.
        who: the peer.
        theirs: its maps, at the layer's or the images' size, signed or scaled.

    Raises:
        DisagreementError: the two compute one formula, and a value differs by more than TOLERANCE.
    """
    options = SAME.get((method, who), {})
    ours = CAM(subject.model, method, subject.layer, **options).explain(subject.images, target=torch.tensor(classes))
    assert isinstance(ours.raw, Tensor)
    a = scale(functional.interpolate(_shown(method, ours.raw)[:, None], theirs.shape[-2:], mode="bilinear")[:, 0])
    b = scale(_shown(method, theirs.to(a)))
    worst = float((a - b).abs().max())
    if (method, who) in SAME and worst > TOLERANCE:
        raise DisagreementError(f"{who}'s {method} on {subject.name} differs by {worst:.2g} of the map's range")
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def _shown(method: str, maps: Tensor) -> Tensor:
    return maps if method == "cam" else maps.relu()


def scale(maps: Tensor) -> Tensor:
    """Each map to [0, 1]; a constant one to zero."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (maps - low) / torch.where(high > low, high - low, 1.0)
