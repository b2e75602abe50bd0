"""Each op on each backend: the call alone on the smallest case of the tests, and sizes of real networks."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate

from fastcam.ops import OPS, use
from fastcam.ops.dispatch import IMITATED
from tests.cases import CASES, maps, normal

COPY = 64 << 20  # bytes: more than the caches hold
CHUNK = 64  # rows that mask_images and perturb_steps write


def smooth(device):
    """A map as methods give it: 7 x 7 cells, resized."""
    cells = normal((1, 1, 7, 7), torch.float32, device, 5).relu()
    return interpolate(cells, (224, 224), mode="bilinear")[0]


def real(op, device):
    """The arguments of the tests' plain case, at the sizes of a last layer and of a picture of 224 x 224."""
    a = maps("", torch.float32, device, 1, 1280, 7, 7)
    image = normal((1, 3, 224, 224), torch.float32, device)
    mean = {
        "weighted_sum": lambda: {"activations": a, "weights": normal((1, 1, 1280), torch.float32, device, 1)},
        "resize_normalize": lambda: {"maps": a[0, :8].contiguous(), "size": (224, 224)},
        "mask_images": lambda: {
            "activations": a,
            "images": image.contiguous(memory_format=torch.channels_last),
            "start": 0,
            "stop": CHUNK,
            "out": torch.empty((CHUNK, *image.shape[1:]), device=device, memory_format=torch.channels_last),
        },
        "mask_cells": lambda: {"activations": a, "start": 0, "stop": 49},
        "mask_channels": lambda: {"activations": a[:, :512].contiguous(), "start": 0, "stop": 64},
        "overlay": lambda: {
            "images": torch.zeros((1, 224, 224, 3), dtype=torch.uint8, device=device),
            "maps": torch.rand((1, 224, 224), device=device),
        },
        "impute_pixels": lambda: {"images": image, "removed": blobs(device)[None]},
        "rank_pixels": lambda: {"maps": normal((1, 224, 224), torch.float32, device)},
        "perturb_steps": lambda: {
            "images": image,
            "others": normal((1, 3, 224, 224), torch.float32, device, 1),
            "ranks": torch.randperm(224 * 224, device=device).int().view(1, 224, 224),
            "counts": torch.arange(0, CHUNK * 784, 784),
            "out": torch.empty((CHUNK, *image.shape[1:]), device=device),  # reused: fresh pages cost more than the op
        },
        "blur_images": lambda: {"images": image},
        "component_boxes": lambda: {"maps": smooth(device), "thresholds": torch.arange(10, device=device) / 10},
        "components": lambda: {"maps": smooth(device), "thresholds": torch.arange(10, device=device) / 10},
        "energy_in_boxes": lambda: {
            "maps": smooth(device),
            "boxes": torch.tensor([[[20.0, 30, 150, 170]]], device=device),
        },
    }[op]
    return {**CASES[op]["plain"](torch.float32, device), **mean()}


def blobs(device):
    """Half of a picture of 224 x 224, as a few smooth islands: what a map of 7 x 7 leaves at its median."""
    smooth = torch.nn.functional.interpolate(normal((1, 1, 7, 7), torch.float32, device), (224, 224), mode="bilinear")[
        0, 0
    ]
    return smooth > smooth.median()


def moved(arguments, result):
    """Bytes read and written at least: each tensor once, of activations only the span that is asked for."""
    total = 0
    for name, value in arguments.items():
        if isinstance(value, torch.Tensor) and name != "out":
            spanned = name == "activations" and "stop" in arguments and "images" in arguments
            share = (arguments["stop"] - arguments["start"]) / value.shape[1] if spanned else 1
            total += int(value.nbytes * share)
    results = result if isinstance(result, tuple) else (result,)
    return total + sum(one.nbytes for one in results)


@pytest.mark.parametrize("backend", ["reference", "cpu", "triton", "cuda"])
@pytest.mark.parametrize("size", ["call", "real"])
@pytest.mark.parametrize("op", OPS)
def test_op(benchmark, op, size, backend, device, close):
    function = OPS[op]
    arguments = CASES[op]["plain"](torch.float32, device) if size == "call" else real(op, device)
    reason = function.why_not(backend, **arguments)
    if reason or IMITATED.get(backend):
        pytest.skip(reason or "a GPU's kernel on the CPU shows what it computes, and nothing of its speed")
    with use("reference"):
        expected = [one.clone() for one in _tensors(function(**arguments))]  # `out` is written again
    with use(backend):
        result = function(**arguments)
        for actual, wanted in zip(_tensors(result), expected, strict=True):
            close(actual.float(), wanted.float())

        def call():
            function(**arguments)
            if device.type == "cuda":
                torch.cuda.synchronize()

        benchmark(call)
    first = next(iter(arguments.values()))
    benchmark.group = f"{op} {size}"
    benchmark.extra_info.update(
        what=f"{op} {size}",
        who=backend,
        shape="x".join(map(str, first.shape)),
        dtype=str(first.dtype).removeprefix("torch."),
        bytes=moved(arguments, result),
    )


def _tensors(result):
    return result if isinstance(result, tuple) else (result,)


def test_fill(benchmark, device):
    """What writing the rows of mask_images and perturb_steps takes by itself."""
    rows = torch.empty((CHUNK, 3, 224, 224), device=device)

    def call():
        rows.fill_(1.0)
        if device.type == "cuda":
            torch.cuda.synchronize()

    benchmark(call)
    shape = "x".join(map(str, rows.shape))
    benchmark.extra_info.update(what="fill", who="torch", shape=shape, dtype="float32", bytes=rows.nbytes)


def test_copy(benchmark, device):
    """What the memory gives: the measure of all GB/s above."""
    source = torch.ones(COPY // 4, device=device)
    to = torch.empty_like(source)

    def call():
        to.copy_(source)
        if device.type == "cuda":
            torch.cuda.synchronize()

    benchmark(call)
    benchmark.extra_info.update(what="copy", who="torch", shape=str(len(source)), dtype="float32", bytes=2 * COPY)
