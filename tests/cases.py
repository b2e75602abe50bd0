"""Arguments for each op, by name; bench reads them too.

`CASES[op][name](dtype, device)` gives the keyword arguments of a call.
"""

from __future__ import annotations

import torch

from tests import cases_components, cases_impute, cases_perturb  # noqa: F401 -- they register their cases
from tests.case import CASES, case, normal, output  # noqa: F401 -- CASES is what others import from here


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
    return arguments | output(name, (a.shape[0] * (stop - start), *a.shape[1:]), dtype, device)


@case("mask_channels", *SHAPES, *VALUES, "span", "out_last", "out_half")
def _mask_channels(name, dtype, device):
    a = maps(name, dtype, device)
    start, stop = {"span": (2, 4), "many_channels": (37, 54)}.get(name, (0, a.shape[1]))
    arguments = {"activations": a, "start": start, "stop": stop}
    return arguments | output(name, (a.shape[0] * (stop - start), *a.shape[1:]), dtype, device)


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


@case(
    "rank_pixels", *SHAPES, *VALUES, "ties", "signs", "infinite", "all_nan", "radix", "radix_ties", "radix_nan", "tiles"
)
def _rank_pixels(name, dtype, device):
    """The radix cases have enough pixels for wide digits."""
    if name.startswith("radix"):
        m = normal((2, 65, 67), dtype, device, 3)
        if name == "radix_ties":
            m = (m.abs() * 4).round() / 4
        elif name == "radix_nan":
            m[:, ::7, 3] = float("nan")
        return {"maps": m}
    m = maps(name, dtype, device).flatten(0, 1)
    if name == "ties":
        m = m.round()
    elif name == "signs":
        m = m.sign() * 0.0
    elif name == "infinite":
        m[:, 2, 1:4] = torch.tensor([float("inf"), float("-inf"), float("inf")], device=device, dtype=dtype)
    elif name == "all_nan":
        m.fill_(float("nan"))
    elif name == "tiles":
        m = m[:, 2:, ::2]
    return {"maps": m}
