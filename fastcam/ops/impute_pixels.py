"""ROAD's linear imputation: removed pixels filled in from the ones that are left, smoothly and without a trace."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from fastcam.ops import arguments, native
from fastcam.ops.dispatch import Op

TOLERANCE = 2**-20  # largest error of the native twin, as a share of the range of a channel's kept pixels
BLOCK = 4  # images that the reference solves at a time


@Op
def impute_pixels(images: Tensor, removed: Tensor) -> Tensor:
    """Every removed pixel is the weighted mean of its neighbors: 1/6 each direct one, 1/12 each diagonal one.

    Neighbors outside the image do not count and the other weights are scaled up to a sum of 1; neighbors may be
    removed themselves, so this is one linear system an image. Kept pixels stay as they are. Where all pixels are
    removed, each is the mean of its channel. What stands on a removed pixel has no influence, unless all are.
    A channel with a NaN or an infinity on a kept pixel becomes NaN on all removed ones. Computed in float64 by the
    reference; the native twin's error is bounded by 2^-20 of the range of a channel's kept pixels. ROAD's noise is
    not added here.

    The reference eliminates row by row: min(H, W)² · max(H, W) · 8 bytes an image.

    Source: Rong et al., A Consistent and Efficient Evaluation Strategy for Attribution Methods, ICML 2022,
    arXiv:2202.00449, section 4.2.

    Args:
        images: (N, C, H, W).
        removed: (N, H, W) bool, True where a pixel is to be filled in.

    Returns:
        (N, C, H, W), contiguous, in the dtype of the images.
    """
    blocks = zip(images.split(BLOCK), removed.split(BLOCK), strict=True)
    return torch.cat([_impute(block.double(), mask) for block, mask in blocks]).to(images.dtype)


def _impute(images: Tensor, removed: Tensor) -> Tensor:
    """A block of images in float64: block Gaussian elimination, one block of unknowns a row of pixels."""
    height, width = removed.shape[1:]
    if width > height:
        return _impute(images.mT, removed.mT).mT.contiguous()
    full = removed.all(2).all(1)[:, None, None]
    holes = removed & ~full  # a full mask has no solution; its image is replaced at the end
    unknown = holes.double()
    kept = torch.where(removed[:, None], 0.0, images)
    valid = kept.isfinite().all(3).all(2)[:, :, None, None]
    kept = torch.where(valid, kept, 0.0)
    weights = images.new_tensor([[1, 2, 1], [2, 0, 2], [1, 2, 1]], dtype=torch.float64)[None, None] / 12
    sums = conv2d(torch.ones_like(unknown[:1, None]), weights, padding=1)[0]
    known = conv2d(kept.flatten(0, 1)[:, None], weights, padding=1).view_as(kept) * unknown[:, None]
    # Rows of kept pixels are rows of the identity, with solution 0.
    near = torch.ones(width - 1, dtype=torch.float64, device=images.device)
    along = (torch.diag(near, 1) + torch.diag(near, -1)) / 6
    across = along / 2 + torch.eye(width, dtype=torch.float64, device=images.device) / 6
    # Downwards: x_y = right_y + coupling_y x_(y+1).
    rights: list[Tensor] = []
    couplings: list[Tensor] = []
    for y in range(height):
        row = unknown[:, y]
        block = torch.diag_embed(row * sums[:, y] + 1 - row) - row[:, :, None] * along * row[:, None]
        right = known[:, :, y].mT
        if y > 0:
            up = row[:, :, None] * across * unknown[:, y - 1, None]
            block, right = block - up @ couplings[-1], right + up @ rights[-1]
        if y + 1 < height:
            down = row[:, :, None] * across * unknown[:, y + 1, None]
            solved = torch.linalg.solve(block, torch.cat([right, down], 2))
            couplings.append(solved[:, :, right.shape[2] :])
            right = solved[:, :, : right.shape[2]]
        else:
            right = torch.linalg.solve(block, right)
        rights.append(right)
    # Upwards.
    for y in reversed(range(height - 1)):
        rights[y] = rights[y] + couplings[y] @ rights[y + 1]
    solution = torch.where(valid, torch.stack(rights, 1).permute(0, 3, 1, 2), torch.nan)
    filled = torch.where(holes[:, None], solution, images)
    return torch.where(full[:, None], images.mean((2, 3), keepdim=True), filled)


@impute_pixels.arguments
def _arguments(images: Tensor, removed: Tensor) -> tuple[Tensor, Tensor]:
    arguments.tensor("images", images, "N C H W")
    if not isinstance(removed, Tensor) or removed.dtype != torch.bool:
        got = getattr(removed, "dtype", type(removed).__name__)
        raise TypeError(f"removed must be a bool tensor (N H W), got {got}; compare with a threshold first")
    arguments.shape("removed", removed, "N H W", images)
    expected = (images.shape[0], *images.shape[2:])
    if removed.shape != expected:
        raise ValueError(f"removed has shape {tuple(removed.shape)}, expected {expected} as in images")
    return images, removed


def _needs(images: Tensor, removed: Tensor) -> str | None:
    return None if images.dtype in native.TYPES else "float64 is computed by the reference"


@impute_pixels.twin("cpu", needs=_needs)
def _cpu(images: Tensor, removed: Tensor) -> Tensor:
    count, channels, height, width = images.shape
    values = images.to(torch.float32)
    if values.stride()[1:] != (height * width, width, 1):
        values = values.contiguous()
    removed = removed.contiguous()
    out = torch.empty((count, channels, height, width), dtype=torch.float32)
    failed = torch.empty(count, dtype=torch.bool)
    native.call(
        "impute_pixels",
        values.data_ptr(),
        removed.data_ptr(),
        out.data_ptr(),
        failed.data_ptr(),
        values.stride(0),
        count,
        channels,
        height,
        width,
        TOLERANCE,
    )
    if failed.any():
        out[failed] = impute_pixels.reference(values[failed], removed[failed])
    return out.to(images.dtype)
