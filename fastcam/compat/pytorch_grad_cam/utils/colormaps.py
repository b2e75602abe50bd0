"""OpenCV's color maps by their numbers, as tables of 256 colors; twelve by formula, the others through OpenCV."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

JET = 2
POINTS = 64  # at which OpenCV lays down most of its maps; straight lines join them


def pieces(x: np.ndarray, *lines: tuple[float, float, float]) -> np.ndarray:
    """The lines slope x + offset from each start on; 0 before the first. A line is (start, slope, offset)."""
    y = np.zeros_like(x)
    for start, slope, offset in lines:
        y = np.where(x >= start, slope * x + offset, y)
    return y


def bone(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """Gray with a tinge of blue."""
    return (
        pieces(x, (0, 7 / 8, 0), (3 / 4, 11 / 8, -3 / 8)),
        pieces(x, (0, 7 / 8, 0), (3 / 8, 29 / 24, -1 / 8), (3 / 4, 7 / 8, 1 / 8)),
        pieces(x, (0, 29 / 24, 0), (3 / 8, 7 / 8, 1 / 8)),
    )


def rainbow(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """Red, yellow, green, blue, violet."""
    return (
        pieces(x, (0, 0, 1), (2 / 5, -5, 3), (3 / 5, 0, 0), (4 / 5, 10 / 3, -8 / 3)),
        pieces(x, (0, 5 / 2, 0), (2 / 5, 0, 1), (3 / 5, -5, 4), (4 / 5, 0, 0)),
        pieces(x, (3 / 5, 5, -3), (4 / 5, 0, 1)),
    )


def hsv(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """The hues once around, the strongest channel at 1 and the weakest at 0."""
    turned = [(shift + 6 * x) % 6 for shift in (5, 3, 1)]
    return tuple(1 - np.clip(np.minimum(turn, 4 - turn), 0, 1) for turn in turned)


def pink(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """Sepia: square roots of gray and hot, mixed."""
    return (
        np.sqrt(pieces(x, (0, 14 / 9, 0), (3 / 8, 2 / 3, 1 / 3))),
        np.sqrt(pieces(x, (0, 2 / 3, 0), (3 / 8, 14 / 9, -1 / 3), (3 / 4, 2 / 3, 1 / 3))),
        np.sqrt(pieces(x, (0, 2 / 3, 0), (3 / 4, 2, -1))),
    )


def hot(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """Black, red, yellow, white."""
    return (
        pieces(x, (0, 5 / 2, 0), (2 / 5, 0, 1)),
        pieces(x, (2 / 5, 5 / 2, -1), (4 / 5, 0, 1)),
        pieces(x, (4 / 5, 5, -4)),
    )


# OpenCV's number: where its table has points, and red, green and blue there.
LINES: dict[int, tuple[int, Callable[[np.ndarray], tuple[np.ndarray, ...]]]] = {
    0: (POINTS, lambda x: (x**0, x, 0 * x)),  # autumn
    1: (POINTS, bone),
    3: (11, lambda x: (0 * x, x, 1 - x / 2)),  # winter
    4: (POINTS, rainbow),
    5: (POINTS, lambda x: (np.clip(3 * x - 2, 0, 1), np.clip((3 * x - 1) / 2, 0, 1), x)),  # ocean
    6: (POINTS, lambda x: (x, 0.5 + x / 2, 0.4 * x**0)),  # summer
    7: (POINTS, lambda x: (x**0, x, 1 - x)),  # spring
    8: (POINTS, lambda x: (x, 1 - x, x**0)),  # cool
    9: (POINTS, hsv),
    10: (POINTS, pink),
    11: (POINTS, hot),
}


@cache
def table(number: int) -> np.ndarray:
    """The 256 colors of an OpenCV color map in RGB, every byte as OpenCV has it.

    Args:
        number: a constant such as `cv2.COLORMAP_JET`, which is 2.

    Returns:
        (256, 3) uint8, not to be written to.

    Raises:
        ValueError: a number without formula here, where OpenCV is not installed or does not know it either.
    """
    colors = jet() if number == JET else joined(number) if number in LINES else from_opencv(number)
    colors.flags.writeable = False
    return colors


def jet() -> np.ndarray:
    """Blue, cyan, yellow, red, each channel a slope of 4 up and down between the ends."""
    i = np.arange(256)
    channels = (
        np.minimum(4 * i - 382.5, 1148 - 4 * i),
        np.minimum(4 * i - 128, 892 - 4 * i),
        np.minimum(4 * i + 128, 638.5 - 4 * i),
    )
    colors = np.rint(np.clip(np.stack(channels, 1), 0, 255)).astype(np.uint8)
    colors[159, 2] = 1  # the line gives 2.5; in OpenCV's table the slope ends one lower
    return colors


def joined(number: int) -> np.ndarray:
    """Straight lines between the points; in float32, as many values fall on a half and are rounded from there."""
    points, channels = LINES[number]
    at, every = (np.arange(n, dtype=np.float32) * np.float32(1 / np.float32(n - 1)) for n in (points, 256))
    below = np.clip(np.searchsorted(at, every, side="right") - 1, 0, points - 2)
    colors = []
    for channel in channels(np.arange(points) / (points - 1)):
        y = channel.astype(np.float32)
        rise = (every - at[below]) * (y[below + 1] - y[below])
        colors.append(y[below] + rise / (at[below + 1] - at[below]))
    return np.rint(np.stack(colors, 1) * np.float32(255)).astype(np.uint8)


def from_opencv(number: int) -> np.ndarray:
    """The same table asked of OpenCV."""
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
        raise TypeError(f"colormap must be the number of an OpenCV color map, such as 2 for JET, got {number!r}")
    try:
        import cv2  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError(
            f"colormap={number} has no formula here, and OpenCV is not installed; choose one of 0 to {max(LINES)}, or "
            "pip install opencv-python-headless"
        ) from None
    try:
        levels = np.arange(256, dtype=np.uint8)[:, None]
        return np.ascontiguousarray(cv2.applyColorMap(levels, int(number))[:, 0, ::-1])
    except cv2.error:
        raise ValueError(f"colormap={number} is not a color map of OpenCV {cv2.__version__}") from None
