"""Concepts over a picture: each a hue, as bright as it is present, with a legend beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fastcam.compat.pytorch_grad_cam.arrays import as_given, to_tensor

# Stops of matplotlib's gist_rainbow: where, red, green, blue.
RAINBOW = (
    (0.000, 1.0, 0.0, 0.16),
    (0.030, 1.0, 0.0, 0.0),
    (0.215, 1.0, 1.0, 0.0),
    (0.400, 0.0, 1.0, 0.0),
    (0.586, 0.0, 1.0, 1.0),
    (0.770, 0.0, 0.0, 1.0),
    (0.954, 1.0, 0.0, 1.0),
    (1.000, 1.0, 0.0, 0.75),
)
# Which of (v, p, q, t) is red, green and blue in each sixth of the hues.
SIXTHS = ((0, 3, 1), (2, 0, 1), (1, 0, 3), (1, 2, 0), (3, 1, 0), (0, 1, 2))


def create_labels_legend(concept_scores: Any, labels: Mapping[int, str] | Sequence[str], top_k: int = 2) -> list[str]:
    """One text for each concept: its `top_k` classes with their scores, a line each, the highest first.

    Args:
        concept_scores: (K, classes)
        labels: the classes' names; of a list of synonyms, separated by commas, the first three are shown.
        top_k: how many classes.
    """
    scores = to_tensor(concept_scores, "concept_scores").cpu().numpy()
    if scores.ndim != 2:
        raise ValueError(f"concept_scores has shape {scores.shape}; expected (K, classes)")
    best = scores.argsort(axis=1)[:, ::-1][:, :top_k]
    return [
        "\n".join(f"{','.join(labels[int(c)].split(',')[:3])}:{row[c]:.2f}" for c in classes)
        for row, classes in zip(scores, best, strict=True)
    ]


def rainbow(count: int) -> list[tuple[float, ...]]:
    """Colors of gist_rainbow at 0, 1/count, 2/count …, from its table of 256."""
    stops = np.array(RAINBOW)
    indices = (np.arange(count) / count * 256).astype(int) / 255
    return [tuple(color) for color in np.stack([np.interp(indices, stops[:, 0], c) for c in stops[:, 1:].T], 1)]


def hue_and_saturation(colors: Tensor) -> tuple[Tensor, Tensor]:
    """Hue in 0 to 179 and saturation in 0 to 255 of colors (K, 3) in 0 to 255, rounded as OpenCV's bytes are.

    OpenCV divides through tables of fixed-point reciprocals with 12 bits behind the point.
    """
    rgb = colors.long()
    red, green, blue = rgb.unbind(1)
    value, spread = rgb.amax(1), rgb.amax(1) - rgb.amin(1)
    unit = 1 << 12
    by_value = torch.where(value > 0, (255 * unit / value.double()).round(), 0).long()
    by_spread = torch.where(spread > 0, (180 * unit / (6 * spread.double())).round(), 0).long()
    turned = torch.where(
        value == red, green - blue, torch.where(value == green, blue - red + 2 * spread, red - green + 4 * spread)
    )
    hue = (turned * by_spread + unit // 2) >> 12
    return torch.where(hue < 0, hue + 180, hue), (spread * by_value + unit // 2) >> 12


def from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Red, green and blue in 0 to 255, rounded, of hue in 0 to 179, saturation and value in 0 to 255, of any shape."""
    hue, saturation, value = torch.broadcast_tensors(hue, saturation, value)
    turns = hue.float() * (6 / 180)
    s, v = saturation.float() / 255, value.float() / 255
    sixth = turns.floor()
    f = turns - sixth
    mixes = torch.stack([v, v * (1 - s), v * (1 - s * f), v * (1 - s * (1 - f))], -1)
    which = torch.tensor(SIXTHS, device=hue.device)[sixth.long() % 6]
    return (mixes.gather(-1, which) * 255).round().clamp(0, 255)


