"""Maps weighed by scores: of images under the layer's own maps, and of the layer with a channel off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastcam.compat.pytorch_grad_cam.ablation_layer import AblationLayer, zeroed
from fastcam.compat.pytorch_grad_cam.asking import score_of
from fastcam.compat.pytorch_grad_cam.base_cam import BaseCAM
from fastcam.compat.pytorch_grad_cam.recorded import in_numpy
from fastcam.model.outputs import select
from fastcam.ops import mask_images

Reshape = Callable[[Any], Tensor] | None
ROWS = 16  # of a forward where arrays are asked for and nobody says more


class ScoreCAM(BaseCAM):
    """w = softmax over the channels of the scores of x H_k, H_k the resized A_k in [0, 1]: Wang 2020, arXiv:1910.01279.

    Masks are resized with aligned corners. The attribute `batch_size` or the argument `max_memory` bounds the memory.
    """

    _method = "scorecam"
    _runs_again = True

    def __init__(
        self, model: nn.Module, target_layers: Sequence[nn.Module], reshape_transform: Reshape = None, **options: Any
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, **{"uses_gradients": False, **options})

    def _options(self) -> dict[str, Any]:
        return {"align_corners": True}

    def get_cam_weights(
        self, input_tensor: Tensor, target_layers: nn.Module, targets: list[Any], activations: Any, grads: Any
    ) -> np.ndarray:
        """(B, C)"""
        maps = torch.as_tensor(in_numpy(activations)).to(input_tensor.device)
        rows, scores = getattr(self, "batch_size", ROWS), []
        with torch.no_grad():
            for image, target, own in zip(input_tensor, targets, maps, strict=True):
                for start in range(0, len(own), rows):
                    stop = min(start + rows, len(own))
                    masked, _ = mask_images(own[None], image[None], start, stop, None, "after", True)
                    outputs = select(self.model(masked), self._output)
                    scores += [score_of(target, output) for output in outputs]
        return in_numpy(torch.stack(scores).float().view(maps.shape[:2]).softmax(1))


class AblationCAM(BaseCAM):
    """w_k = (y - y_k) / y, y_k the score with channel k set to zero: Desai 2020, WACV, eq. 2-3.

    Behind global average pooling no masked forward is needed. No module is swapped.

    Args:
        model: see `BaseCAM`.
        target_layers: see `BaseCAM`.
        reshape_transform: see `BaseCAM`.
        ablation_layer: how a channel is switched off; None sets it to zero.
        batch_size: rows of a forward.
        ratio_channels_to_ablate: below 1.0, the share of channels from either end of a ranking that are switched off;
            the others get the weight 0.
        **options: of `BaseCAM`.
    """

    _method = "ablationcam"
    _runs_again = True

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Reshape = None,
        ablation_layer: Any = None,
        batch_size: int = 32,
        ratio_channels_to_ablate: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, **{"uses_gradients": False, **options})
        self.batch_size = batch_size
        self.ablation_layer: Any = AblationLayer(self.strict_compat) if ablation_layer is None else ablation_layer
        self.ratio_channels_to_ablate = ratio_channels_to_ablate

    def _plain(self, eigen_smooth: bool) -> bool:
        return not self.strict_compat and self.ratio_channels_to_ablate == 1.0 and zeroed(self.ablation_layer)

    def save_activation(self, module: nn.Module, input: Any, output: Any) -> None:  # noqa: A002 - the peer's word
        """Keep what the target layer gives."""
        self.activations = output.clone() if isinstance(output, Tensor) else output

    def assemble_ablation_scores(
        self, new_scores: list[float], original_score: float, ablated_channels: np.ndarray, number_of_channels: int
    ) -> list[float]:
        """The scores of all channels, the original one where none was switched off."""
        scores = np.full(number_of_channels, original_score, dtype=np.float32)
        scores[np.asarray(ablated_channels, dtype=np.int64)] = new_scores
        return scores.tolist()

    def get_cam_weights(
        self, input_tensor: Tensor, target_layers: nn.Module, targets: list[Any], activations: Any, grads: Any
    ) -> np.ndarray:
        """(B, C)"""
        layer, activations = self.ablation_layer, in_numpy(activations)
        channels, rows, weights = activations.shape[1], self.batch_size, []

        def scores(images: Tensor, asked: list[Any], hook: Any) -> list[float]:
            handle = target_layers.register_forward_hook(hook)
            try:
                with torch.no_grad():
                    outputs = select(self.model(images), self._output)
            finally:
                handle.remove()
            return [float(score_of(target, output)) for target, output in zip(asked, outputs, strict=True)]

        original = np.array(scores(input_tensor, targets, self.save_activation), dtype=np.float32)
        for at, (target, image) in enumerate(zip(targets, input_tensor, strict=True)):
            chosen = layer.activations_to_be_ablated(activations[at], self.ratio_channels_to_ablate)
            found: list[float] = []
            for start in range(0, len(chosen), rows):
                count = min(rows, len(chosen) - start)
                layer.set_next_batch(input_batch_index=at, activations=self.activations, num_channels_to_ablate=count)
                images = image[None].expand(count, *image.shape)
                found += scores(images, [target] * count, lambda module, given, output: layer(output))
                layer.indices = layer.indices[count:]
            weights.append(self.assemble_ablation_scores(found, float(original[at]), chosen, channels))
        by = np.where(original == 0, 1, original)[:, None]
        return (original[:, None] - np.array(weights, dtype=np.float32)) / by
