"""The ops on maps of any shape: linear for signals, bilinear for pictures, trilinear for volumes.

Maps come as pictures (..., h, w), a signal's l samples as (1, l) and a volume's depth in its rows, (d*h, w).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from fastcam.ops import arguments
from fastcam.ops.blur_images import blur_images, factor, weigh
from fastcam.ops.mask_cells import band, mask_cells
from fastcam.ops.mask_images import mask_images
from fastcam.ops.resize_normalize import is_flat, min_max, resize_normalize

BLOCK = 1 << 18  # voxels of the masks of a volume that are held at a time, one mask at least


def as_pictures(x: Tensor) -> Tensor:
    """Signals (n, C, l) as (n, C, 1, l), volumes (n, C, d, h, w) as (n, C, d*h, w), pictures as they are.

    A view wherever depth and rows follow each other in memory.
    """
    return x.unsqueeze(2) if x.dim() == 3 else x.flatten(2, 3) if x.dim() == 5 else x


def finish_maps(maps: Tensor, shape: tuple[int, ...], size: tuple[int, ...], clip: str) -> Tensor:
    """(m - min m) / (max m - min m) of each map after a resize, see `resize_normalize`.

    Args:
        maps: (N, h, w), any float dtype; computed in float32 (float64 stays float64).
        shape: of a map's cells, (l,), (h, w) or (d, h, w).
        size: (L,), (H, W) or (D, H, W).
        clip: where negative values become zero: "before" the resize, "after" it, or "never".

    Returns:
        (N, *size) float32 in [0, 1].
    """
    if len(size) < 3:
        flat = resize_normalize(maps, (math.prod(size[:-1]), math.prod(size[-1:])), clip)
        return flat.flatten(1) if len(size) == 1 else flat
    maps = maps.to(arguments.working(maps))
    maps = maps.relu() if clip == "before" else maps
    resized = trilinear(maps[None], shape, size)[0]
    resized = (resized.relu() if clip == "after" else resized).flatten(1, 2)
    return min_max(resized, is_flat(maps))[0].unflatten(1, size[:2]).float()


def trilinear(maps: Tensor, shape: tuple[int, ...], size: tuple[int, ...], align_corners: bool = False) -> Tensor:
    """What `interpolate(mode="trilinear")` gives: on a CPU bilinear in each slice, then a product along the depth.

    Args:
        maps: (B, K, d*h, w)
        shape: (d, h, w)
        size: (D, H, W)
        align_corners: as in `torch.nn.functional.interpolate`.

    Returns:
        (B, K, D, H, W)
    """
    depth, height, width = size
    if maps.device.type != "cpu" or align_corners:
        given = maps.unflatten(2, shape[:2])
        return interpolate(given, (depth, height, width), mode="trilinear", align_corners=align_corners)
    ones = maps.new_ones(len(maps), 1, height, width)
    slices = maps.unflatten(2, shape[:2]).flatten(1, 2)
    fine = mask_images(slices, ones, 0, slices.shape[1], None, "never")[0].view(*maps.shape[:2], shape[0], -1)
    at = ((torch.arange(depth, dtype=torch.float64) + 0.5) * (shape[0] / depth) - 0.5).clamp(0, shape[0] - 1)
    weights = (1 - (at[:, None] - torch.arange(shape[0])).abs()).relu().to(fine.dtype)
    with torch.autocast("cpu", enabled=False):
        return (weights @ fine).unflatten(3, (height, width))


def mask_spaces(
    activations: Tensor,
    shape: tuple[int, ...],
    images: Tensor,
    start: int,
    stop: int,
    out: Tensor,
    normalize: str = "after",
    align_corners: bool = False,
) -> None:
    """images[b] · up(norm(A[b, k])) for k in [start, stop), see `mask_images`; of volumes few masks at a time.

    Args:
        activations: (B, K, h, w)
        shape: of a map's cells.
        images: (B, C, *size)
        start: first channel.
        stop: one past the last channel.
        out: (B·(stop - start), C, *size) to write to, any float dtype.
        normalize: "after" the upsampling, or "never".
        align_corners: as in `torch.nn.functional.interpolate`.
    """
    if images.dim() < 5:
        # A signal's axis of height 1 makes a view that is contiguous whatever the strides of that axis.
        signal = images.dim() == 3
        given, rows = (images.unsqueeze(2), out.unsqueeze(2)) if signal else (images, out)
        mask_images(activations, given, start, stop, rows, normalize, align_corners)
        return
    dtype = arguments.working(activations, images)
    size, rows = tuple(images.shape[2:]), out.unflatten(0, (len(images), stop - start))
    step = max(1, BLOCK // (len(images) * math.prod(size)))
    pictures = images.to(dtype)[:, None]
    for first in range(start, stop, step):
        last = min(first + step, stop)
        a = activations[:, first:last].to(dtype)
        if normalize == "before":
            a = min_max(a, is_flat(a))[0]
        masks = trilinear(a, shape, size, align_corners)
        if normalize == "after":
            axes = (2, 3, 4)  # torch's aminmax of axes takes seven times as long as the two
            low, high = masks.amin(axes, keepdim=True), masks.amax(axes, keepdim=True)
            flat = is_flat(a)[..., None] | (low == high)
            masks.sub_(low).mul_((high - low).masked_fill_(flat, 1).reciprocal_().masked_fill_(flat, 0))
        torch.mul(pictures, masks[:, :, None], out=rows[:, first - start : last - start])


def mask_places(
    activations: Tensor, shape: tuple[int, ...], start: int, stop: int, out: Tensor, kernel: str = "point"
) -> None:
    """A at one cell in [start, stop) and its surroundings, zero elsewhere, see `mask_cells`.

    Along every axis a cell counts 1/2 and the ones beside it 1/4.

    Args:
        activations: (1, C, h, w)
        shape: of a map's cells.
        start: first cell.
        stop: one past the last cell.
        out: (stop - start, C, h, w) to write to, any float dtype.
        kernel: "point", "gaussian" or "neighbors".
    """
    if kernel == "point" or len(shape) == 2:
        mask_cells(activations, start, stop, out, kernel)
        return
    a = activations.to(arguments.working(activations))
    at = torch.unravel_index(torch.arange(start, stop, device=a.device), shape)
    stencil = a.new_ones(stop - start, 1)
    for axis, (cells, i) in enumerate(zip(shape, at, strict=True)):
        own = band(cells, kernel, a)[i].view(-1, *[cells if n == axis else 1 for n in range(len(shape))])
        stencil = own if axis == 0 else stencil * own
    stencil = stencil.reshape(stop - start, 1, *a.shape[2:])
    vectors = a.flatten(2)[0, :, start:stop].T[..., None, None]
    out.copy_(torch.where(stencil > 0, (vectors if kernel == "gaussian" else a) * stencil, 0))


def blur_spaces(images: Tensor, size: int = 11, sigma: float = 5.0) -> Tensor:
    """Convolution with RISE's kernel along every axis, zero outside, see `blur_images`.

    Args:
        images: (N, C, *space), any float dtype.
        size: side of the kernel, odd.
        sigma: standard deviation.

    Returns:
        (N, C, *space) in the dtype of the images.
    """
    if images.dim() == 4:
        return blur_images(images, size, sigma)
    taps, axes = factor(size, sigma), range(2, images.dim())
    x = pad(images.to(arguments.working(images)), (size // 2,) * (2 * len(axes)))
    for axis in axes:
        x = weigh(x, taps, axis)
    return x.to(images.dtype)
