"""Maps at another size: as `cv2.resize` does it linearly, without OpenCV."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fastcam.ops.mask_images import mask_images

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def resized(maps: Tensor, size: Sequence[int], cubic: bool = False) -> Tensor:
    """Maps (N, h, w) in float32 at size (H, W), linear in each axis, half-pixel centers, no smoothing when smaller.

    Signals (N, l) and volumes (N, d, h, w) alike, with one or three sizes.

    Args:
        maps: of any number type.
        size: of the result, in the order of the axes.
        cubic: volumes by SciPy's cubic splines, which overshoot.

    Raises:
        ValueError: as many sizes as axes are not given, or a size below 1.
        ImportError: `cubic` without SciPy.
    """
    size = tuple(int(length) for length in size)
    if len(size) != maps.dim() - 1 or len(size) not in LINEAR or min(size) < 1:
        raise ValueError(f"maps of shape {tuple(maps.shape)} cannot be resized to {size}; give a length for each axis")
    maps = maps.float()
    if size == tuple(maps.shape[1:]):
        return maps
    if cubic and len(size) == 3:
        return splined(maps, size)
    if len(size) == 2 and maps.device.type == "cpu":
        # As masks over a white picture: the op's kernel reads no weights from memory, torch's does for each map.
        return mask_images(maps[None], maps.new_ones(1, 1, *size), 0, len(maps), None, "never")[0].view(-1, *size)
    return interpolate(maps[:, None], size, mode=LINEAR[len(size)], align_corners=False)[:, 0]


def splined(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Cubic splines through the cells' values, which stand at the corners: `scipy.ndimage.zoom`."""
    try:
        from scipy.ndimage import zoom  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError(
            "cubic splines of strict_compat=True are SciPy's; pip install scipy, or leave it out"
        ) from None
    factors = [want / have for want, have in zip(size, maps.shape[1:], strict=True)]
    return torch.stack([torch.from_numpy(zoom(one.cpu().numpy(), factors)) for one in maps]).to(maps.device)
