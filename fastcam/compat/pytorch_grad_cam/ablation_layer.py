"""What stands in for a target layer in `AblationCAM`: its own output, one channel off in each row."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from fastcam.compat import strict_compat as strictness
from fastcam.compat.pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

BURIED = 1e7  # below the smallest value, where pytorch-grad-cam puts a channel whose layer has no exact zero at least
BURIED_PYRAMID = -1000.0  # likewise of a feature pyramid


class AblationLayer(nn.Module):
    """Gives the kept activations of one image, row i with channel `indices[i]` set to zero.

    Args:
        strict_compat: bury the channel as pytorch-grad-cam does, 1e7 below the smallest value so far, unless that is 0.
    """

    def __init__(self, strict_compat: bool | None = None) -> None:
        super().__init__()
        self.strict_compat = strictness() if strict_compat is None else strict_compat
        self.indices: Any = np.zeros(0, np.int32)
        self.activations: Any = None

    def objectiveness_mask_from_svd(self, activations: np.ndarray, threshold: float = 0.01) -> np.ndarray:
        """Which cells stand out in the magnitude of the first component. (C, h, w) -> (h, w) bool"""
        found = np.abs(get_2d_projection(activations[None])[0])
        found = found - found.min()
        top = found.max()
        return found > threshold * top if top > 0 else np.ones_like(found, dtype=bool)

    def activations_to_be_ablated(self, activations: np.ndarray, ratio_channels_to_ablate: float = 1.0) -> np.ndarray:
        """All channels, or those with the most and with the least of their mass where cells stand out, to switch off.

        Args:
            activations: (C, h, w)
            ratio_channels_to_ablate: the share of channels to take from either end.

        Returns:
            (n,) int32.
        """
        count = len(activations)
        self.indices = np.arange(count, dtype=np.int32)
        if ratio_channels_to_ablate == 1.0:
            return self.indices
        mask = self.objectiveness_mask_from_svd(activations)
        size = np.abs(activations).reshape(count, -1)
        size = size - size.min(1, keepdims=True)
        total = size.sum(1)
        inside = (size * mask.reshape(-1)).sum(1) / np.where(total > 0, total, 1)
        order, many = np.argsort(inside), int(count * ratio_channels_to_ablate)
        self.indices = np.concatenate([order[::-1][:many], order[:many]]).astype(np.int32)
        return self.indices

    def set_next_batch(self, input_batch_index: int, activations: Any, num_channels_to_ablate: int) -> None:
        """Keep so many copies of one image's activations."""
        own = activations[input_batch_index : input_batch_index + 1]
        self.activations = own.repeat(num_channels_to_ablate, *[1] * (own.dim() - 1))

    def forward(self, x: Any) -> Any:
        """The kept activations with their channels off; what the layer gave is not used."""
        return self._switched_off(self.activations)

    def _switched_off(self, output: Tensor) -> Tensor:
        for i, channel in zip(range(len(output)), self.indices, strict=False):
            low = output.min() if self.strict_compat else output.new_zeros(())
            output[i, int(channel)] = 0 if low == 0 else low - BURIED
        return output


class AblationLayerVit(AblationLayer):
    """The same of layers that give their channels last, such as tokens (B, N, C)."""

    def forward(self, x: Any) -> Any:
        """The kept activations with their channels off."""
        return self._switched_off(self.activations.movedim(-1, 1)).movedim(1, -1)


class AblationLayerFasterRCNN(AblationLayer):
    """The same of a feature pyramid, levels by name, whose channels are counted through in their order."""

    def set_next_batch(self, input_batch_index: int, activations: Any, num_channels_to_ablate: int) -> None:
        """Keep so many copies of one image's levels."""
        at = input_batch_index
        self.activations = {
            name: level[at : at + 1].repeat(num_channels_to_ablate, 1, 1, 1) for name, level in activations.items()
        }

    def forward(self, x: Any) -> Any:
        """The kept levels with their channels off."""
        rows = len(next(iter(self.activations.values())))
        off = BURIED_PYRAMID if self.strict_compat else 0.0
        for i, channel in zip(range(rows), self.indices, strict=False):
            left = int(channel)
            for level in self.activations.values():
                if left < level.shape[1]:
                    level[i, left] = off
                    break
                left -= level.shape[1]
        return type(x)(self.activations) if isinstance(x, dict) else self.activations


def zeroed(layer: Any) -> bool:
    """Whether this is one of ours that sets channels of one tensor to zero, which fastcam's engine does itself."""
    return type(layer) in (AblationLayer, AblationLayerVit) and not layer.strict_compat
