"""The component ops and the energy in boxes again, in plain loops over float64."""

from __future__ import annotations

import numpy as np


def flood(mask, connectivity):
    """(first pixel, area, box) of each component, in the order of their first pixels, pixel by pixel."""
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if connectivity == 8 or dy == 0 or dx == 0]
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    for first in sorted(left):
        if first not in left:
            continue
        left.remove(first)
        pixels = [first]
        for y, x in pixels:
            for dy, dx in steps:
                neighbor = (y + dy, x + dx)
                if neighbor in left:
                    left.remove(neighbor)
                    pixels.append(neighbor)
        ys, xs = zip(*pixels, strict=True)
        yield len(pixels), (min(xs), min(ys), max(xs), max(ys))


def masks(maps, thresholds, relative):
    """Image, threshold and mask of each pair."""
    for b, m in enumerate(maps):
        known = m[~np.isnan(m)]
        for t, threshold in enumerate(thresholds[b] if np.ndim(thresholds) == 2 else thresholds):
            scale = (known.max() if len(known) else np.nan) if relative else 1
            with np.errstate(invalid="ignore"):
                yield b, t, m > threshold * scale


def component_boxes(maps, thresholds, connectivity=8, relative=True):
    count = np.shape(thresholds)[-1]
    boxes, areas = np.zeros((len(maps), count, 4), np.int32), np.zeros((len(maps), count), np.int32)
    for b, t, mask in masks(maps, thresholds, relative):
        boxes[b, t] = 0, 0, -1, -1
        for area, box in flood(mask, connectivity):
            if area > areas[b, t]:
                boxes[b, t], areas[b, t] = box, area
    return boxes, areas


def components(maps, thresholds, connectivity=8, relative=True, min_area=1):
    rows = [
        (box, area, (b, t))
        for b, t, mask in masks(maps, thresholds, relative)
        for area, box in flood(mask, connectivity)
        if area >= min_area
    ]
    return (
        np.array([box for box, _, _ in rows], np.int32).reshape(-1, 4),
        np.array([area for _, area, _ in rows], np.int32),
        np.array([owner for _, _, owner in rows], np.int64).reshape(-1, 2),
    )


def energy_in_boxes(maps, boxes, edges="exclusive"):
    inside, total = np.zeros(len(maps)), np.zeros(len(maps))
    for b, y, x in np.ndindex(*maps.shape):
        held = False
        for x0, y0, x1, y1 in boxes[b]:
            if edges == "inclusive":
                held |= bool(x0 <= x <= x1 and y0 <= y <= y1)
            else:
                held |= bool(x0 <= x < x1 and y0 <= y < y1)
        inside[b] += maps[b, y, x] if held else 0
        total[b] += maps[b, y, x]
    return inside, total
