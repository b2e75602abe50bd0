"""Arguments for the component ops and the energy in boxes; `tests.cases` imports them."""

from __future__ import annotations

from functools import partial

import torch
from torch.nn.functional import interpolate

from tests.case import CASES

STEPS = torch.arange(10) / 10
EIGHTHS = torch.arange(-1, 9) / 8  # exact in every dtype, as are their products with a maximum of 1


def draw(shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def spiral(size):
    """A wall of ones that winds inwards, one pixel wide: its ends meet last."""
    m, y, x, dy, dx = torch.zeros(size, size), 0, 0, 0, 1
    m[0, 0] = 1
    while True:
        for _ in range(2):
            v, u, w, t = y + dy, x + dx, y + 2 * dy, x + 2 * dx
            free = 0 <= v < size and 0 <= u < size and m[v, u] == 0
            if free and not (0 <= w < size and 0 <= t < size and m[w, t] == 1):
                break
            dy, dx = dx, -dy
        else:
            return m
        y, x = v, u
        m[y, x] = 1


def component_map(name):
    """(B, H, W) with the peculiarity that the case's name tells."""
    shapes = {"one_pixel": (2, 1, 1), "one_row": (2, 1, 13), "one_column": (2, 13, 1), "one_image": (1, 9, 11)}
    m = draw(shapes.get(name, (2, 9, 11)))
    if name.startswith("quantized"):
        m = (m * 8).floor() / 8
        m[:, 4, 5] = 1
    elif name in ("negative", "signed"):
        m = -m - 0.1 if name == "negative" else m - 0.5
    elif name == "nan":
        m[0, 3:5, 2:9] = float("nan")
        m[1] = float("nan")
    elif name == "infinite":
        m[0, 3, 3], m[1, 4, 4:7] = float("inf"), -float("inf")
    elif name == "strided":
        m = draw((2, 18, 22))[:, ::2, 1::2].transpose(0, 1).contiguous().transpose(0, 1)
    elif name == "expanded":
        m = m[:1].expand(3, -1, -1)
    return shaped(name, m)


def shaped(name, m):
    """Maps whose components have a special shape, else m."""
    if name in ("smooth", "smooth_four", "large"):
        size = (70, 130) if name == "large" else (31, 23)
        m = interpolate(draw((4, 1, 7, 7)), size, mode="bilinear")[:, 0]
        m = m / m.amax((1, 2), True)
    elif name.startswith("spiral"):
        m = torch.stack([spiral(13), spiral(13).T, 1 - spiral(13)])
    elif name.startswith("checkers"):
        m = ((torch.arange(9)[:, None] + torch.arange(11)) % 2).float()[None].repeat(2, 1, 1)
        m[1] = 1 - m[1]
    elif name.startswith("rings"):
        y, x = torch.meshgrid(torch.arange(15), torch.arange(15), indexing="ij")
        m = (torch.maximum((y - 7).abs(), (x - 7).abs()) % 2).float()[None] * torch.tensor([1, 0.5])[:, None, None]
    elif name == "combs":  # stripes that meet at the bottom, and at the top
        m = (torch.arange(11) % 2).float().expand(2, 9, 11).clone()
        m[0, -1] = m[1, 0] = 0.5
    elif name == "constant":
        m = torch.full((2, 9, 11), 0.3)
    elif name == "zero":
        m = torch.zeros(2, 9, 11)
    return m


def component_thresholds(name):
    if name.startswith(("quantized", "signed")):
        return EIGHTHS
    if name == "per_image":
        return torch.stack([STEPS, 0.95 - STEPS])
    return {
        "unsorted": torch.tensor([0.5, -1.0, 0.25, 2.0, 0.5, 0.0, 0.75]),
        "one_threshold": torch.tensor([0.5]),
        "uneven": torch.tensor([0.1, 0.11, 0.111, 0.1111, 0.5, 0.9, 1.0, 0.0]),
        "extreme": torch.tensor([float("inf"), 0.5, float("nan"), -float("inf"), 3e38, -3e38, 1e-45]),
        "many_thresholds": torch.arange(300) / 512,
        "listed": [0.25, 0.5],
        "large": torch.tensor([0.2, 0.5, 0.9]),
    }.get(name, STEPS)


def component_boxes(name, dtype, device="cpu"):
    thresholds = component_thresholds(name)
    arguments = {
        "maps": component_map(name).to(device, dtype),
        "thresholds": thresholds.to(device) if isinstance(thresholds, torch.Tensor) else thresholds,
    }
    if name.endswith("four"):
        arguments["connectivity"] = 4
    if name in ("absolute", "infinite", "extreme"):
        arguments["relative"] = False
    return arguments


def components(name, dtype, device="cpu"):
    arguments = component_boxes(name, dtype, device)
    least = {"nothing": 1000, "large": 5, "quantized_four": 2}.get(name)
    return arguments | ({"min_area": least} if least else {})


def energy_in_boxes(name, dtype, device="cpu"):
    batch, h, w = {"one_pixel": (2, 1, 1), "odd": (2, 5, 3), "large": (3, 120, 131)}.get(name, (2, 9, 11))
    m = draw((batch, h, w)) - (0.3 if name == "signed" else 0)
    nan = float("nan")
    boxes = torch.tensor([[[2.0, 1, 7, 6], [1, 5, 2, 9]], [[0, 0, 11, 9], [3, 3, 3, 3]]])
    if name == "one_pixel":
        boxes = torch.tensor([[[0.0, 0, 1, 1]], [[0, 0, 0, 0]]])
    elif name == "odd":
        boxes = torch.tensor([[[0.3, 0.6, 2.4, 3.3]], [[-1.5, 1.2, 1.7, 9.1]]])
    elif name == "large":
        boxes = torch.tensor([[5.0, 7, 100, 99]]).repeat(3, 1, 1)
    elif name == "overlapping":
        boxes = torch.tensor([[[2.0, 1, 7, 6], [4, 2, 9, 8], [2, 1, 7, 6]]]).repeat(2, 1, 1)
    elif name == "padded":
        boxes[0, 1], boxes[1, 0] = torch.tensor([0.0, 0, -1, -1]), nan
    elif name == "outside":
        boxes = torch.tensor([[[-5.0, -5, 3, 4]], [[4, 5, 90, float("inf")]]])
    elif name == "elsewhere":
        boxes = torch.tensor([[[-5.0, 2, -1, 4]], [[11, 0, 14, 9]]])
    elif name == "no_boxes":
        boxes = torch.zeros(2, 0, 4)
    elif name == "nan":
        m[0, 3, 3], m[1, 8, 10], boxes[1, 0, 3] = nan, nan, 8  # inside, outside
    elif name == "infinite":
        m[0, 8, 10] = float("inf")
    elif name == "strided":
        m = draw((2, 18, 22))[:, ::2, 1::2]
    arguments = {"maps": m.to(device, dtype), "boxes": boxes.to(device, dtype)}
    return arguments | ({"edges": "inclusive"} if name.startswith("inclusive") else {})


MAPS = (
    *("plain", "one_pixel", "one_row", "one_column", "one_image", "smooth", "smooth_four", "large", "four"),
    *("quantized", "quantized_four", "spiral", "spiral_four", "checkers", "checkers_four", "rings", "rings_four"),
    *("combs", "constant", "zero", "negative", "signed", "nan", "infinite", "strided", "expanded", "absolute"),
    *("per_image", "unsorted", "one_threshold", "uneven", "extreme", "many_thresholds", "listed"),
)
BOXES = (
    *("plain", "inclusive", "one_pixel", "odd", "large", "overlapping", "padded", "outside", "elsewhere"),
    *("no_boxes", "nan", "infinite", "signed", "strided"),
)
for _make, _names in ((component_boxes, MAPS), (components, (*MAPS, "nothing")), (energy_in_boxes, BOXES)):
    CASES[_make.__name__] = {name: partial(_make, name) for name in _names}
