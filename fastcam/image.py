"""Pictures in, pictures out: read and preprocess files, color maps, lay them over pictures, label panels.

Pictures are uint8 tensors (H, W, 3) in RGB, model inputs float32 tensors (3, H, W), maps (H, W) in [0, 1].
Pillow is imported only when a file is read or written, resized or labeled.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fastcam.render import COLORMAPS, colorize, colormap, overlay, panel, require_picture, save

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "COLORMAPS",
    "Preprocess",
    "colorize",
    "colormap",
    "overlay",
    "panel",
    "preprocess",
    "read",
    "save",
]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
# A 1 x 50000 strip, its shorter side resized to 256, would be 12.8 million pixels wide.
MAX_RESIZED = 2**26
# What Pillow's decoders raise on damaged files, beyond its own UnidentifiedImageError.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, LookupError, TypeError)


def read(path: str | os.PathLike[str]) -> Tensor:
    """Reads a picture as 8-bit RGB, turned upright by its EXIF tag.

    Gray, palette, CMYK, 16-bit and floating-point pictures are converted, transparent ones laid on white;
    of an animation this is the first frame.

    Args:
        path: a JPEG, PNG, WebP, GIF, TIFF, BMP … file.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: no such file, not a picture, a damaged one, or one too large to be safe.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise ValueError(f"cannot read {str(path)!r}: {found}; give the path of a picture")
    size = path.stat().st_size
    if size == 0:
        raise ValueError(f"cannot read {str(path)!r}: the file is empty; give a picture")
    try:
        with Image.open(path) as image:
            image.seek(0)
            image.load()
            return torch.from_numpy(np.array(_to_rgb(ImageOps.exif_transpose(image), path)))
    except UnidentifiedImageError:
        with path.open("rb") as file:
            start = file.read(16)
        raise ValueError(
            f"cannot read {str(path)!r}: not a picture Pillow knows ({size} bytes, starting with {start!r}); "
            "convert it to JPEG or PNG"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"cannot read {str(path)!r}: {error} Shrink the picture, or raise PIL.Image.MAX_IMAGE_PIXELS if "
            "you trust it"
        ) from None
    except PermissionError:
        raise ValueError(f"cannot read {str(path)!r}: permission denied; make the file readable") from None
    except DAMAGED as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"cannot read {str(path)!r}: damaged picture ({error}); save it again") from error


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_bytes(np.asarray(image), path)).convert("RGB")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        # convert("RGB") alone would show whatever colors lie hidden under transparent pixels.
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _to_bytes(values: np.ndarray, path: Path) -> np.ndarray:
    """Scales gray values by the range of their type, never by the picture's own range."""
    low, high = float(values.min()), float(values.max())
    top = 1.0 if values.dtype.kind == "f" and high <= 1 else 255.0 if values.dtype.kind == "f" else 65535.0
    if not (low >= 0 and high <= top):
        raise ValueError(
            f"cannot read {str(path)!r}: gray values from {low:g} to {high:g} in a {values.dtype} picture, "
            f"expected 0 to {top:g}; save it as 8-bit"
        )
    return np.rint(values * (255 / top)).astype(np.uint8)


