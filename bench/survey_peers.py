"""The nearest other library of each method: those of `peers`, and captum's methods at the image."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.models import Subject
from bench.peers import Peer, missing, peers

CAPTUM = {
    "saliency": "Saliency",
    "inputxgradient": "InputXGradient",
    "smoothgrad": "NoiseTunnel",
    "integratedgradients": "IntegratedGradients",
    "deconvnet": "Deconvolution",
    "guidedbackprop": "GuidedBackprop",
    "guidedgradcam": "GuidedGradCam",
    "deeplift": "DeepLift",
    "liftcam": "LayerDeepLift",
    "occlusion": "Occlusion",
}


def nearest(method: str, subject: Subject, classes: list[int], options: dict[str, Any]) -> Peer | None:
    """The first library that has the method and runs it on this network, or None.

    Args:
        method: its name.
        subject: network, picture, layer.
        classes: of each image.
        options: of the method, where they are not fastcam's defaults: samples, steps and windows are the peer's too.
    """
    found = next(peers(method, subject, classes, options.get("samples", 1)), None)
    if method == "rise":
        found = _rise(subject, options["samples"])
    if found is None and method in CAPTUM and "captum" not in missing():
        found = Peer("captum", _captum(method, copy.deepcopy(subject.model), subject, classes, options))
    try:
        return found if found is None or found.part is not None or found.run() is not None else None
    except (RuntimeError, AssertionError, TypeError, ValueError, AttributeError, IndexError) as error:
        print(f"  {method}: {found.who if found else ''} does not run here: {str(error).splitlines()[0][:90]}")
        return None


def _captum(
    method: str, model: Any, subject: Subject, classes: list[int], options: dict[str, Any]
) -> Callable[[], Tensor]:
    library: Any = importlib.import_module("captum.attr")
    kind, layer, images = getattr(library, CAPTUM[method]), model.get_submodule(subject.layer), subject.images
    given: dict[str, Any] = {}
    if method == "smoothgrad":
        attribution = kind(library.Saliency(model))
        spread = 0.15 * float(images.max() - images.min())
        given = {
            "nt_type": "smoothgrad",
            "nt_samples": options["samples"],
            "nt_samples_batch_size": 1,
            "stdevs": spread,
        }
    elif method in {"guidedgradcam", "liftcam"}:
        attribution = kind(model, layer)
    else:
        attribution = kind(model)
    if method == "integratedgradients":
        given = {"n_steps": options["samples"], "internal_batch_size": 1}
    if method == "occlusion":
        size, stride = options["size"], options["stride"]
        given = {"sliding_window_shapes": (images.shape[1], size, size), "strides": (images.shape[1], stride, stride)}
        given["perturbations_per_eval"] = 16

    def run() -> Tensor:
        return attribution.attribute(images.clone().requires_grad_(), target=classes, **given).detach()

    return run


def _rise(subject: Subject, count: int) -> Peer:
    """RISE as its authors run it: masks made beforehand, all of them times the image, then forwards of 100.

    Only the masks of a part are made and held here: all 4000 take 0.8 GB, their products with the image 2.4 GB.
    """
    images, step = subject.images, min(100, count)
    masks = torch.rand(3 * step, 1, *images.shape[-2:], dtype=images.dtype, device=images.device)

    @torch.inference_mode()
    def part(rows: int) -> Tensor:
        stack = masks[:rows] * images
        scores = torch.cat([subject.model(some).softmax(1) for some in stack.split(step)])
        return scores.T @ masks[:rows].flatten(1) / (rows * 0.5)

    return Peer("RISE", lambda: part(step), part, count, step)
