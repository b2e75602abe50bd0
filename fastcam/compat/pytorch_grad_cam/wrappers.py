"""Methods over another one: Finer-CAM compares classes, RefineCAM multiplies layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastcam.compat.pytorch_grad_cam.asking import Inputs, Whole
from fastcam.compat.pytorch_grad_cam.base_cam import BaseCAM
from fastcam.compat.pytorch_grad_cam.drawing import engine_serves, explained, overridden
from fastcam.compat.pytorch_grad_cam.gradients import GradCAM, GradCAMPlusPlus
from fastcam.compat.pytorch_grad_cam.recorded import in_numpy
from fastcam.compat.pytorch_grad_cam.utils.image import scale_cam_image
from fastcam.compat.pytorch_grad_cam.utils.model_targets import FinerWeightedTarget
from fastcam.model.capture import evaluation
from fastcam.model.outputs import describe, select, widen

DEFAULT_COMPARISON_CATEGORIES = (1, 2, 3)
Reshape = Callable[[Any], Tensor] | None


class FinerCAM:
    """The map of what sets a class apart from those that score nearest: Zhang 2025, arXiv:2501.11309.

    The score is Σ_k p_k (y_c - alpha y_k) / Σ_k p_k over the classes compared with, p the softmax of the outputs.

    Args:
        model: see `BaseCAM`.
        target_layers: see `BaseCAM`.
        reshape_transform: see `BaseCAM`.
        base_method: the class that draws the map.
        **options: of that class.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Reshape = None,
        base_method: Callable[..., Any] = GradCAM,
        **options: Any,
    ) -> None:
        self.base_cam = base_method(model, target_layers, reshape_transform, **options)
        self.compute_input_gradient = self.base_cam.compute_input_gradient
        self.uses_gradients = self.base_cam.uses_gradients

    @property
    def outputs(self) -> Any:
        """What the model gave in the last call."""
        return self.base_cam.outputs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As `forward`."""
        return self.forward(*args, **kwargs)

    def forward(
        self,
        input_tensor: Any,
        targets: Any = None,
        eigen_smooth: bool = False,
        alpha: float = 1,
        comparison_categories: Sequence[int] | None = None,
        target_idx: int | None = None,
        **options: Any,
    ) -> Any:
        """The maps of a batch.

        Args:
            input_tensor: see `BaseCAM.__call__`.
            targets: explained as they are, where given.
            eigen_smooth: see `BaseCAM.__call__`.
            alpha: how much of the others' scores is taken off.
            comparison_categories: places in the order of nearness, 0 the class itself; None is 1, 2 and 3.
            target_idx: the class of all images; None is the one predicted for each.
            **options: of the base method's call, such as `as_tensor`.

        Returns:
            (B, H, W)
        """
        if targets is None:
            targets = self._targets(input_tensor, alpha, comparison_categories, target_idx, eigen_smooth, options)
        return self.base_cam(input_tensor, targets, eigen_smooth=eigen_smooth, **options)

    def _targets(
        self,
        given: Any,
        alpha: float,
        places: Sequence[int] | None,
        category: int | None,
        eigen_smooth: bool,
        options: dict[str, Any],
    ) -> Any:
        # Where the score is taken once, of the images alone, and no subclass is handed the targets.
        own = isinstance(self.base_cam, BaseCAM) and engine_serves(self.base_cam, eigen_smooth)
        if self.uses_gradients and own and not options.get("aug_smooth"):
            return Whole(lambda outputs: finer(outputs, alpha, places, category))
        inputs = Inputs.of(given, options.get("model_args", ()), options.get("model_kwargs"), self.base_cam.device)
        args, kwargs = inputs.placed(inputs.images)
        with evaluation(self.base_cam.model), torch.no_grad():
            outputs = select(self.base_cam.model(*args, **kwargs), getattr(self.base_cam, "_output", None))
        main, others = neighbors(outputs, places, category)
        return [FinerWeightedTarget(c, near, alpha) for c, near in zip(main.tolist(), others.tolist(), strict=True)]

    def __enter__(self) -> FinerCAM:
        """The object itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Forget activations and gradients; an exception goes on."""
        self.base_cam.activations_and_grads.release()


def neighbors(outputs: Any, places: Sequence[int] | None, category: int | None) -> tuple[Tensor, Tensor]:
    """The class of each image (B,), and the classes at these places of the order of nearness to it (B, n).

    Raises:
        ValueError: outputs that are no (B, classes), a class out of range, or fewer than two classes.
    """
    if not isinstance(outputs, Tensor) or outputs.dim() != 2 or outputs.shape[1] < 2:
        raise ValueError(
            f"FinerCAM compares two classes or more, outputs (B, classes); the model gave a {describe(outputs)}"
        )
    scores = outputs.detach()
    classes = scores.shape[1]
    if category is not None and not -classes <= category < classes:
        raise ValueError(f"target_idx={category} is out of range, the model has classes 0 to {classes - 1}")
    main = scores.argmax(1) if category is None else torch.full_like(scores[:, 0], category % classes).long()
    distances = (scores - scores.gather(1, main[:, None])).abs().scatter(1, main[:, None], -1.0)
    kept = [p for p in (DEFAULT_COMPARISON_CATEGORIES if places is None else places) if p < classes]
    if not kept:
        raise ValueError(f"comparison_categories={places!r} names no place below the {classes} classes of the model")
    return main, distances.sort(dim=1, stable=True).indices[:, kept]


def finer(outputs: Tensor, alpha: float, places: Sequence[int] | None, category: int | None) -> Tensor:
    """Finer-CAM's score of each image. (B, classes) -> (B,)"""
    main, others = neighbors(outputs, places, category)
    scores = widen(outputs)
    near, p = scores.gather(1, others), scores.softmax(1).gather(1, others)
    return (p * (scores.gather(1, main[:, None]) - alpha * near)).sum(1) / (p.sum(1) + 1e-9)


