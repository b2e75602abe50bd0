"""`BaseCAM`: pytorch-grad-cam's call, attributes and override points over fastcam's engine."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from fastcam.compat import strict_compat as strictness
from fastcam.compat.pytorch_grad_cam.activations_and_gradients import ActivationsAndGradients
from fastcam.compat.pytorch_grad_cam.asking import Asked, Inputs, asked, predicted
from fastcam.compat.pytorch_grad_cam.drawing import drawn, overridden
from fastcam.compat.pytorch_grad_cam.recorded import arrays_of, in_numpy, weigh
from fastcam.compat.pytorch_grad_cam.utils.image import scale_cam_image
from fastcam.model.capture import evaluation
from fastcam.model.layers import find
from fastcam.model.outputs import select

REMOVED = {"use_cuda": "move the model instead: model.to('cuda'); the images follow it"}


class Flipped:
    """One of aug_smooth's six versions of an image: flipped or not, times a factor."""

    def __init__(self, flip: bool, factor: float) -> None:
        self.flip, self.factor = flip, factor

    def augment_image(self, images: Tensor) -> Tensor:
        """The version. (..., W)"""
        return (images.flip(-1) if self.flip else images) * self.factor

    def deaugment_mask(self, masks: Tensor) -> Tensor:
        """Its map on the image itself. (..., W)"""
        return masks.flip(-1) if self.flip else masks


