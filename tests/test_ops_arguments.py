"""What ops say to wrong arguments."""

from __future__ import annotations

import pytest
import torch

from fastcam import ops

A = torch.ones(2, 3, 4, 5)
X = torch.ones(2, 3, 8, 9)
BYTES = torch.zeros(2, 8, 9, 3, dtype=torch.uint8)
COLORS = torch.zeros(256, 3, dtype=torch.uint8)

WRONG = {
    "not_a_tensor": (
        ops.weighted_sum,
        ([1.0], torch.ones(2, 1, 3)),
        TypeError,
        "activations must be a tensor",
    ),
    "integers": (
        ops.weighted_sum,
        (A.long(), torch.ones(2, 1, 3)),
        TypeError,
        r"got torch.int64; use .float\(\)",
    ),
    "axes": (ops.weighted_sum, (A[0], torch.ones(2, 1, 3)), ValueError, r"must have axes \(B C h w\)"),
    "empty": (ops.weighted_sum, (A[:0], torch.ones(2, 1, 3)), ValueError, "is empty"),
    "weights_batch": (
        ops.weighted_sum,
        (A, torch.ones(1, 1, 3)),
        ValueError,
        "weights' batch is 1, expected 2",
    ),
    "weights_channels": (
        ops.weighted_sum,
        (A, torch.ones(2, 1, 4)),
        ValueError,
        "last axis is 4, expected 3",
    ),
    "device": (
        ops.weighted_sum,
        (A, torch.ones(2, 1, 3, device="meta")),
        ValueError,
        "is on meta, expected cpu",
    ),
    "size_type": (ops.resize_normalize, (A[0], 7), TypeError, r"pair \(H, W\), got 7"),
    "size_zero": (ops.resize_normalize, (A[0], (0, 7)), ValueError, "must be positive"),
    "clip": (ops.resize_normalize, (A[0], (7, 7), "relu"), ValueError, "clip='relu' is unknown"),
    "maps_axes": (ops.resize_normalize, (A, (7, 7)), ValueError, r"must have axes \(N h w\)"),
    "images_batch": (ops.mask_images, (A, X[:1], 0, 3), ValueError, "images' batch is 1, expected 2"),
    "span_end": (ops.mask_images, (A, X, 0, 4), ValueError, "0 <= start < stop <= 3"),
    "span_empty": (ops.mask_images, (A, X, 2, 2), ValueError, "got start=2, stop=2"),
    "normalize": (ops.mask_images, (A, X, 0, 3, None, "both"), ValueError, "normalize='both' is unknown"),
    "out_shape": (
        ops.mask_images,
        (A, X, 0, 3, X),
        ValueError,
        r"out has shape \(2, 3, 8, 9\), expected \(6,",
    ),
    "out_dtype": (ops.mask_channels, (A, 0, 1, A.int()), TypeError, "out must be float32"),
    "out_strided": (
        ops.mask_channels,
        (A, 0, 1, torch.ones(2, 3, 4, 10)[..., ::2]),
        ValueError,
        "out must be contiguous or channels-last contiguous",
    ),
    "cells_span": (ops.mask_cells, (A, 0, 21), ValueError, "<= 20"),
    "cells_kernel": (ops.mask_cells, (A, 0, 20, None, "box"), ValueError, "kernel='box' is unknown"),
    "channels_span": (ops.mask_channels, (A, -1, 2), ValueError, "got start=-1, stop=2"),
    "overlay_dtype": (ops.overlay, (X, X[:, 0], COLORS), TypeError, "images must be a uint8 tensor"),
    "overlay_axes": (ops.overlay, (BYTES[0], X[:, 0], COLORS), ValueError, "must have axes"),
    "overlay_shape": (ops.overlay, (BYTES, X[:, 0, :4], COLORS), ValueError, "must have the shape of maps"),
    "overlay_colormap": (
        ops.overlay,
        (BYTES, X[:, 0], COLORS[:9]),
        ValueError,
        r"must have shape \(256, 3\)",
    ),
    "overlay_alpha": (
        ops.overlay,
        (BYTES, X[:, 0], COLORS, 1.5),
        ValueError,
        r"alpha must be in \[0, 1\], got 1.5",
    ),
    "removed_dtype": (
        ops.impute_pixels,
        (X, X[:, 0]),
        TypeError,
        r"removed must be a bool tensor \(N H W\), got torch.float32",
    ),
    "removed_list": (ops.impute_pixels, (X, [True]), TypeError, "got list"),
    "removed_axes": (ops.impute_pixels, (X, X > 0), ValueError, r"must have axes \(N H W\)"),
    "removed_shape": (
        ops.impute_pixels,
        (X, X[:, 0, :4] > 0),
        ValueError,
        r"\(2, 4, 9\), expected \(2, 8, 9\) as in images",
    ),
}


@pytest.mark.parametrize(("op", "arguments", "error", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_say_what_was_expected(op, arguments, error, message):
    for backend in ("reference", "cpu"):
        with ops.use(backend), pytest.raises(error, match=message):
            op(*arguments)