@dataclass(frozen=True)
class Preprocess:
    """How a model wants its pictures: resize, center crop, then (x / 255 - mean) / std.

    Attributes:
        size: pixels of the shorter side after resizing, or an exact (H, W), or None to keep the size.
        crop: side or (H, W) of the center crop, or None.
        interpolation: "nearest", "bilinear", "bicubic" or "lanczos", antialiased as Pillow does.
        mean: of each of the three channels, in [0, 1].
        std: of each of the three channels, above 0.
    """

    size: int | tuple[int, int] | None = 256
    crop: int | tuple[int, int] | None = 224
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation is {self.interpolation!r}; choose one of {', '.join(INTERPOLATIONS)}")
        for name, sides in (("size", _pair(self.size)), ("crop", _pair(self.crop))):
            if sides and (len(sides) != 2 or min(sides) < 1):
                raise ValueError(f"{name} is {getattr(self, name)!r}; give pixels above 0, or (height, width)")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean is {self.mean}, std is {self.std}; give three numbers each, std above 0")
        resized, crop = _pair(self.size), _pair(self.crop)
        if resized and crop and (crop[0] > resized[0] or crop[1] > resized[1]):
            raise ValueError(f"crop {self.crop} is larger than size {self.size}; give a crop of at most the size")

    @classmethod
    def from_timm(cls, config: Mapping[str, Any]) -> Preprocess:
        """The evaluation preprocessing of a timm `pretrained_cfg`, as `timm.data.create_transform` makes it.

        Args:
            config: `model.pretrained_cfg`.

        Raises:
            ValueError: a crop mode or a number of channels that this class cannot express.
        """
        channels, *crop = config["input_size"]
        scaled = [math.floor(side / (config.get("crop_pct") or 0.875)) for side in crop]
        mode = config.get("crop_mode") or "center"
        if channels != 3 or mode not in ("center", "squash") or (mode == "center" and crop[0] != crop[1]):
            raise ValueError(
                f"the model wants {channels} x {crop[0]} x {crop[1]} inputs with crop mode {mode!r}; "
                "expected 3 channels and crop mode 'center' (square) or 'squash': build a Preprocess yourself"
            )
        return cls(
            scaled[0] if mode == "center" else (scaled[0], scaled[1]),
            (crop[0], crop[1]),
            config.get("interpolation") or "bicubic",
            tuple(config["mean"]),
            tuple(config["std"]),
        )

    @classmethod
    def from_torchvision(cls, weights: Any) -> Preprocess:
        """The preprocessing of a torchvision classification weights entry.

        Args:
            weights: such as `torchvision.models.ResNet50_Weights.IMAGENET1K_V2`.
        """
        preset = weights.transforms()
        size, crop = (side[0] if len(side) == 1 else tuple(side) for side in (preset.resize_size, preset.crop_size))
        return cls(size, crop, preset.interpolation.value, tuple(preset.mean), tuple(preset.std))


def _pair(sides: int | tuple[int, int] | None) -> tuple[int, int] | None:
    return (sides, sides) if isinstance(sides, int) else sides


def preprocess(picture: Tensor, settings: Preprocess = Preprocess()) -> tuple[Tensor, Tensor]:
    """Resizes, crops and normalizes a picture; also gives the crop itself, which the map fits exactly.

    Bit for bit what torchvision's and timm's evaluation transforms make of the same Pillow image.

    Args:
        picture: (H, W, 3) uint8.
        settings: what the model wants.

    Returns:
        The model's input (3, h, w) float32, and the same view as a picture (h, w, 3) uint8.

    Raises:
        TypeError: not a uint8 tensor.
        ValueError: a wrong shape, or a picture smaller than the crop or far too long.
    """
    from PIL import Image

    require_picture("picture", picture, 3)
    height, width = picture.shape[:2]
    if isinstance(settings.size, int):
        short, long = sorted((height, width))
        sides = (settings.size, int(settings.size * long / short))
        target = sides if height <= width else sides[::-1]
    else:
        target = settings.size or (height, width)
    if target[0] * target[1] > MAX_RESIZED:
        raise ValueError(
            f"a picture of {height} x {width} pixels would be resized to {target[0]} x {target[1]}; "
            "crop it to a less extreme shape"
        )
    crop = _pair(settings.crop) or target
    if crop[0] > target[0] or crop[1] > target[1]:
        raise ValueError(f"a picture of {height} x {width} pixels is smaller than the crop {crop}; set `size`")
    if target != (height, width):
        image = Image.fromarray(picture.cpu().contiguous().numpy())
        image = image.resize((target[1], target[0]), Image.Resampling[settings.interpolation.upper()])
        picture = torch.from_numpy(np.array(image)).to(picture.device)
    top, left = round((target[0] - crop[0]) / 2), round((target[1] - crop[1]) / 2)
    picture = picture[top : top + crop[0], left : left + crop[1]].contiguous()
    mean, std = picture.new_tensor([settings.mean, settings.std], dtype=torch.float32)
    return ((picture / 255 - mean) / std).permute(2, 0, 1).contiguous(), picture