class BaseCAM:
    """A class activation map with pytorch-grad-cam's names.

    Where no method is overridden, fastcam's engine gives the maps: one forward, no hooks that stay, no copy to NumPy
    before the end. A subclass with its own `get_cam_weights`, `get_cam_image` or `compute_cam_per_layer` gets NumPy
    activations and gradients as there. The model's mode, `.grad` and modules stay as they are.

    Args:
        model: maps images to outputs; explained in evaluation mode, whatever its own is.
        target_layers: modules of the model, or their names.
        reshape_transform: what a layer gives -> (B, C, h, w); None finds grids of tokens and channels-last maps.
        compute_input_gradient: subclasses that need it read `input_tensor.grad`.
        uses_gradients: whether a subclass gets gradients.
        tta_transforms: of `aug_smooth`, with `augment_image` and `deaugment_mask` each, such as `ttach.Compose`.
        detach: False hands tensors with their graph to a subclass instead of arrays.
        as_tensor: give maps as tensors on the images' device instead of arrays.
        output: what targets score in the model's output, see `fastcam.CAM`.
        max_memory: bytes that masked forwards may take, see `fastcam.CAM`; so does the attribute `batch_size` rows.
        strict_compat: give pytorch-grad-cam's own value where ours differs; None is `fastcam.compat.strict_compat()`.

    Raises:
        TypeError: an argument that is no longer there, or target layers that are none.
    """

    batch_size: int  # rows of a masked forward, where somebody sets it

    _method: ClassVar[str | None] = None  # fastcam's method; None where NumPy hooks are the only way
    _targetless: ClassVar[bool] = False  # the same map for every target
    _clipped: ClassVar[bool] = True  # the engine cuts negative values before it resizes, as pytorch-grad-cam does
    _gives_map: ClassVar[bool] = False  # the method has no weighed channels for eigen_smooth
    _method_is_at_input: ClassVar[bool] = False  # it has no target layers
    _runs_again: ClassVar[bool] = False  # as arrays it runs the model on masked images

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Any], Tensor] | None = None,
        compute_input_gradient: bool = False,
        uses_gradients: bool = True,
        tta_transforms: Any = None,
        detach: bool = True,
        *,
        as_tensor: bool = False,
        output: Any = None,
        max_memory: int | None = None,
        strict_compat: bool | None = None,
        **removed: Any,
    ) -> None:
        for name in removed:
            raise TypeError(
                f"{type(self).__name__} has no argument {name!r}; "
                f"{REMOVED.get(name, 'see help(' + type(self).__name__ + ') for those it has')}"
            )
        if target_layers is None or isinstance(target_layers, str):
            raise TypeError(
                f"target_layers must be a list of modules such as [model.layer4[-1]], got {target_layers!r}"
            )
        alone = isinstance(target_layers, nn.Module) and not hasattr(target_layers, "__iter__")
        layers: Any = [target_layers] if alone else list(target_layers)
        self.model = model
        self.target_layers: list[nn.Module] = [find(model, one)[1] if isinstance(one, str) else one for one in layers]
        self.reshape_transform = reshape_transform
        self.compute_input_gradient = compute_input_gradient
        self.uses_gradients = uses_gradients
        pairs = itertools.product((False, True), (0.9, 1.0, 1.1))
        self.tta_transforms = [Flipped(*pair) for pair in pairs] if tta_transforms is None else tta_transforms
        self.detach = detach
        self.as_tensor = as_tensor
        self.max_memory = max_memory
        self.strict_compat = strictness() if strict_compat is None else strict_compat
        self.outputs: Any = None
        self._output = output
        self._engine: Any = None
        self._device: torch.device | None = None
        if self.strict_compat:
            model.eval()
        self.activations_and_grads: Any = ActivationsAndGradients(model, self.target_layers, reshape_transform, detach)

    @property
    def device(self) -> torch.device:
        """Where the model is, and the images are moved to."""
        tensors = itertools.chain(self.model.parameters(), self.model.buffers())
        return self._device or next((t.device for t in tensors), torch.device("cpu"))

    @device.setter
    def device(self, value: Any) -> None:
        self._device = torch.device(value)

    def get_cam_weights(
        self,
        input_tensor: Tensor,
        target_layers: nn.Module,
        targets: list[Any],
        activations: Any,
        grads: Any,
    ) -> np.ndarray:
        """Weights of the channels (B, C), for a subclass to say."""
        raise NotImplementedError(
            f"{type(self).__name__} must override get_cam_weights, get_cam_image or compute_cam_per_layer"
        )

    def get_cam_image(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: list[Any],
        activations: Any,
        grads: Any,
        eigen_smooth: bool = False,
    ) -> np.ndarray:
        """Σ_k w_k A_k, or with `eigen_smooth` the principal component of the w_k A_k. (B, h, w)"""
        weights = self.get_cam_weights(input_tensor, target_layer, targets, activations, grads)
        return weigh(weights, activations, eigen_smooth, self.strict_compat)

    def forward(
        self,
        input_tensor: Any,
        targets: Any,
        eigen_smooth: bool = False,
        *,
        model_args: Sequence[Any] = (),
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """The maps without augmentation; arguments as for a call."""
        inputs = Inputs.of(input_tensor, model_args, model_kwargs, self.device)
        return self._given(drawn(self, inputs, self._asked(targets, inputs), eigen_smooth))

    def get_target_width_height(self, input_tensor: Tensor) -> tuple[int, ...]:
        """The maps' size with its axes in reverse: (W, H) of pictures, (L,) of signals, (W, H, D) of volumes."""
        return tuple(int(length) for length in reversed(input_tensor.shape[2:]))

    def compute_cam_per_layer(self, input_tensor: Tensor, targets: list[Any], eigen_smooth: bool) -> list[np.ndarray]:
        """The map of each layer in [0, 1] at the images' size, (B, 1, H, W)."""
        size, maps = self.get_target_width_height(input_tensor), []
        activations, gradients = arrays_of(self.activations_and_grads, self.detach, len(self.target_layers))
        for layer, a, g in zip(self.target_layers, activations, gradients, strict=True):
            cam = in_numpy(self.get_cam_image(input_tensor, layer, targets, a, g, eigen_smooth))
            maps.append(self._scaled(np.maximum(cam, 0), size)[:, None])
        return maps

    def aggregate_multi_layers(self, cam_per_target_layer: Any) -> Any:
        """The mean of the layers' maps, in [0, 1] again. (B, H, W)"""
        if isinstance(cam_per_target_layer[0], Tensor):
            return self._scaled(torch.cat(list(cam_per_target_layer), 1).relu().mean(1))
        return self._scaled(np.maximum(np.concatenate(cam_per_target_layer, axis=1), 0).mean(axis=1))

    def forward_augmentation_smoothing(
        self,
        input_tensor: Any,
        targets: Any,
        eigen_smooth: bool = False,
        *,
        model_args: Sequence[Any] = (),
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """The mean of the maps of several versions of the images, which all explain the images' own classes."""
        inputs = Inputs.of(input_tensor, model_args, model_kwargs, self.device)
        if targets is None and not self._targetless and not self.strict_compat:
            args, kwargs = inputs.placed(inputs.images)
            with evaluation(self.model), torch.no_grad():
                targets = predicted(select(self.model(*args, **kwargs), self._output))
        plain = not overridden(self, "forward")
        total, count = torch.zeros((), device=inputs.images.device), 0
        for transform in self.tta_transforms:
            version = replace(inputs, images=transform.augment_image(inputs.images))
            if plain:
                maps = drawn(self, version, self._asked(targets, version), eigen_smooth)
            else:
                args, kwargs = version.placed(version.images)
                others = {"model_args": args[1:], "model_kwargs": kwargs} if args[1:] or kwargs else {}
                maps = torch.as_tensor(self.forward(args[0], targets, eigen_smooth, **others)).to(total.device)
            single = maps.dim() == inputs.images.dim() - 1
            maps = transform.deaugment_mask(maps[:, None] if single else maps)
            total, count = total + (maps[:, 0] if single else maps), count + 1
        return self._given((total / count).float())

    def __call__(
        self,
        input_tensor: Any,
        targets: Any = None,
        aug_smooth: bool = False,
        eigen_smooth: bool = False,
        *,
        as_tensor: bool | None = None,
        model_args: Sequence[Any] = (),
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """The maps of a batch.

        Args:
            input_tensor: (B, C, H, W), signals (B, C, L) or volumes (B, C, D, H, W); or a tuple, list or dict of all
                inputs of the model, of which the first image is explained.
            targets: None for the predicted classes; for each image a callable from its output to a score, or a class;
                one for all; or a list of T for each.
            aug_smooth: the mean over six versions of the images, or over `tta_transforms`; not scaled to [0, 1] again.
            eigen_smooth: the principal component of the weighed channels instead of their sum.
            as_tensor: a tensor on the images' device instead of an array; None is what the constructor was told.
            model_args: further inputs of the model.
            model_kwargs: the same by name.

        Returns:
            (B, H, W), or (B, T, H, W) where each image has T targets: float32 in [0, 1].

        Raises:
            ValueError: targets that do not fit the batch, or what cannot be explained; the message says the mend.
        """
        others = {"model_args": model_args, "model_kwargs": model_kwargs} if model_args or model_kwargs else {}
        run = self.forward_augmentation_smoothing if aug_smooth else self.forward
        before = self.as_tensor
        self.as_tensor = before if as_tensor is None else as_tensor
        try:
            return self._given(run(input_tensor, targets, eigen_smooth, **others))
        finally:
            self.as_tensor = before

    def __enter__(self) -> BaseCAM:
        """The object itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Forget activations and gradients; an exception goes on."""
        self.activations_and_grads.release()

    def _options(self) -> dict[str, Any]:
        """Options of fastcam's method."""
        return {}

    def _plain(self, eigen_smooth: bool) -> bool:
        """Whether the engine gives what is asked for; LAPACK's signs come by way of arrays only."""
        return not (eigen_smooth and self.strict_compat)

    def _signed(self, raw: Tensor) -> Tensor:
        """The engine's maps with pytorch-grad-cam's sign. (N, h, w)"""
        return raw

    def _asked(self, targets: Any, inputs: Inputs) -> Asked:
        several = isinstance(targets, Sequence) and any(isinstance(one, (list, tuple)) for one in targets)
        if self._targetless and not several:
            return Asked(None)
        return asked(targets, len(inputs.images))

    def _scaled(self, maps: Any, size: Sequence[int] | None = None) -> Any:
        return scale_cam_image(maps, size, strict_compat=self.strict_compat)

    def _given(self, maps: Any) -> Any:
        """A tensor or an array, as asked for."""
        return torch.as_tensor(maps, device=self.device) if self.as_tensor else in_numpy(maps)

    def __getstate__(self) -> dict[str, Any]:
        """Without what can be made again."""
        return {**self.__dict__, "_engine": None, "outputs": None}
