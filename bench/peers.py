"""The other libraries, each called as its README says, on a copy of the network of its own.

A peer's hooks stay on its copy, so that they slow down nobody else.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.floors import activations
from bench.models import Subject
from fastcam.model.tokens import Layout, find_layout

MODULES = {"pytorch-grad-cam": "pytorch_grad_cam", "torchcam": "torchcam.methods", "captum": "captum.attr"}
GRAD_CAM = {
    "gradcam": "GradCAM",
    "gradcampp": "GradCAMPlusPlus",
    "xgradcam": "XGradCAM",
    "layercam": "LayerCAM",
    "scorecam": "ScoreCAM",
    "ablationcam": "AblationCAM",
    "hirescam": "HiResCAM",
    "gradcamelementwise": "GradCAMElementWise",
    "eigencam": "EigenCAM",
    "eigengradcam": "EigenGradCAM",
    "randomcam": "RandomCAM",
    "fullgrad": "FullGrad",
    "shapleycam": "ShapleyCAM",
    "finercam": "FinerCAM",
    "kpcacam": "KPCA_CAM",
    "fem": "FEM",
    "segeigencam": "SegEigenCAM",
}
TORCHCAM = {
    "cam": "CAM",
    "gradcam": "GradCAM",
    "gradcampp": "GradCAMpp",
    "xgradcam": "XGradCAM",
    "layercam": "LayerCAM",
    "scorecam": "ScoreCAM",
    "sscam": "SSCAM",
    "iscam": "ISCAM",
    "smoothgradcampp": "SmoothGradCAMpp",
}
BATCH = {
    "pytorch-grad-cam": {"scorecam": 16, "ablationcam": 32},
    "torchcam": dict.fromkeys(("scorecam", "sscam", "iscam"), 32),
}


@dataclass(frozen=True)
class Peer:
    """One method of one library.

    Attributes:
        who: the library.
        run: gives its maps (B, h, w) or (B, H, W); for a method that masks, of all masks.
        part: does the work of this many masks only, where the method masks.
        masks: how many there are.
        step: masks in one of its own batches.
    """

    who: str
    run: Callable[[], Tensor]
    part: Callable[[int], object] | None = None
    masks: int = 0
    step: int = 0


def missing() -> list[str]:
    """Peers that cannot be imported here."""
    found = []
    for who, module in MODULES.items():
        try:
            importlib.import_module(module)
        except ImportError:
            found.append(who)
    return found


def peers(method: str, subject: Subject, classes: list[int], samples: int = 1) -> Iterator[Peer]:
    """Each installed library that has the method, ready to run; with so many samples of each mask, where it samples."""
    makers = {"pytorch-grad-cam": _grad_cam, "torchcam": partial(_torchcam, samples=samples), "captum": _captum}
    absent = missing()
    for who, make in makers.items():
        peer = None if who in absent else make(method, copy.deepcopy(subject.model), subject, classes)
        if peer is not None:
            yield peer


def _grad_cam(method: str, model: torch.nn.Module, subject: Subject, classes: list[int]) -> Peer | None:
    if method not in GRAD_CAM:
        return None
    library: Any = importlib.import_module("pytorch_grad_cam")
    targets: Any = importlib.import_module("pytorch_grad_cam.utils.model_targets")
    layer, layout = model.get_submodule(subject.layer), _layout(subject)
    reshape = {} if layout.kind == "maps" else {"reshape_transform": layout.maps}
    cam = getattr(library, GRAD_CAM[method])(model, [layer], **reshape)
    wanted, images = [targets.ClassifierOutputTarget(c) for c in classes], subject.images

    def run() -> Tensor:
        with _quiet():
            return torch.from_numpy(cam(images, wanted))

    step = BATCH["pytorch-grad-cam"].get(method)
    if step is None:
        return Peer("pytorch-grad-cam", run)

    def part(count: int) -> object:
        with _quiet(), torch.no_grad():
            cam.activations_and_grads(images)
            activations = cam.activations_and_grads.activations[0].numpy()
            return cam.get_cam_weights(images, layer, wanted, activations[:, :count], None)

    return Peer("pytorch-grad-cam", run, part, activations(subject).shape[1], step)


def _torchcam(
    method: str, model: torch.nn.Module, subject: Subject, classes: list[int], samples: int = 1
) -> Peer | None:
    if method not in TORCHCAM or _layout(subject).kind != "maps":
        return None
    library: Any = importlib.import_module("torchcam.methods")
    sampled = method in {"sscam", "iscam", "smoothgradcampp"}
    options: dict[str, Any] = {"num_samples": samples} if sampled else {}
    size = tuple(subject.images.shape[1:])
    extractor = getattr(library, TORCHCAM[method])(model, subject.layer, input_shape=size, **options)
    gradients = method not in {"cam", "scorecam", "sscam", "iscam"}

    def run() -> Tensor:
        with contextlib.nullcontext() if gradients else torch.inference_mode():
            scores = model(subject.images)
            return extractor(class_idx=classes, scores=scores if gradients else None)[0].detach()

    step = BATCH["torchcam"].get(method)
    if step is None:
        return Peer("torchcam", run)

    def part(count: int) -> object:
        with torch.inference_mode():
            model(subject.images)
            extractor.hook_a = [maps[:, :count] for maps in extractor.hook_a]
            return extractor._get_weights(classes)

    return Peer("torchcam", run, part, activations(subject).shape[1], step)


def _captum(method: str, model: torch.nn.Module, subject: Subject, classes: list[int]) -> Peer | None:
    if method != "gradcam" or _layout(subject).kind != "maps":
        return None
    library: Any = importlib.import_module("captum.attr")
    attribution = library.LayerGradCam(model, model.get_submodule(subject.layer))

    def run() -> Tensor:
        return attribution.attribute(subject.images, target=classes)[:, 0].detach()

    return Peer("captum", run)


def _layout(subject: Subject) -> Layout:
    """How the layer's positions lie; only pytorch-grad-cam can be told of tokens."""
    found = find_layout(tuple(activations(subject).shape), tuple(subject.images.shape[-2:]))
    assert found is not None
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the peer's progress bars, whose drawing is no part of the method."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
