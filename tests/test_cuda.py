"""The CUDA kernels against the CPU twins, bit for bit: their own branches, the order of their threads, what is missing.

They run emulated on CPU tensors, and on a GPU with --device cuda.
"""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
import torch

from fastcam import ops
from fastcam.ops import OPS, native
from fastcam.ops.dispatch import IMITATED
from tests.case import normal
from tests.cases import CASES
from tests.cases_components import spiral

TWINS = [op for op in OPS if "cuda" in OPS[op].twins]
GRID = [(op, name) for op in TWINS for name in CASES[op]]
ORDERS = {"rising": 0, "falling": 1, "mixed": 2, "threads": 3}  # Order in csrc/cuda/emulated_block.h


@pytest.fixture(autouse=True)
def where(device):
    """Where the CUDA kernels run."""
    if device.type == "cpu" and not IMITATED["cuda"]:
        pytest.skip("there is a GPU: run them on it with --device cuda")
    return device


def run(backend, op, arguments, device="cpu", order="rising"):
    """Results on the CPU; `order` is that of emulated threads."""
    placed = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
    native.library.emulated.set_order(ORDERS[order])
    try:
        with ops.use(backend):
            result = OPS[op](**placed)
    finally:
        native.library.emulated.set_order(0)
    return [t.cpu().clone() for t in (result if isinstance(result, tuple) else (result,))]


def same_bits(results, expected):
    """Equal, and NaN in the same places."""
    for got, want in zip(results, expected, strict=True):
        assert got.dtype == want.dtype
        assert torch.equal(got.isnan(), want.isnan())
        assert torch.equal(got.nan_to_num(7), want.nan_to_num(7))


def test_they_are_the_ones_that_are_written():
    assert set(TWINS) == {name for name in dir(native.library.emulated) if name in OPS}
    assert {"mask_images", "rank_pixels", "component_boxes"} <= set(TWINS)


@pytest.mark.parametrize("order", list(ORDERS))
@pytest.mark.parametrize(("op", "name"), GRID, ids=[f"{op}-{name}" for op, name in GRID])
def test_bits_are_the_cpu_twins_in_every_order_of_threads(op, name, order, dtype, device):
    """A missing barrier, or a race, would show in one of them."""
    expected = run("cpu", op, CASES[op][name](dtype))
    same_bits(run("cuda", op, CASES[op][name](dtype), device, order), expected)


