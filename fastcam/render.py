"""Maps to pictures: color maps, overlays, labeled panels (reached through `fastcam.image`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fastcam import ops

if TYPE_CHECKING:
    from PIL import ImageFont

# Seventeen colors, evenly spaced and joined by straight lines: least-squares fits to the published
# 256-color tables, at most 4 of 255 away from them in any channel.
CONTROL = {
    "turbo": ("30123d4040a3476be54293ff29bbee14dcc42ef1996dfe61a3fd3acced32eed13bfeae35fc7f21ec510dd23004ad15007a0402"),
    "viridis": (
        "44015448186a472c7b4240863a528b32628d2c728e26818e20908c1d9f8826ad803dbb745cc86381d34baadc34d5e117fde721"
    ),
    "inferno": (
        "000002090722200d4b3c0866560f6d70196e89226aa22b61bb3654d04545e4592ff07121f98c06fcaa0bfac931efe964faffa5"
    ),
}
COLORMAPS = ("turbo", "jet", "viridis", "inferno", "gray")

INK, PAPER = (32, 32, 32), (255, 255, 255)
GAP = 8  # pixels between the pictures of a panel and around them


@cache
def colormap(name: str) -> Tensor:
    """The 256 colors of a color map, for map values 0 to 1.

    Args:
        name: "turbo", "jet", "viridis", "inferno" or "gray".

    Returns:
        (256, 3) uint8.

    Raises:
        ValueError: an unknown name.
    """
    x = torch.linspace(0, 1, 256, dtype=torch.float64)
    if name == "gray":
        colors = x[:, None].expand(256, 3)
    elif name == "jet":
        colors = 1.5 - (4 * x[:, None] - torch.tensor([3.0, 2.0, 1.0])).abs()
    elif name in CONTROL:
        points = torch.tensor(list(bytes.fromhex(CONTROL[name])), dtype=torch.float64).view(-1, 3) / 255
        position = x * (len(points) - 1)
        below = position.floor().long().clamp(max=len(points) - 2)
        colors = torch.lerp(points[below], points[below + 1], (position - below)[:, None])
    else:
        raise ValueError(f"unknown color map {name!r}; choose one of {', '.join(COLORMAPS)}")
    return (colors.clamp(0, 1) * 255).round().to(torch.uint8)


def _table(colors: str | Tensor, device: torch.device) -> Tensor:
    return (colormap(colors) if isinstance(colors, str) else colors).to(device)


def colorize(maps: Tensor, colors: str | Tensor = "turbo") -> Tensor:
    """Colors each map value m as colors[round(255 m)].

    Args:
        maps: (..., H, W) float in [0, 1].
        colors: name of a built-in color map, or a table (256, 3) uint8.

    Returns:
        (..., H, W, 3) uint8, on the maps' device.

    Raises:
        ValueError: an unknown color map, or a wrong shape or range.
    """
    _require_maps(maps)
    flat = maps.reshape(-1, *maps.shape[-2:])
    black = torch.zeros((*flat.shape, 3), dtype=torch.uint8, device=maps.device)
    return ops.overlay(black, flat, _table(colors, maps.device), 1.0).view(*maps.shape, 3)


def overlay(images: Tensor, maps: Tensor, colors: str | Tensor = "turbo", alpha: float = 0.5) -> Tensor:
    """Lays colored maps over pictures: round((1 - alpha) image + alpha colors[round(255 m)]).

    Args:
        images: (H, W, 3) or (B, H, W, 3) uint8.
        maps: (H, W), (T, H, W) over one picture; (B, H, W) or (B, T, H, W) over a batch; float in [0, 1].
        colors: name of a built-in color map, or a table (256, 3) uint8.
        alpha: weight of the colors, 0 (only the picture) to 1 (only the map).

    Returns:
        The maps' shape with a last axis of 3, uint8, on the images' device.

    Raises:
        TypeError: images that are not uint8.
        ValueError: shapes that do not fit each other, or an unknown color map.
    """
    require_picture("images", images, 3, 4)
    _require_maps(maps)
    batch = images if images.ndim == 4 else images[None]
    stacked = maps if images.ndim == 4 else maps[None]
    axes = "(B, H, W) or (B, T, H, W)" if images.ndim == 4 else "(H, W) or (T, H, W)"
    if stacked.ndim not in (3, 4) or len(stacked) != len(batch) or stacked.shape[-2:] != batch.shape[1:3]:
        raise ValueError(
            f"images have shape {tuple(images.shape)}, maps {tuple(maps.shape)}; expected maps {axes} to fit"
        )
    flat = stacked.to(images.device).reshape(-1, *stacked.shape[-2:])
    repeated = batch.repeat_interleave(len(flat) // len(batch), 0)
    return ops.overlay(repeated, flat, _table(colors, images.device), alpha).view(*maps.shape, 3)


def panel(images: Sequence[Tensor] | Tensor, titles: Sequence[str] = (), columns: int | None = None) -> Tensor:
    r"""Sets pictures side by side on white, each under its title.

    Args:
        images: N pictures (H, W, 3) uint8, of any sizes.
        titles: N texts, or none at all; "\n" starts a new line, a long line is cut with an ellipsis. A row
            whose titles are all empty takes no room for them.
        columns: pictures in a row; all in one row when None.

    Returns:
        (H', W', 3) uint8 on the CPU.

    Raises:
        ValueError: no picture, or as many titles as pictures are missing.
    """
    from PIL import Image, ImageDraw, ImageFont

    pictures = [image.cpu() for image in images]
    for number, picture in enumerate(pictures):
        require_picture(f"images[{number}]", picture, 3)
    texts = list(titles) or [""] * len(pictures)
    columns = columns or len(pictures)
    if not pictures or len(texts) != len(pictures) or columns < 1:
        raise ValueError(
            f"got {len(pictures)} pictures, {len(texts)} titles, {columns} columns; "
            "give one picture or more, one title each (or none) and 1 column or more"
        )
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    font = ImageFont.load_default(max(11, width // 14))
    line = round(1.35 * font.getbbox("Ag")[3])
    rows = range(0, len(pictures), columns)
    bars = [line * max(_lines(text) for text in texts[row : row + columns]) for row in rows]
    canvas = Image.new(
        "RGB",
        (GAP + min(columns, len(pictures)) * (width + GAP), GAP + sum(bars) + len(rows) * (height + GAP)),
        PAPER,
    )
    draw = ImageDraw.Draw(canvas)
    top = GAP
    for row, bar in zip(rows, bars, strict=True):
        for column, (picture, text) in enumerate(
            zip(pictures[row : row + columns], texts[row : row + columns], strict=True)
        ):
            left = GAP + column * (width + GAP)
            for number, words in enumerate(reversed(text.split("\n") if text else [])):
                place = (left + width / 2, top + bar - line * (number + 0.5))
                draw.text(place, _shorten(words, font, width), INK, font, anchor="mm")
            corner = (left + (width - picture.shape[1]) // 2, top + bar + (height - picture.shape[0]) // 2)
            canvas.paste(Image.fromarray(picture.contiguous().numpy()), corner)
        top += bar + height + GAP
    return torch.from_numpy(np.array(canvas))


def _lines(text: str) -> int:
    return text.count("\n") + 1 if text else 0


def _shorten(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1].rstrip()
    return text + "…"


def save(image: Tensor, path: str | os.PathLike[str]) -> Path:
    """Writes a picture to a file, in the format its suffix names, making its folder if need be.

    Args:
        image: (H, W, 3) uint8.
        path: such as "map.png".

    Returns:
        The path.

    Raises:
        ValueError: a suffix Pillow cannot write, or a wrong shape.
    """
    from PIL import Image

    require_picture("image", image, 3)
    path = Path(path)
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise ValueError(f"cannot write {str(path)!r}: unknown suffix {path.suffix!r}; use .png, .jpg or .webp")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.cpu().contiguous().numpy()).save(path)
    return path


def require_picture(name: str, picture: Tensor, *ranks: int) -> None:
    """Raises unless `picture` is a uint8 tensor (…, H, W, 3) of one of the ranks."""
    if not isinstance(picture, Tensor) or picture.dtype != torch.uint8:
        found = picture.dtype if isinstance(picture, Tensor) else type(picture).__name__
        raise TypeError(f"{name} is {found}; give a uint8 tensor (H, W, 3)")
    if picture.ndim not in ranks or picture.shape[-1] != 3 or picture.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(picture.shape)}; expected (H, W, 3), channels last")


def _require_maps(maps: Tensor) -> None:
    if not isinstance(maps, Tensor) or not maps.is_floating_point() or maps.ndim < 2 or maps.numel() == 0:
        found = f"{maps.dtype} {tuple(maps.shape)}" if isinstance(maps, Tensor) else type(maps).__name__
        raise ValueError(f"maps are {found}; give a float tensor (..., H, W) in [0, 1]")
    low, high = maps.aminmax()
    if not (low >= 0 and high <= 1):  # NaN fails this too
        raise ValueError(f"map values from {low:g} to {high:g}; expected [0, 1]: raw maps must be normalized first")
