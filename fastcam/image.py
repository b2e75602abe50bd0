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
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastcam.render import COLORMAPS, colorize, colormap, overlay, panel, require_picture, save

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "COLORMAPS",
    "Placement",
    "Preprocess",
    "colorize",
    "colormap",
    "overlay",
    "panel",
    "place",
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


def read(source: str | os.PathLike[str] | bytes, name: str | None = None) -> Tensor:
    """Reads a picture as 8-bit RGB, turned upright by its EXIF tag.

    Gray, palette, CMYK, 16-bit and floating-point pictures are converted, transparent ones laid on white;
    of an animation this is the first frame.

    Args:
        source: a JPEG, PNG, WebP, GIF, TIFF, BMP … file, or the bytes of one.
        name: what errors call the picture; the path when None.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: no such file, not a picture, a damaged one, or one too large to be safe.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    name = repr(name or ("the picture" if isinstance(source, bytes) else str(source)))
    if not isinstance(source, bytes):
        source = Path(source)
        if not source.is_file():
            found = "a folder" if source.is_dir() else "no such file"
            raise ValueError(f"cannot read {name}: {found}; give the path of a picture")
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if size == 0:
        raise ValueError(f"cannot read {name}: the file is empty; give a picture")
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
            image.seek(0)
            image.load()
            return torch.from_numpy(np.array(_to_rgb(ImageOps.exif_transpose(image), name)))
    except UnidentifiedImageError:
        raise ValueError(
            f"cannot read {name}: not a picture Pillow knows ({size} bytes, starting with {_start(source)!r}); "
            "convert it to JPEG or PNG"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"cannot read {name}: {error} Shrink the picture, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        ) from None
    except PermissionError:
        raise ValueError(f"cannot read {name}: permission denied; make the file readable") from None
    except DAMAGED as error:
        if isinstance(error, ValueError) and name in str(error):
            raise
        raise ValueError(f"cannot read {name}: damaged picture ({error}); save it again") from error


def _start(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source[:16]
    with source.open("rb") as file:
        return file.read(16)


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_bytes(np.asarray(image), name)).convert("RGB")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        # convert("RGB") alone would show whatever colors lie hidden under transparent pixels.
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _to_bytes(values: np.ndarray, name: str) -> np.ndarray:
    """Scales gray values by the range of their type, never by the picture's own range."""
    low, high = float(values.min()), float(values.max())
    top = 1.0 if values.dtype.kind == "f" and high <= 1 else 255.0 if values.dtype.kind == "f" else 65535.0
    if not (low >= 0 and high <= top):
        raise ValueError(
            f"cannot read {name}: gray values from {low:g} to {high:g} in a {values.dtype} picture, "
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


class Placement(NamedTuple):
    """Where a picture comes to lie in the model's input: resized as a whole, then cut.

    Attributes:
        resized: (h, w) of the picture after resizing.
        crop: (h, w) of the model's input.
        top: first row of the crop in the resized picture.
        left: first column of the crop in the resized picture.
    """

    resized: tuple[int, int]
    crop: tuple[int, int]
    top: int
    left: int


def place(size: tuple[int, int], settings: Preprocess = Preprocess()) -> Placement:
    """What `preprocess` does with a picture of a size, without the picture.

    Args:
        size: (H, W) of the picture, above 0.
        settings: what the model wants.

    Raises:
        ValueError: a picture smaller than the crop or far too long.
    """
    height, width = size
    if isinstance(settings.size, int):
        long = int(settings.size * max(size) / min(size))
        target = (settings.size, long) if height <= width else (long, settings.size)
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
    return Placement(target, crop, round((target[0] - crop[0]) / 2), round((target[1] - crop[1]) / 2))


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
    target, crop, top, left = place((picture.shape[0], picture.shape[1]), settings)
    pixels = picture.cpu().numpy()
    if target != pixels.shape[:2]:
        image = Image.fromarray(np.ascontiguousarray(pixels))
        pixels = np.array(image.resize((target[1], target[0]), Image.Resampling[settings.interpolation.upper()]))
    pixels = np.ascontiguousarray(pixels[top : top + crop[0], left : left + crop[1]])
    # A table of the 256 values, looked up by NumPy: torch would start a team of threads in each thread that loads
    # pictures, which slows the one that computes.
    values = ((torch.arange(256)[:, None] / 255 - torch.tensor(settings.mean)) / torch.tensor(settings.std)).numpy()
    channels = np.stack([values[:, channel][pixels[..., channel]] for channel in range(3)])
    return torch.from_numpy(channels).to(picture.device), torch.from_numpy(pixels).to(picture.device)