def test_what_is_missing_is_said_with_its_mend(monkeypatch):
    monkeypatch.setitem(IMITATED, "cuda", False)
    monkeypatch.setattr(native, "EMULATED", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    arguments = masked()
    for built, expected in (
        (True, "there is no CUDA device"),
        (False, "built without CUDA: nvcc 12 or later was not found"),
    ):
        monkeypatch.setattr(native, "CUDA", built)
        reason = ops.mask_images.why_not("cuda", **arguments)
        assert reason.startswith(expected)
        assert built or "pip install" in reason
        with ops.use("cuda"), pytest.raises(RuntimeError) as error:
            ops.mask_images(**arguments)
        assert str(error.value) == f"mask_images cannot run on backend cuda: {reason}"
        rows = [r for r in ops.support() if r["backend"] == "cuda" and r["op"] in TWINS]
        assert {r["reason"] for r in rows} == {reason}
    assert ops.mask_images(**arguments)[0].shape[0] == 5  # on another twin


def test_a_gpu_that_the_build_does_not_know_is_named(monkeypatch):
    said = "no kernel image is available for execution on the device"
    monkeypatch.setattr(native, "library", SimpleNamespace(cuda=SimpleNamespace(refusal=lambda: said)))
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    reason = native._refusal.__wrapped__(0)
    assert "Tesla T4: no kernel image" in reason
    assert "FASTCAM_CUDA_ARCHITECTURES=75 pip install" in reason


def test_it_is_never_chosen_for_tensors_on_a_cpu(monkeypatch):
    monkeypatch.setattr(native, "launch", lambda *_: pytest.fail("emulated"))
    ops.mask_images(**masked())
    ops.rank_pixels(torch.rand(1, 3, 3))
    ops.component_boxes(torch.rand(1, 3, 3), [0.5])


@pytest.mark.skipif(torch.cuda.is_available(), reason="launches succeed on a GPU")
def test_a_failed_launch_names_the_op():
    """Without a driver every launch fails; nothing is read."""
    assert native.library.cuda.refusal()
    numbers = {"mask_images": [1] * 13 + [False, 0, False, 0], "rank_pixels": [1] * 6 + [0]}
    for op, values in numbers.items():
        if native.build_info()["cuda"]:
            with pytest.raises(RuntimeError, match=f"^{op}: .*CUDA"):
                getattr(native.library.cuda, op)(*values)
        else:
            assert not hasattr(native.library.cuda, op)


@pytest.mark.cuda
@pytest.mark.parametrize("op", TWINS)
def test_a_cuda_graph_replays_it(op):
    first, second = (CASES[op][name](torch.float32, "cuda") for name in ("plain", "negative"))
    with ops.use("cuda"):
        OPS[op](**first)
        expected = OPS[op](**second)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = OPS[op](**first)
        for name, value in second.items():
            if isinstance(value, torch.Tensor):
                first[name].copy_(value)
        graph.replay()
    for got, want in zip(*(r if isinstance(r, tuple) else (r,) for r in (result, expected)), strict=True):
        assert torch.equal(got, want)


def masked(batch=1, channels=5, cells=(7, 7), colors=3, size=(21, 34), dtype=torch.float32, last=False, **options):
    a, x = normal((batch, channels, *cells), dtype, "cpu"), normal((batch, colors, *size), dtype, "cpu", 1)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    return {"activations": a, "images": x, "start": 0, "stop": channels, **options}


@pytest.mark.parametrize("normalize", ["after", "before", "never"])
@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize(
    "sizes",
    [
        {"size": (224, 224), "channels": 9},
        {"size": (37, 31)},
        {"size": (6, 30)},
        {"size": (5, 1300)},  # tiles side by side
        {"size": (4, 1101)},
        {"size": (70, 340), "colors": 4},
        {"cells": (40, 50), "size": (90, 70)},  # cells read in place
        {"cells": (150, 140), "size": (301, 290), "channels": 2},  # more ends than are searched at a time
        {"cells": (150, 140), "size": (31, 8)},  # fewer pixels than cells, far apart
        {"cells": (1, 200), "size": (3, 8)},
        {"batch": 3, "channels": 8, "size": (16, 16)},
        {"channels": 4097, "cells": (2, 2), "size": (2, 4), "colors": 1},
        {"colors": 1500, "size": (3, 2), "channels": 2},
    ],
    ids=str,
)
def test_masks_of_every_shape(sizes, last, normalize, dtype, device):
    arguments = masked(dtype=dtype, last=last, normalize=normalize, **sizes)
    same_bits(run("cuda", "mask_images", arguments, device, "mixed"), run("cpu", "mask_images", arguments))


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("offset", [1, 2, 4, 8])
def test_masks_where_tensors_begin_between_vectors(offset, last, dtype, device):
    arguments = masked(size=(16, 16), dtype=dtype, last=last)
    expected = run("cpu", "mask_images", arguments)
    arguments = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
    axes = (5, 16, 16, 3) if last else (5, 3, 16, 16)
    out = torch.empty(5 * 3 * 256 + offset, dtype=dtype, device=device)[offset:].view(axes)
    arguments["out"] = out.permute(0, 3, 1, 2) if last else out
    same_bits(run("cuda", "mask_images", arguments, device), expected)
    del arguments["out"]
    x = torch.empty(3 * 256 + offset, dtype=dtype, device=device)
    x = x.as_strided((1, 3, 16, 16), arguments["images"].stride(), offset).copy_(arguments["images"])
    same_bits(run("cuda", "mask_images", arguments | {"images": x}, device), expected)


def tangled(name, h=70, w=67):
    """A map whose components are long, many, or one."""
    noise = torch.rand((h, w), generator=torch.Generator().manual_seed(0))
    checkers = (torch.arange(h)[:, None] + torch.arange(w)) % 2
    stripes = (torch.arange(w) % 2).float()
    return {
        "noise": noise,
        "full": noise + 2,
        "checkers": checkers.float(),
        "spiral": spiral(67),
        "between": 1 - spiral(67),
        "comb": torch.where(torch.arange(h)[:, None] == h - 1, 1.0, stripes),
        "words": (torch.arange(h * w).view(h, w) % 33 > 0).float(),
        "thin": noise.view(-1)[:4096].view(2048, 2),
        "wide": noise.view(-1)[:4096].view(1, 4096),
    }[name]


@pytest.mark.parametrize("order", list(ORDERS))
@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("name", ["noise", "full", "checkers", "spiral", "between", "comb", "words", "thin", "wide"])
def test_components_of_every_shape(name, connectivity, order, device):
    """More tasks than blocks, so that scratch is used again."""
    maps = torch.stack([tangled(name), tangled(name).flip(0), tangled(name).flip(1)])
    arguments = {"maps": maps, "thresholds": [0.0, 0.3, 0.41, 0.5, 0.6, 1.0], "connectivity": connectivity}
    for relative in (True, False):
        arguments["relative"] = relative
        expected = run("cpu", "component_boxes", arguments)
        same_bits(run("cuda", "component_boxes", arguments, device, order), expected)


@pytest.mark.parametrize("order", list(ORDERS))
@pytest.mark.parametrize("name", ["noise", "checkers", "spiral", "thin", "wide"])
def test_ranks_of_every_shape(name, order, dtype, device):
    """Every warp has a share, some end within it; a constant and a short map between others that are not."""
    m = tangled(name)
    maps = torch.stack([m, m - 0.5, torch.full_like(m, 0.5), m.round(decimals=1), -m, m * 1e-40]).to(dtype)
    same_bits(run("cuda", "rank_pixels", {"maps": maps}, device, order), run("cpu", "rank_pixels", {"maps": maps}))
    for pixels in (1, 31, 32, 33, 1023, 1025):
        part = {"maps": maps.flatten(1)[:, None, :pixels]}
        same_bits(run("cuda", "rank_pixels", part, device, order), run("cpu", "rank_pixels", part))
