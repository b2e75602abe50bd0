"""torchcam's overlay: a colored map over a picture, Pillow in and Pillow out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastcam.image import COLORMAPS
from fastcam.image import colormap as table_of

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["overlay_mask"]

COLORS = 256
# matplotlib's "jet", which is not the one of MATLAB and OpenCV: where each channel's straight lines meet.
JET = (
    ((0, 0.35, 0.66, 0.89, 1), (0, 0, 1, 1, 0.5)),
    ((0, 0.125, 0.375, 0.64, 0.91, 1), (0, 0, 1, 1, 0, 0)),
    ((0, 0.11, 0.34, 0.65, 1), (0.5, 1, 1, 0, 0)),
)


def overlay_mask(img: Image, mask: Image, colormap: Any = "jet", alpha: float = 0.7) -> Image:
    """Alpha img + (1 - alpha) colors[mask^2], the mask resized to the picture by bicubic interpolation.

    A floating-point mask (mode "F") holds values in [0, 1]. The bytes of a mask of mode "L" are squared modulo 256,
    as torchcam squares them, so that its colors say little: give maps as mode "F".

    Args:
        img: one channel or three.
        mask: one channel.
        colormap: "jet", "gray", or any name or object of matplotlib, which must then be installed; without it
            "turbo", "viridis" and "inferno" are fastcam's own tables, at most 4 of 255 away.
        alpha: weight of the picture, from 0.0 to below 1.0.

    Returns:
        A picture of mode "RGB" and of the size of `img`.

    Raises:
        TypeError: `img` or `mask` is no Pillow image.
        ValueError: another number of channels, an `alpha` outside [0, 1), or an unknown color map.
        ImportError: a color map that needs matplotlib where that is not installed.
    """
    from PIL import Image

    if not isinstance(img, Image.Image) or not isinstance(mask, Image.Image):
        raise TypeError(
            f"img and mask arguments need to be PIL.Image, got {type(img).__name__} and {type(mask).__name__}; "
            "Image.fromarray(array) makes one"
        )
    if not isinstance(alpha, float) or alpha < 0 or alpha >= 1:
        raise ValueError(f"alpha argument is expected to be of type float between 0 and 1, 1 excluded, got {alpha!r}")
    bands = len(img.getbands())
    if bands not in (1, 3):
        raise ValueError(
            f"img argument needs to be a grayscale or RGB image, got mode {img.mode!r}; use .convert('RGB')"
        )
    if len(mask.getbands()) != 1:
        raise ValueError(f"mask argument needs to have one channel, got {mask.mode!r}; use .convert('F')")

    colors = _colors(np.asarray(mask.resize(img.size, resample=Image.Resampling.BICUBIC)) ** 2, colormap)
    if img.mode in ("L", "RGB") and np.isfinite(alpha):
        return Image.blend(Image.fromarray(colors), img.convert("RGB"), alpha)
    picture = np.asarray(img)
    picture = picture if bands == 3 else np.repeat(picture[..., None], 3, axis=-1)
    return Image.fromarray((alpha * picture + (1 - alpha) * colors).astype(np.uint8))


def _colors(values: np.ndarray, colormap: Any) -> np.ndarray:
    """(H, W, 3) uint8: integers count entries of the color map, numbers its whole range from 0 to 1."""
    table = _table(colormap)
    if not isinstance(table, np.ndarray):
        return np.ascontiguousarray(table(values, bytes=True)[..., :3])
    if values.dtype.kind != "f":
        return table[values.astype(np.int64).clip(0, COLORS - 1)]
    known = np.nan_to_num(values.astype(np.float64))  # matplotlib draws NaN as black
    colors = table[(known * COLORS).clip(0, COLORS - 1).astype(np.int64)]
    return np.where(np.isnan(values)[..., None], np.uint8(0), colors)


def _table(colormap: Any) -> Any:
    """(256, 3) uint8, or matplotlib's color map."""
    if isinstance(colormap, str) and colormap in ("jet", "gray"):
        at = np.linspace(0, 1, COLORS)
        lines = JET if colormap == "jet" else (((0, 1), (0, 1)),) * 3
        return np.stack([(np.interp(at, x, y) * 255).astype(np.uint8) for x, y in lines], axis=-1)
    try:
        from matplotlib import colormaps
    except ImportError:
        if isinstance(colormap, str) and colormap in COLORMAPS:
            return table_of(colormap).numpy()
        raise ImportError(
            f"colormap={colormap!r} is one of matplotlib, which is not installed: `pip install matplotlib`, or choose "
            f"one of {', '.join(COLORMAPS)}"
        ) from None
    return colormaps.get_cmap(colormap)
