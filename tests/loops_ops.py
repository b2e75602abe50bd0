"""Each op again, in plain loops over float64, straight from its contract."""

from __future__ import annotations

import itertools
import math

import numpy as np

from tests.loops_components import component_boxes, components, energy_in_boxes  # noqa: F401 -- looked up by name


def weighted_sum(activations, weights):
    batch, channels, h, w = activations.shape
    out = np.zeros((batch, weights.shape[1], h, w))
    for b, t, k in itertools.product(range(batch), range(weights.shape[1]), range(channels)):
        out[b, t] += weights[b, t, k] * activations[b, k]
    return out


def resize(m, size, align_corners=False):
    out = np.zeros(size)
    for y, x in itertools.product(range(size[0]), range(size[1])):
        (y0, y1, v), (x0, x1, u) = (
            taps(i, n_in, n_out, align_corners)
            for i, n_in, n_out in ((y, m.shape[0], size[0]), (x, m.shape[1], size[1]))
        )
        top = (1 - u) * m[y0, x0] + u * m[y0, x1]
        bottom = (1 - u) * m[y1, x0] + u * m[y1, x1]
        out[y, x] = (1 - v) * top + v * bottom
    return out


def taps(i, n_in, n_out, align_corners):
    """Both source positions of output i, and the share of the second."""
    if align_corners:
        at = i * (n_in - 1) / (n_out - 1) if n_out > 1 else 0.0
    else:
        at = max((i + 0.5) * n_in / n_out - 0.5, 0.0)
    low = min(math.floor(at), n_in - 1)
    return low, min(low + 1, n_in - 1), min(at - low, 1.0)


def min_max(m):
    """The normalized map, and whether it is constant."""
    low, high = (math.nan, math.nan) if np.isnan(m).any() else (m.min(), m.max())
    # resize() rounds: a constant map comes out constant to 1e-15 only
    if abs(high - low) <= 1e-14 * abs(low):
        return np.zeros_like(m), True
    return (m - low) / (high - low), False


def resize_normalize(maps, size, clip="before"):
    out = []
    for m in maps:
        before = np.maximum(m, 0) if clip == "before" else m
        after = resize(before, size)
        out.append(min_max(np.maximum(after, 0) if clip == "after" else after)[0])
    return np.stack(out)


def mask_images(activations, images, start, stop, out=None, normalize="after", align_corners=False):
    rows, constants = [], []
    for b in range(len(images)):
        for k in range(start, stop):
            m = activations[b, k]
            if normalize == "before":
                m, constant = min_max(m)
            m = resize(m, images.shape[2:], align_corners)
            if normalize != "before":
                normalized, constant = min_max(m)
                m = normalized if normalize == "after" else m
            rows.append(np.stack([m * color for color in images[b]]))
            constants.append(constant)
    return np.stack(rows), np.array(constants).reshape(len(images), stop - start)


def mask_cells(activations, start, stop, out=None, kernel="point"):
    batch, channels, h, w = activations.shape
    rows = []
    for b, i in itertools.product(range(batch), range(start, stop)):
        row = np.zeros((channels, h, w))
        y, x = divmod(i, w)
        for dy, dx in itertools.product((-1, 0, 1), (-1, 0, 1)):
            v, u = y + dy, x + dx
            if not (0 <= v < h and 0 <= u < w):
                continue
            if kernel == "point":
                if dy == dx == 0:
                    row[:, v, u] = activations[b, :, v, u]
                continue
            weight = [[1, 2, 1], [2, 4, 2], [1, 2, 1]][dy + 1][dx + 1] / 16
            source = activations[b, :, y, x] if kernel == "gaussian" else activations[b, :, v, u]
            row[:, v, u] = weight * source
        rows.append(row)
    return np.stack(rows)


def mask_channels(activations, start, stop, out=None):
    rows = []
    for b, k in itertools.product(range(len(activations)), range(start, stop)):
        row = activations[b].copy()
        row[k] = 0
        rows.append(row)
    return np.stack(rows)


def overlay(images, maps, colormap, alpha=0.5):
    out = np.zeros_like(images)
    for index in np.ndindex(*maps.shape):
        m = np.float32(maps[index])
        m = np.float32(0) if np.isnan(m) else min(max(m, np.float32(0)), np.float32(1))
        color = colormap[round(float(m * np.float32(255)))]
        for c in range(3):
            mixed = np.float32(1 - alpha) * np.float32(images[index][c]) + np.float32(alpha) * np.float32(color[c])
            out[index][c] = round(float(mixed))
    return out


def impute_pixels(images, removed):
    out = images.copy()
    height, width = removed.shape[1:]
    for n, c in itertools.product(range(images.shape[0]), range(images.shape[1])):
        if removed[n].all():
            out[n, c] = images[n, c].mean()
            continue
        unknown = {place: k for k, place in enumerate(zip(*np.nonzero(removed[n]), strict=True))}
        if not np.isfinite(images[n, c][~removed[n]]).all():
            out[n, c][removed[n]] = math.nan
            continue
        matrix, right = np.eye(len(unknown)), np.zeros(len(unknown))
        for (y, x), row in unknown.items():
            around = [
                ((y + dy, x + dx), 1 / 6 if dy == 0 or dx == 0 else 1 / 12)
                for dy, dx in itertools.product((-1, 0, 1), (-1, 0, 1))
                if (dy, dx) != (0, 0) and 0 <= y + dy < height and 0 <= x + dx < width
            ]
            total = sum(weight for _, weight in around)
            for place, weight in around:
                if place in unknown:
                    matrix[row, unknown[place]] -= weight / total
                else:
                    right[row] += weight / total * images[n, c][place]
        for place, value in zip(unknown, np.linalg.solve(matrix, right), strict=True):
            out[n, c][place] = value
    return out


def rank_pixels(maps):
    out = np.zeros(maps.shape, np.int32)
    for n, m in enumerate(maps):
        order = sorted(
            range(m.size), key=lambda i: (math.isnan(m.flat[i]), -m.flat[i] if m.flat[i] == m.flat[i] else 0)
        )
        for place, i in enumerate(order):
            out[n].flat[i] = place
    return out


def perturb_steps(images, others, ranks, counts, out=None):
    rows = []
    for image, other, rank in zip(images, others, ranks, strict=True):
        (height, width), (h, w) = image.shape[1:], rank.shape
        for count in counts:
            row = image.copy()
            for y, x in itertools.product(range(height), range(width)):
                if rank[y * h // height, x * w // width] < count:
                    row[:, y, x] = other[:, y, x]
            rows.append(row)
    return np.stack(rows)


def impulse_response(size, sigma):
    """What a Gaussian filter, reflecting at the borders, makes of a 1 in the middle of `size` zeros."""
    radius = int(4 * sigma + 0.5)
    weights = {i: math.exp(-i * i / (2 * sigma * sigma)) for i in range(-radius, radius + 1)}
    out = []
    for place in range(size):
        total = 0.0
        for offset, weight in weights.items():
            at = place + offset
            while not 0 <= at < size:
                at = -1 - at if at < 0 else 2 * size - 1 - at
            total += weight * (at == size // 2)
        out.append(total / sum(weights.values()))
    return out


def blur_images(images, size=11, sigma=5.0):
    taps, radius = impulse_response(size, sigma), size // 2
    out = np.zeros_like(images)
    height, width = images.shape[2:]
    for y, x in itertools.product(range(height), range(width)):
        for j, i in itertools.product(range(size), range(size)):
            v, u = y + j - radius, x + i - radius
            if 0 <= v < height and 0 <= u < width:
                out[..., y, x] += taps[j] * taps[i] * images[..., v, u]
    return out