class RefineCAM:
    """Π_l m_l, the product of the maps of several layers, in [0, 1] again: RefineCAM 2026, arXiv:2605.14641.

    Args:
        model: see `BaseCAM`.
        target_layers: two or more, usually.
        reshape_transform: see `BaseCAM`.
        base_method: the class that draws each layer's map.
        **kwargs: of that class.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Reshape = None,
        base_method: Callable[..., Any] = GradCAMPlusPlus,
        **kwargs: Any,
    ) -> None:
        layers = list(target_layers)
        if not layers:
            raise ValueError("target_layers is empty; give the layers whose maps are to be multiplied")
        self.base_cam_per_layer = [base_method(model, [layer], reshape_transform, **kwargs) for layer in layers]
        base = self.base_cam_per_layer[0]
        self._together = base_method(model, layers, reshape_transform, **kwargs) if isinstance(base, BaseCAM) else None
        self.outputs: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As `forward`."""
        return self.forward(*args, **kwargs)

    def forward(self, input_tensor: Any, targets: Any = None, eigen_smooth: bool = False, **options: Any) -> Any:
        """The maps of a batch; arguments as `BaseCAM.__call__`.

        Returns:
            (B, H, W)
        """
        cam = self._together
        if cam is not None and not options.get("aug_smooth") and in_one_forward(cam, eigen_smooth):
            given = {name: options.pop(name, default) for name, default in (("model_args", ()), ("model_kwargs", None))}
            inputs = Inputs.of(input_tensor, given["model_args"], given["model_kwargs"], cam.device)
            maps = explained(cam, inputs, cam._asked(targets, inputs), eigen_smooth, join=product)
            self.outputs = cam.outputs
            as_tensor = options.get("as_tensor")
            return maps if (cam.as_tensor if as_tensor is None else as_tensor) else in_numpy(maps)
        # pytorch-grad-cam hands eigen_smooth on in the place of aug_smooth.
        smooth = {"aug_smooth" if cam is not None and cam.strict_compat else "eigen_smooth": eigen_smooth}
        each = [base(input_tensor, targets, **{**smooth, **options}) for base in self.base_cam_per_layer]
        self.outputs = getattr(self.base_cam_per_layer[0], "outputs", None)
        if isinstance(each[0], Tensor):
            return product(each)
        return in_numpy(product([torch.from_numpy(one) for one in each]))


def in_one_forward(cam: BaseCAM, eigen_smooth: bool) -> bool:
    """Whether the engine gives the maps of all layers, and nothing is done with them on the way."""
    same = not overridden(cam, "__call__", "forward", "aggregate_multi_layers")
    return same and not cam.strict_compat and not cam._method_is_at_input and engine_serves(cam, eigen_smooth)


def product(maps: Sequence[Tensor]) -> Tensor:
    """The product of maps, each in [0, 1], and in [0, 1] again. (..., H, W)"""
    flat = [one.flatten(0, -3) for one in maps]
    return scale_cam_image(torch.stack([scale_cam_image(one) for one in flat]).prod(0)).view(maps[0].shape)
