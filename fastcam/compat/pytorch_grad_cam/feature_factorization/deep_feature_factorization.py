"""Deep Feature Factorization: a few concepts of a layer and where they are, Collins 2018, arXiv:1806.10206."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastcam.compat.pytorch_grad_cam.activations_and_gradients import ActivationsAndGradients
from fastcam.compat.pytorch_grad_cam.arrays import as_given, to_tensor
from fastcam.compat.pytorch_grad_cam.feature_factorization.random_start import factor_from
from fastcam.compat.pytorch_grad_cam.utils.concepts import create_labels_legend, show_factorization_on_image
from fastcam.compat.pytorch_grad_cam.utils.image import scale_cam_image
from fastcam.model.capture import evaluation


def dff(activations: Any, n_components: int = 5) -> tuple[Any, Any]:
    """A - o = W H, o each channel's smallest value: channels times all cells of all images, none of it negative.

    Args:
        activations: (B, C, h, w), an array or a tensor, which is not changed; NaN counts as 0.
        n_components: K

    Returns:
        The concepts W + o (C, K), and where they are, H as (B, K, h, w); arrays, or tensors where one was given.

    Raises:
        ValueError: another shape, infinite values, or K below 1.
    """
    a = to_tensor(activations, "activations")
    if a.dim() != 4 or a.numel() == 0:
        raise ValueError(f"activations have shape {tuple(a.shape)}; expected (B, C, h, w), see reshape_transform")
    if isinstance(n_components, bool) or not isinstance(n_components, (int, np.integer)) or n_components < 1:
        raise ValueError(f"n_components is {n_components!r}; give a positive int")
    a = a if a.dtype == torch.float64 else a.float()
    v = torch.where(a.isnan(), 0, a).transpose(0, 1).flatten(1)
    if not v.isfinite().all():
        raise ValueError("activations hold infinite values; check the model's weights and images")
    low = v.amin(1, keepdim=True)
    found = factor_from((v - low).cpu().numpy(), int(n_components))
    w, h = (torch.from_numpy(factor).to(a.device) for factor in found)
    places = h.view(-1, len(a), *a.shape[2:]).transpose(0, 1)
    return as_given(w + low, activations), as_given(places, activations)


class DeepFeatureFactorization:
    """Concepts of a batch at a layer, and their maps at the images' size.

    The model runs in evaluation mode without gradients and is left as it was.

    Args:
        model: to run.
        target_layer: whose activations are factorized.
        reshape_transform: what the layer gives -> (B, C, h, w), or None.
        computation_on_concepts: concepts (K, C) -> (K, classes), such as the model's classifier; a module gets them on
            its own device, in its own type, anything else as float32 on the CPU.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: nn.Module,
        reshape_transform: Callable[[Any], Tensor] | None = None,
        computation_on_concepts: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.model = model
        self.computation_on_concepts = computation_on_concepts
        self.activations_and_grads = ActivationsAndGradients(model, [target_layer], reshape_transform)

    def __call__(self, input_tensor: Tensor, n_components: int = 16) -> tuple[Any, ...]:
        """Factorize the layer's activations of a batch.

        Args:
            input_tensor: (B, C, H, W)
            n_components: K

        Returns:
            The concepts (C', K) of the layer's C' channels; a list of B arrays (K, H, W), each map scaled to [0, 1];
            and with `computation_on_concepts` its result, an array (K, classes).

        Raises:
            ValueError: images that are no batch, a layer that never ran, or K below 1.
        """
        if not isinstance(input_tensor, Tensor) or input_tensor.dim() != 4:
            found = tuple(input_tensor.shape) if isinstance(input_tensor, Tensor) else type(input_tensor).__name__
            raise ValueError(f"input_tensor is {found}; expected images (B, C, H, W)")
        height, width = input_tensor.shape[2:]
        with evaluation(self.model), torch.no_grad():
            self.activations_and_grads(input_tensor)
        seen = self.activations_and_grads.activations
        if not seen:
            raise ValueError("the target layer never ran in the forward; choose one on the model's path")
        concepts, places = dff(seen[0], n_components)
        maps = [scale_cam_image(one.numpy(), (width, height)) for one in places]
        if self.computation_on_concepts is None:
            return concepts.numpy(), maps
        return concepts.numpy(), maps, self._computed(concepts.float().T.contiguous())

    def _computed(self, concepts: Tensor) -> np.ndarray:
        compute = self.computation_on_concepts
        assert compute is not None
        module = compute if isinstance(compute, nn.Module) else None
        parameter = next(module.parameters(), None) if module is not None else None
        with evaluation(module) if module is not None else contextlib.nullcontext(), torch.no_grad():
            result = compute(concepts if parameter is None else concepts.to(parameter))
        return (result.float() if result.dtype in (torch.float16, torch.bfloat16) else result).cpu().numpy()

    def __enter__(self) -> DeepFeatureFactorization:
        """The object itself."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Forget the activations; errors go on."""
        self.activations_and_grads.release()


def run_dff_on_image(
    model: nn.Module,
    target_layer: nn.Module,
    classifier: Callable[[Tensor], Tensor],
    img_pil: Any,
    img_tensor: Tensor,
    reshape_transform: Callable[[Any], Tensor] | None = None,
    n_components: int = 5,
    top_k: int = 2,
) -> np.ndarray:
    """The picture, its concepts in color, and a legend with the classes of each, side by side.

    Args:
        model: a Hugging Face classifier, or any with the classes' names in `model.config.id2label`.
        target_layer: whose activations are factorized.
        classifier: concepts (K, C) -> (K, classes).
        img_pil: a Pillow image in RGB, or (H, W, 3) bytes, of the size of the model's input.
        img_tensor: (C, H, W), the same as the model takes it.
        reshape_transform: what the layer gives -> (B, C, h, w), or None.
        n_components: K
        top_k: classes a concept in the legend.

    Returns:
        (H, 3 W, 3) uint8.

    Raises:
        ValueError: a model without names of classes, or a picture of another size.
    """
    names = getattr(getattr(model, "config", None), "id2label", None)
    if names is None:
        raise ValueError(
            f"{type(model).__name__} has no config.id2label, the names of its classes; set it, or call "
            "DeepFeatureFactorization and show_factorization_on_image"
        )
    picture = np.array(img_pil)
    if picture.shape != (*img_tensor.shape[1:], 3):
        raise ValueError(
            f"img_pil has shape {picture.shape} and img_tensor {tuple(img_tensor.shape)}; expected (H, W, 3) and "
            "(C, H, W) of the same size"
        )
    factors = DeepFeatureFactorization(model, target_layer, reshape_transform, classifier)
    _, maps, outputs = factors(img_tensor[None], n_components)
    texts = create_labels_legend(torch.from_numpy(outputs).softmax(-1).numpy(), names, top_k)
    shown = show_factorization_on_image(picture / 255, maps[0], image_weight=0.3, concept_labels=texts)
    return np.hstack((picture, shown))
