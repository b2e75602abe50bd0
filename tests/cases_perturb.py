"""Arguments for the ops that perturb whole images; `tests.cases` adds them to the others."""

from __future__ import annotations

import torch

from tests.case import case, normal, output

STEPS = [3, 0, 1, 40, 17, 1000, 39]  # of up to 9 * 11 pixels, in no order, beyond both ends


@case("perturb_steps", "plain", "odd", "one_pixel", "one_step", "gray", "four_colors", "long_rows", "no_permutation")
@case("perturb_steps", "patches", "one_patch", "uneven_patches", "images_last", "images_strided", "others_last", "nan")
@case("perturb_steps", "constant", "shared_constant", "one_row_repeated", "one_image_repeated", "ranks_shared", "list")
@case("perturb_steps", "ranks_strided", "far_apart", "out_last", "out_half", "patches_out_last", "constant_out_last")
@case("perturb_steps", "constant_out_half", "four_colors_out_last", "images_last_out_half", "uneven_patches_out_last")
def _perturb_steps(name, dtype, device):
    batch, colors = (1 if name == "one_step" else 2), (1 if "gray" in name else 4 if "four_colors" in name else 3)
    h, w = {"one_pixel": (1, 1), "odd": (5, 3), "long_rows": (3, 5000)}.get(name, (9, 11))
    images, others = (normal((batch, colors, h, w), dtype, device, seed) for seed in (1, 2))
    counts = torch.tensor([5] if name == "one_step" else STEPS)
    cells = (3, 11) if name.startswith("patches") else (4, 5) if "uneven" in name else (h, w)
    cells = (1, 1) if name == "one_patch" else cells
    ranks = normal((batch, cells[0] * cells[1]), torch.float32, device, 3).argsort().int().unflatten(1, cells)
    if "images_last" in name:
        images = images.contiguous(memory_format=torch.channels_last)
    elif name == "images_strided":
        images = images.transpose(2, 3).contiguous().transpose(2, 3)
    elif name == "others_last":
        others = others.contiguous(memory_format=torch.channels_last)
    elif name.startswith("constant"):
        others = others[:, :, :1, :1].expand_as(images)
    elif name == "shared_constant":
        others = others[:1, :1, :1, :1].expand_as(images)
    elif name == "one_row_repeated":
        others = others[:, :, :1].expand_as(images)
    elif name == "one_image_repeated":
        images = images[:1].expand_as(others)
    elif name == "ranks_shared":
        ranks = ranks[:1].expand_as(ranks)
    elif name == "ranks_strided":
        ranks = ranks.transpose(1, 2).contiguous().transpose(1, 2)
    elif name == "no_permutation":
        ranks = ranks // 20 - 1
    elif name == "far_apart":  # farther than 16 bits tell
        ranks, counts = ranks * 20_000_000, counts.clamp(max=99) * 20_000_000 + 1
    elif name == "nan":
        images[0, 0, 0], others[0, 1, 1] = float("nan"), float("inf")
    arguments = {"images": images, "others": others, "ranks": ranks}
    arguments["counts"] = counts.tolist() if name == "list" else counts
    return arguments | output(name, (batch * len(counts), colors, h, w), dtype, device)


@case(
    "blur_images",
    "plain",
    "odd",
    "one_pixel",
    "one_row",
    "gray",
    "four_colors",
    "images_last",
    "images_strided",
    "wide",
)
@case(
    "blur_images", "size_1", "size_5", "size_9", "size_31", "narrow", "broad", "expanded", "nan", "images_last_size_31"
)
def _blur_images(name, dtype, device):
    colors = {"gray": 1, "four_colors": 4}.get(name, 3)
    h, w = {"one_pixel": (1, 1), "one_row": (1, 9), "odd": (5, 3), "wide": (4, 130)}.get(name, (13, 18))
    x = normal((2, colors, h, w), dtype, device, 1)
    if name.startswith("images_last"):
        x = x.contiguous(memory_format=torch.channels_last)
    elif name == "images_strided":
        x = x.transpose(2, 3).contiguous().transpose(2, 3)
    elif name == "expanded":
        x = x[:1].expand(2, -1, -1, -1)
    elif name == "nan":
        x[0, 0, 6, 8] = float("nan")
    arguments = {"images": x}
    if "size" in name:
        arguments["size"] = int(name.rsplit("_", 1)[1])
    if name in {"narrow", "broad"}:
        arguments["sigma"] = {"narrow": 0.4, "broad": 40.0}[name]
    return arguments
