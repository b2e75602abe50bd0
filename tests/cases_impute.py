"""Arguments of `impute_pixels`."""

from __future__ import annotations

import torch

from tests.case import case, normal


@case("impute_pixels", "plain", "odd", "one_pixel", "one_row", "one_column", "gray", "four_colors", "large", "noise")
@case("impute_pixels", "nothing", "everything", "one_full", "one_kept", "one_removed", "checkered", "stripes", "ring")
@case("impute_pixels", "constant", "offset", "tiny", "nan_kept", "nan_removed", "strided", "channels_last", "expanded")
def _impute_pixels(name, dtype, device):
    colors = {"gray": 1, "four_colors": 4}.get(name, 3)
    sizes = {"one_pixel": (1, 1), "one_row": (1, 9), "one_column": (8, 1), "odd": (5, 3), "large": (30, 43)}
    h, w = sizes.get(name, (9, 14))
    x = normal((2, colors, h, w), dtype, device)
    y, x_ = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    hole = ((y - h / 3) ** 2 + (x_ - w / 2) ** 2 < h * w / 5).expand(2, -1, -1).clone()
    patterns = {
        "nothing": y < 0,
        "everything": y >= 0,
        "one_kept": (y != 2) | (x_ != 3),
        "one_removed": (y == 0) & (x_ == 0),
        "checkered": (y + x_) % 2 == 0,
        "stripes": y % 4 > 0,
        "ring": (y > 0) & (y < h - 1) & (x_ > 0) & (x_ < w - 1),
        "noise": normal((h, w), torch.float32, "cpu", 3) > -1,
    }
    hole[0] = patterns.get(name, hole[0])
    if name in ("everything", "one_full"):
        hole[1] = True
    if name == "constant":
        x.fill_(0.3)
    elif name in ("offset", "tiny"):
        x = (x / 8 + 64 if name == "offset" else x * 1e-3).to(dtype)
    elif name == "nan_kept":
        x[0, 0, h - 1, 0] = float("nan")
    elif name == "nan_removed":
        x[0, 0, h // 3, w // 2] = float("nan")
    elif name == "strided":
        x, hole = x.transpose(2, 3).contiguous().transpose(2, 3), hole.mT.contiguous().mT
    elif name == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif name == "expanded":
        x = x[:1].expand(2, -1, -1, -1)
    return {"images": x, "removed": hole.to(device)}