def show_factorization_on_image(
    img: Any,
    explanations: Any,
    colors: Sequence[Any] | None = None,
    image_weight: float = 0.5,
    concept_labels: Sequence[str] | None = None,
) -> Any:
    """Mixes w img + (1 - w) visualization; every pixel has the hue of its strongest concept, as bright as it is.

    Args:
        img: (H, W, 3) in RGB, float in [0, 1].
        explanations: (K, H, W) in [0, 1]; it is not changed.
        colors: of each concept, red, green and blue in [0, 1]; matplotlib's gist_rainbow when None.
        image_weight: w, in [0, 1].
        concept_labels: a text for each concept; a legend as large as the picture is then set to its right, drawn by
            matplotlib, whose settings stay as they are.

    Returns:
        (H, W, 3) uint8, or (H, 2 W, 3) with a legend; an array, or a tensor where the picture is one.

    Raises:
        ValueError: shapes that do not fit, values outside [0, 1], or too few colors or labels.
        ImportError: labels without matplotlib.
    """
    picture, maps = to_tensor(img, "img"), to_tensor(explanations, "explanations")
    if maps.dim() != 3 or picture.dim() != 3 or picture.shape != (*maps.shape[1:], 3):
        raise ValueError(
            f"img has shape {tuple(picture.shape)} and explanations {tuple(maps.shape)}; expected (H, W, 3) and "
            "(K, H, W) of the same size"
        )
    count = len(maps)
    shades = rainbow(count) if colors is None else [tuple(float(c) for c in color[:3]) for color in colors]
    for name, given in (("colors", shades), ("concept_labels", concept_labels)):
        if given is not None and len(given) < count:
            raise ValueError(f"{len(given)} {name} for {count} explanations; give one each")
    low, high = maps.aminmax()
    if not (low > -1 / 255 and high < 256 / 255):  # NaN fails this too
        raise ValueError(f"explanations go from {float(low):g} to {float(high):g}; expected [0, 1]")
    bytes_of = (torch.tensor(shades[:count], dtype=torch.float64) * 255).to(torch.uint8)
    hue, saturation = hue_and_saturation(bytes_of)
    every = (from_hsv(hue[:, None], saturation[:, None], torch.arange(256)) / 255).flatten(0, 1)
    peak, strongest = maps.max(0)
    at = strongest * 256 + (255 * peak).to(torch.uint8)
    shown = (every * (1 - image_weight)).to(maps.device).index_select(0, at.flatten()).view(*at.shape, 3)
    result = ((picture.to(maps.device) * image_weight + shown) * 255).to(torch.uint8)
    if concept_labels is not None:
        beside = legend(shades[:count], concept_labels, (result.shape[0], result.shape[1]))
        result = torch.cat([result, beside.to(result.device)], 1)
    return as_given(result, img)


def legend(colors: Sequence[Any], texts: Sequence[str], size: tuple[int, int]) -> Tensor:
    """A line of its color and a text for each concept on white, in a picture (H, W, 3) uint8."""
    try:
        import matplotlib as mpl  # pyright: ignore[reportMissingImports]
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # pyright: ignore[reportMissingImports]
        from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]
        from matplotlib.lines import Line2D  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError(
            "the legend is drawn by matplotlib; pip install matplotlib, or leave concept_labels out"
        ) from None
    height, width = size
    inch = 1 / mpl.rcParams["figure.dpi"]
    figure = Figure(figsize=(width * inch, height * inch))
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    lines = [Line2D([0], [0], color=color, lw=5 * height / 256) for color in colors]
    small = int(14 * height / 256 / max(1, len(colors) / 6))
    axes.legend(lines, list(texts), mode="expand", fancybox=True, shadow=True, fontsize=small)
    figure.tight_layout(pad=0, w_pad=0, h_pad=0)
    axes.axis("off")
    canvas.draw()
    drawn = torch.from_numpy(np.array(canvas.buffer_rgba())[..., :3].copy())
    if drawn.shape[:2] == size:
        return drawn
    return interpolate(drawn.permute(2, 0, 1)[None].float(), size, mode="bilinear")[0].permute(1, 2, 0).round().byte()
