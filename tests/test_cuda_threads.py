"""The GPU's own Block, csrc/cuda/block.h, with real barriers, votes and shuffles among threads that take turns.

tests/test_cuda.py runs the same kernels over csrc/cuda/emulated_block.h, which has none of these.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fastcam import ops
from fastcam.ops import OPS, native
from fastcam.ops.dispatch import IMITATED
from tests.cases import CASES

HERE = Path(__file__).resolve().parent
CSRC = HERE.parent / "csrc"
SHARED = "extern __shared__ __align__(16) unsigned char shared_memory[];"
# Each a branch of its own; a block of 1024 contexts that take turns is slow.
GRID = [
    *(("mask_images", name) for name in ("plain", "before", "never_corners", "nan", "large", "out_half", "out_last")),
    *(("rank_pixels", name) for name in ("ties", "radix_nan", "radix_ties", "one_cell", "one_image")),
    *(("component_boxes", name) for name in ("plain", "spiral_four", "rings", "large", "nan", "extreme", "one_pixel")),
]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not IMITATED["cuda"], reason="contexts are as POSIX has them; a GPU needs no stand-in"
)


@pytest.fixture(scope="module")
def threads(tmp_path_factory):
    """The compiled kernels, called as those of the library are."""
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    assert compiler, "the C++ compiler that builds fastcam is not on PATH"
    folder = tmp_path_factory.mktemp("threads")
    text = (CSRC / "cuda" / "block.h").read_text()
    assert SHARED in text
    array = "inline unsigned char shared_memory[48 * 1024] __attribute__((aligned(16)));"
    (folder / "block.h").write_text(text.replace(SHARED, array))
    for kernel in (CSRC / "cuda").glob("*.cu"):  # copies, so that they include this block.h
        shutil.copy(kernel, folder)
    flags = ["-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared", f"-I{folder}", f"-I{CSRC}", f"-I{HERE}"]
    command = [compiler, *flags, HERE / "cuda_threads.cpp", "-o", folder / "threads.so"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    library = ctypes.CDLL(str(folder / "threads.so"))

    def caller(name):
        return lambda *values: getattr(library, name)((ctypes.c_int64 * len(values))(*(int(v) for v in values)))

    return SimpleNamespace(**{name: caller(name) for name in {op for op, _ in GRID}})


@pytest.mark.parametrize(("op", "name"), GRID, ids=[f"{op}-{name}" for op, name in GRID])
def test_bits_are_the_cpu_twins(op, name, threads, monkeypatch):
    with ops.use("cpu"):
        expected = OPS[op](**CASES[op][name](torch.float32))
    monkeypatch.setattr(native, "library", SimpleNamespace(emulated=threads))
    with ops.use("cuda"):
        actual = OPS[op](**CASES[op][name](torch.float32))
    for got, want in zip(*(r if isinstance(r, tuple) else (r,) for r in (actual, expected)), strict=True):
        assert torch.equal(got.nan_to_num(7), want.nan_to_num(7))


def test_every_twin_is_tried():
    assert {op for op, _ in GRID} == {op for op in OPS if "cuda" in OPS[op].twins}
