"""LayerGradCam, GuidedGradCam and LayerGradientXActivation, called as captum's own."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fastcam import CAM

from .layers import Values, gradients
from .targets import Target, scored, select

__all__ = ["GuidedGradCam", "LayerAttribution", "LayerGradCam", "LayerGradientXActivation"]

Inputs = Tensor | tuple[Tensor, ...]
RANKS = (3, 4, 5)  # axes of signals, pictures and volumes in batches


class LayerAttribution:
    """Attributions at a layer.

    Args:
        forward_func: the model, or any callable that runs the layer.
        layer: one module; a list where the class takes several.
        device_ids: of a model spread over devices, which is refused: attribute its inner module instead.
    """

    def __init__(
        self, forward_func: Callable[..., Any], layer: nn.Module | list[nn.Module], device_ids: list[int] | None = None
    ) -> None:
        if not callable(forward_func):
            raise TypeError(f"forward_func must be callable, got {type(forward_func).__name__}")
        self.layers: Sequence[nn.Module] = layer if isinstance(layer, list) else [layer]
        for one in self.layers:
            if not isinstance(one, nn.Module):
                raise TypeError(f"layer must be an nn.Module, such as model.layer4, got {one!r}")
        if len(device_ids or ()) > 1:
            raise ValueError(
                f"device_ids={device_ids!r}: give the inner module of a DataParallel, and run on one device"
            )
        # On one device a DataParallel only hands on what it is given.
        self.forward_func = forward_func.module if isinstance(forward_func, nn.DataParallel) else forward_func
        self.layer = layer
        self.device_ids = device_ids

    @staticmethod
    def interpolate(
        layer_attribution: Tensor, interpolate_dims: int | tuple[int, ...], interpolate_mode: str = "nearest"
    ) -> Tensor:
        """Attributions (N, C, *cells) at another size, as `torch.nn.functional.interpolate` resizes.

        Args:
            layer_attribution: with one to three spatial axes.
            interpolate_dims: the new size.
            interpolate_mode: "nearest", "area", "linear", "bilinear", "bicubic" or "trilinear".
        """
        return interpolate(layer_attribution, interpolate_dims, mode=interpolate_mode)

    def _gradients(
        self, inputs: Inputs, target: Target, further: Any, at_input: bool, grad_kwargs: dict[str, Any] | None
    ) -> list[tuple[Values, Values]]:
        given = (*as_tuple(inputs), *as_tuple(further))
        if any(isinstance(one, Tensor) and one.is_inference() for one in given):
            given = tuple(one.clone() if isinstance(one, Tensor) else one for one in given)
        return gradients(lambda: select(self.forward_func(*given), target), self.layers, at_input, grad_kwargs)


class LayerGradCam(LayerAttribution):
    """Σ_k mean(dS/dA_k) A_k, signed and not normalized: Grad-CAM before its ReLU.

    A model in evaluation mode is explained by `fastcam.CAM`: its maps are float32 and hold no graph, and of tokens or
    of features that stand last they are maps as well. Anything else, such as a plain function, a model in training
    mode, `attribute_to_layer_input` or `grad_kwargs`, goes by hooks and autograd and keeps the graph, as captum's do.

    Source: Selvaraju 2017, arXiv:1610.02391, eq. 1-2.

    Args:
        forward_func: the model, or any callable that runs the layer.
        layer: of the maps.
        device_ids: None, or one device.
    """

    def __init__(self, forward_func: Callable[..., Any], layer: nn.Module, device_ids: list[int] | None = None) -> None:
        if isinstance(layer, list):
            raise TypeError(f"layer must be one nn.Module, got a list of {len(layer)}; make a LayerGradCam of each")
        super().__init__(forward_func, layer, device_ids)

    def attribute(
        self,
        inputs: Inputs,
        target: Target = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = False,
        attr_dim_summation: bool = True,
        grad_kwargs: dict[str, Any] | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """The maps of a batch.

        Args:
            inputs: of the model, N examples each.
            target: the score: an int or a tuple of indices after the first axis, N of them as a list or tensor, or
                None where the model gives one score an example.
            additional_forward_args: further inputs, as they are.
            attribute_to_layer_input: at what the layer is given.
            relu_attributions: positive parts only.
            attr_dim_summation: add up the channels.
            grad_kwargs: of `torch.autograd.grad`, such as create_graph=True.

        Returns:
            (N, 1, *cells), or (N, C, *cells) without summation; a tuple where the layer has several values.

        Raises:
            ValueError: a target that does not fit, a layer that did not run, or one without maps.
            TypeError: an argument of another kind.
        """
        plain = attr_dim_summation and not attribute_to_layer_input and not grad_kwargs
        if plain and self._is_plain(inputs, target):
            x, *others = as_tuple(inputs)
            cam = CAM(self.forward_func, "gradcam", self.layer)  # type: ignore[arg-type]
            chosen = scored(target, len(x))
            raw = cam.explain(x, *others, *as_tuple(additional_forward_args), target=chosen).raw
            assert isinstance(raw, Tensor)
            maps = raw[:, None]
            return maps.relu() if relu_attributions else maps
        ((g, values),) = self._gradients(inputs, target, additional_forward_args, attribute_to_layer_input, grad_kwargs)
        found = []
        for one, value in zip(g, values, strict=True):
            weights = one.mean(tuple(range(2, one.dim())), keepdim=True) if one.dim() > 2 else one
            attribution = weights * value
            attribution = attribution.sum(1, keepdim=True) if attr_dim_summation else attribution
            found.append(attribution.relu() if relu_attributions else attribution)
        return tuple(found) if len(found) > 1 else found[0]

    def _is_plain(self, inputs: Inputs, target: Target) -> bool:
        """Whether `fastcam.CAM` takes it."""
        model, (x, *_) = self.forward_func, as_tuple(inputs)
        return (
            isinstance(model, nn.Module)
            and not any(module.training for module in model.modules())
            and any(module is self.layer for module in model.modules())
            and model is not self.layer
            and isinstance(x, Tensor)
            and x.is_floating_point()
            and x.dim() in RANKS
        )


class LayerGradientXActivation(LayerAttribution):
    """dS/dA · A at every value of a layer, or the gradient alone.

    Args:
        forward_func: the model, or any callable that runs the layers.
        layer: one, or a list of them.
        device_ids: None, or one device.
        multiply_by_inputs: times A.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module | list[nn.Module],
        device_ids: list[int] | None = None,
        multiply_by_inputs: bool = True,
    ) -> None:
        super().__init__(forward_func, layer, device_ids)
        self.multiplies_by_inputs = multiply_by_inputs

    def attribute(
        self,
        inputs: Inputs,
        target: Target = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        grad_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Attributions in the layer's own shape, a list of them for a list of layers; see `LayerGradCam.attribute`."""
        found = []
        for g, values in self._gradients(
            inputs, target, additional_forward_args, attribute_to_layer_input, grad_kwargs
        ):
            own = [a * v if self.multiplies_by_inputs else a for a, v in zip(g, values, strict=True)]
            found.append(tuple(own) if len(own) > 1 else own[0])
        return found if isinstance(self.layer, list) else found[0]


class GuidedGradCam:
    """Guided backpropagation · up(relu(Grad-CAM)).

    All ReLUs follow the rule, modules and functions alike. The model runs in evaluation mode.

    Source: Selvaraju 2017, arXiv:1610.02391, section 3.2.

    Args:
        model: with ReLUs.
        layer: of Grad-CAM.
        device_ids: None, or one device.
    """

    def __init__(self, model: nn.Module, layer: nn.Module, device_ids: list[int] | None = None) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
        self.grad_cam = LayerGradCam(model, layer, device_ids)
        self.model: nn.Module = model.module if isinstance(model, nn.DataParallel) else model

    def attribute(
        self,
        inputs: Inputs,
        target: Target = None,
        additional_forward_args: Any = None,
        interpolate_mode: str = "nearest",
        attribute_to_layer_input: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        """Attributions of the inputs.

        Args:
            inputs: see `LayerGradCam.attribute`.
            target: see there.
            additional_forward_args: see there.
            interpolate_mode: how maps are resized; the paper's is "bilinear".
            attribute_to_layer_input: see there.

        Returns:
            The shape of each input; an empty tensor, after a warning, of one that the map cannot be resized to.
        """
        given = as_tuple(inputs)
        with _evaluated(self.model):
            maps = self.grad_cam.attribute(
                inputs, target, additional_forward_args, attribute_to_layer_input, relu_attributions=True
            )
        if isinstance(maps, tuple):
            raise ValueError(f"the layer has {len(maps)} values; GuidedGradCam needs one with a single map")
        found = [
            self._of_one(index, given, target, as_tuple(additional_forward_args), maps.detach(), interpolate_mode)
            for index in range(len(given))
        ]
        return tuple(found) if isinstance(inputs, tuple) else found[0]

    def _of_one(
        self, index: int, given: tuple[Any, ...], target: Target, further: tuple[Any, ...], maps: Tensor, mode: str
    ) -> Tensor:
        x = given[index]
        if x.dim() != maps.dim() or x.dim() not in RANKS:
            warnings.warn(
                f"input {index} of shape {tuple(x.shape)} has other axes than the map {tuple(maps.shape)}, which "
                "cannot be resized to it; its attributions are an empty tensor",
                stacklevel=4,
            )
            return torch.empty(0)
        others = (*given[:index], *given[index + 1 :])
        cam = CAM(_First(self.model, index) if index else self.model, "guidedbackprop")
        back = cam.explain(x, *others, *further, target=scored(target, len(x))).attributions
        assert back is not None
        return back * LayerAttribution.interpolate(maps, tuple(x.shape[2:]), mode).to(back)


@contextlib.contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, whatever the mode is, and that one again."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training


class _First(nn.Module):
    """The model with another of its inputs as the first."""

    def __init__(self, model: nn.Module, index: int) -> None:
        super().__init__()
        self.model, self.index = model, index
        self.training = model.training

    def forward(self, x: Any, *others: Any) -> Any:
        return self.model(*others[: self.index], x, *others[self.index :])


def as_tuple(value: Any) -> tuple[Any, ...]:
    """Several values, one, or none."""
    return value if isinstance(value, tuple) else () if value is None else (value,)
