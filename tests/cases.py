"""Arguments for each op, by name; bench reads them too.

`CASES[op][name](dtype, device)` gives the keyword arguments of a call.
"""

from __future__ import annotations

import torch

from tests import cases_components

CASES = {**cases_components.CASES}


def case(op, *names):
    """Register a function (name, dtype, device) -> arguments under each of its names."""

    def add(make):
        for name in names:
            CASES.setdefault(op, {})[name] = lambda dtype, device="cpu", name=name: make(name, dtype, device)
        return make

    return add


def normal(shape, dtype, device, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(device, dtype)


def maps(name, dtype, device, batch=2, channels=5, h=7, w=7):
    """Activations (B, C, h, w) with the peculiarity that the case's name tells."""
    shapes = {
        "one_cell": (batch, channels, 1, 1),
        "one_row": (batch, channels, 1, 6),
        "odd": (batch, channels, 5, 3),
        "one_channel": (batch, 1, h, w),
        "one_image": (1, channels, h, w),
        "many_channels": (1, 600, 4, 5),
        "large": (1, 3, 40, 33),
    }
    a = normal(shapes.get(name, (batch, channels, h, w)), dtype, device)
    if name == "constant":
        a[:, 1] = 0.3
        a[:, 2] = -2
    elif name == "dead":
        a[:, ::2] = 0
    elif name == "zero":
        a.zero_()
    elif name == "negative":
        a = -a.abs() - 0.1
    elif name == "offset":
        a = (a / 8 + 64).to(dtype)
    elif name == "tiny":
        a = (a * 1e-3).to(dtype)
    elif name == "nan":
        a[0, 0, h // 2, w // 2] = float("nan")
    elif name == "strided":
        a = normal((batch, 2 * channels, h, 2 * w), dtype, device)[:, ::2, :, 1::2]
    elif name == "channels_last":
        a = a.contiguous(memory_format=torch.channels_last)
    elif name == "expanded":
        a = a[:1].expand(batch, -1, -1, -1)
    return a


SHAPES = ("plain", "one_cell", "one_row", "odd", "one_channel", "one_image", "many_channels", "large")
VALUES = ("constant", "dead", "zero", "negative", "tiny", "nan", "strided", "channels_last", "expanded")


@case("weighted_sum", *SHAPES, *VALUES, "one_target", "many_targets")
def _weighted_sum(name, dtype, device):
    a = maps(name, dtype, device)
    targets = {"one_target": 1, "many_targets": 20}.get(name, 3)
    return {"activations": a, "weights": normal((a.shape[0], targets, a.shape[1]), dtype, device, 1)}


@case(
    "resize_normalize",
    *SHAPES,
    *VALUES,
    "offset",
    "after",
    "never",
    "negative_after",
    "down",
    "same",
    "down_never",
)
def _resize_normalize(name, dtype, device):
    clip = "after" if "after" in name else "never" if "never" in name else "before"
    a = maps(name.removesuffix("_after"), dtype, device)
    size = {"down": (3, 5), "down_never": (4, 4), "same": (7, 7), "large": (100, 65)}.get(name, (21, 34))
    return {"maps": a.flatten(0, 1), "size": size, "clip": clip}


@case("mask_images", *SHAPES, *VALUES, "offset")
@case(
    "mask_images",
    "before",
    "never",
    "corners",
    "before_corners",
    "never_corners",
    "one_pixel",
    "down",
    "same",
)
@case(
    "mask_images",
    "gray",
    "four_colors",
    "images_last",
    "images_strided",
    "span",
    "single",
    "out_last",
    "out_half",
)
def _mask_images(name, dtype, device):
    a = maps(name, dtype, device)
    colors = {"gray": 1, "four_colors": 4}.get(name, 3)
    size = {"one_pixel": (1, 1), "down": (3, 5), "same": (7, 7), "large": (100, 65)}.get(name, (21, 34))
    x = normal((a.shape[0], colors, *size), dtype, device, 1)
    if name == "images_last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif name == "images_strided":
        x = x.transpose(2, 3).contiguous().transpose(2, 3)
    start, stop = {"span": (2, 4), "single": (4, 5), "many_channels": (37, 54)}.get(name, (0, a.shape[1]))
    arguments = {"activations": a, "images": x, "start": start, "stop": stop}
    if name.startswith(("before", "never")):
        arguments["normalize"] = name.split("_")[0]
    if "corners" in name:
        arguments["align_corners"] = True
    if name.startswith("out"):
        out = torch.full((a.shape[0] * (stop - start), *x.shape[1:]), 7.0, dtype=dtype, device=device)
        last = out.contiguous(memory_format=torch.channels_last)
        arguments["out"] = last if name == "out_last" else out.to(torch.float16)
    return arguments


@case("mask_cells", *SHAPES, *VALUES, "gaussian", "neighbors", "gaussian_one_cell", "neighbors_one_row", "span")
@case(
    "mask_cells",
    "gaussian_channels_last",
    "neighbors_channels_last",
    "gaussian_span",
    "gaussian_nan",
    "out_last",
)
@case("mask_cells", "neighbors_out_half")
def _mask_cells(name, dtype, device):
    kernel = next((k for k in ("gaussian", "neighbors") if k in name), "point")
    a = maps(name.removeprefix(kernel).removeprefix("_"), dtype, device)
    cells = a.shape[2] * a.shape[3]
    start, stop = {"large": (300, 330)}.get(name, (5, 31) if "span" in name else (0, cells))
    arguments = {"activations": a, "start": start, "stop": stop, "kernel": kernel}
    return arguments | _output(name, (a.shape[0] * (stop - start), *a.shape[1:]), dtype, device)


@case("mask_channels", *SHAPES, *VALUES, "span", "out_last", "out_half")
def _mask_channels(name, dtype, device):
    a = maps(name, dtype, device)
    start, stop = {"span": (2, 4), "many_channels": (37, 54)}.get(name, (0, a.shape[1]))
    arguments = {"activations": a, "start": start, "stop": stop}
    return arguments | _output(name, (a.shape[0] * (stop - start), *a.shape[1:]), dtype, device)


def _output(name, shape, dtype, device):
    out = torch.full(shape, 7.0, dtype=dtype, device=device)
    if name.endswith("out_last"):
        return {"out": out.contiguous(memory_format=torch.channels_last)}
    return {"out": out.to(torch.float16)} if name.endswith("out_half") else {}


@case(
    "overlay",
    "plain",
    "one_pixel",
    "wide",
    "zero",
    "one",
    "outside",
    "nan",
    "strided",
    "hidden",
    "opaque",
    "ties",
)
def _overlay(name, dtype, device):
    batch, h, w = {"one_pixel": (1, 1, 1), "wide": (1, 3, 700)}.get(name, (2, 9, 11))
    generator = torch.Generator().manual_seed(2)
    picture, colormap = (
        torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(device)
        for shape in ((batch, h, 2 * w, 3), (256, 3))
    )
    m = torch.rand((batch, h, w), generator=generator).to(device, dtype)
    if name in ("zero", "one"):
        m.fill_(name == "one")
    elif name == "outside":
        m = m * 3 - 1
    elif name == "nan":
        m[0, 0, 0] = float("nan")
    images = picture[:, :, ::2] if name == "strided" else picture[:, :, :w].contiguous()
    alpha = {"hidden": 0.0, "opaque": 1.0, "ties": 0.5}.get(name, 0.4)
    return {"images": images, "maps": m, "colormap": colormap, "alpha": alpha}


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
