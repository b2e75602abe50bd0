"""The way of overridden methods: a recorded forward, one backward, and arrays handed to the subclass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fastcam.compat.pytorch_grad_cam.activations_and_gradients import ActivationsAndGradients
from fastcam.compat.pytorch_grad_cam.asking import Inputs, Whole, predicted, score_of
from fastcam.compat.pytorch_grad_cam.utils.svd_on_activations import get_2d_projection
from fastcam.methods.registry import METHODS
from fastcam.model.capture import evaluation
from fastcam.model.outputs import select

if TYPE_CHECKING:
    from fastcam.compat.pytorch_grad_cam.base_cam import BaseCAM


def recorded(cam: BaseCAM, inputs: Inputs, column: list[Any] | None, eigen_smooth: bool) -> Any:
    """The maps of one target an image, by the methods of the object. (B, H, W), as `aggregate_multi_layers` gives them.

    Args:
        cam: asked.
        inputs: of the call.
        column: a target for each image, or None.
        eigen_smooth: see a call.

    Raises:
        ValueError: a layer that is not reached, or on which no score depends.
    """
    images = inputs.images
    watch = cam.activations_and_grads
    if cam._runs_again and (inputs.args or inputs.kwargs):
        raise ValueError(
            f"{type(cam).__name__} with an override, its own ablation layer, a ratio below 1 or strict_compat runs the "
            "model on masked images alone, and it has further inputs; leave these out, or use GradCAM"
        )
    foreign = not isinstance(watch, ActivationsAndGradients)
    grad = cam.uses_gradients or cam.compute_input_gradient or not cam.detach
    with evaluation(cam.model), torch.inference_mode(False), torch.enable_grad():
        images = images.clone() if images.is_inference() else images.detach()
        if grad and (cam.compute_input_gradient or foreign):
            images = images.clone().requires_grad_()
        args, kwargs = inputs.placed(images)
        with torch.set_grad_enabled(grad):
            outputs = select(watch(*args, **kwargs), cam._output)
        cam.outputs = outputs
        _require_reached(cam)
        targets = _targets(cam, outputs, column)
        try:
            if cam.uses_gradients:
                differentiate(cam, images, outputs, targets)
            return cam.aggregate_multi_layers(cam.compute_cam_per_layer(images, targets or [], eigen_smooth))
        finally:
            cam.outputs = outputs.detach() if isinstance(outputs, Tensor) else outputs
            if not foreign:
                watch.tensors = {}
            if not cam.detach:
                watch.clear()


def _require_reached(cam: BaseCAM) -> None:
    watch = cam.activations_and_grads
    if type(watch) is not ActivationsAndGradients or cam._method_is_at_input:
        return
    for at, layer in enumerate(cam.target_layers):
        if at not in watch.reached:
            raise ValueError(
                f"target layer {at}, a {type(layer).__name__}, was not reached in the forward; choose layers on the "
                "model's path"
            )


def _targets(cam: BaseCAM, outputs: Any, column: list[Any] | None) -> list[Any] | None:
    if column is not None:
        return column
    classes = isinstance(outputs, Tensor) and outputs.dim() == 2
    return predicted(outputs) if classes or cam.uses_gradients else None


def differentiate(cam: BaseCAM, images: Tensor, outputs: Any, targets: list[Any] | None) -> None:
    """Gradients of the sum of scores at the layers, and at the images where asked; `.grad` of parameters stays.

    Raises:
        ValueError: no score depends on a layer.
    """
    assert targets is not None
    if isinstance(targets[0], Whole):
        loss = targets[0].score(outputs).sum()
    else:
        scores = [score_of(target, output) for target, output in zip(targets, outputs, strict=True)]
        loss = torch.stack(scores).sum()
    watch = cam.activations_and_grads
    nodes = watch.tensors if isinstance(watch, ActivationsAndGradients) else {}
    wanted = [*nodes.values(), *([images] if images.requires_grad else [])]
    if not loss.requires_grad or not wanted:
        raise ValueError(
            "the scores depend on none of the target layers through differentiable operations; choose layers on the "
            "path to the output and targets that are functions of it, or a method without gradients"
        )
    found = torch.autograd.grad(loss, wanted, retain_graph=True, create_graph=not cam.detach, allow_unused=True)
    for at, gradient in zip(nodes, found, strict=False):
        if gradient is None and not cam._method_is_at_input:
            raise ValueError(
                f"the scores do not depend on target layer {at}, a {type(cam.target_layers[at]).__name__}; choose "
                "layers on the path to the output"
            )
    if cam.compute_input_gradient and cam.detach:
        images.grad = found[-1]


def arrays_of(watch: Any, detach: bool, layers: int) -> tuple[list[Any], list[Any]]:
    """Activations and gradients of each layer, as arrays unless their graph is kept; None where there are none."""
    found = []
    for values in (watch.activations, watch.gradients):
        shown = [in_numpy(value) if detach else value for value in values]
        found.append((shown + [None] * layers)[:layers])
    return found[0], found[1]


def in_numpy(value: Any) -> np.ndarray:
    """As an array; half precision becomes float32, which NumPy can compute in."""
    if not isinstance(value, Tensor):
        return np.asarray(value)
    value = value.detach().cpu()
    return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()


def weigh(weights: Any, activations: Any, eigen_smooth: bool, strict: bool) -> np.ndarray:
    """Σ_k w_k A_k, or the principal component of the w_k A_k. (B, h, w)

    Args:
        weights: (B, C), or (B, C, h, w) for each cell.
        activations: (B, C, h, w)
        eigen_smooth: which of the two.
        strict: whether the component has LAPACK's sign.

    Raises:
        ValueError: weights that do not fit.
    """
    w, a = in_numpy(weights), in_numpy(activations)
    if w.shape[:2] != a.shape[:2] or w.ndim not in (2, a.ndim):
        raise ValueError(f"weights have shape {w.shape} for activations {a.shape}; give (B, C)")
    weighed = (w.reshape(*w.shape, *[1] * (a.ndim - 2)) if w.ndim == 2 else w) * a
    return get_2d_projection(weighed, strict_compat=strict) if eigen_smooth else weighed.sum(axis=1)


def by_formula(method: str, activations: Any, *evidence: Any, **options: Any) -> np.ndarray:
    """What fastcam's formula gives for arrays of one layer: weights (B, C, h|1, w|1), or a map (B, *space).

    Args:
        method: its name.
        activations: (B, C, *space)
        *evidence: what else it asks for, of the same shape.
        **options: of the method.
    """
    tensors = [torch.as_tensor(in_numpy(one)) for one in (activations, *evidence)]
    space = tensors[0].shape[2:]
    pictures = [one.reshape(*one.shape[:2], -1, space[-1])[:, None] for one in tensors]
    found = METHODS[method]
    result = found(found.resolve(options), *pictures)[:, 0]
    if found.gives_map:
        return result.reshape(len(result), *space).numpy()
    same = tuple(result.shape[-2:]) == (1, 1)
    return result.reshape(*result.shape[:2], *([1] * len(space) if same else space)).numpy()
