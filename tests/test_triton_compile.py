"""The Triton twins as a GPU gets them: compiled, not interpreted, for each generation, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastcam.ops import OPS
from fastcam.ops.dispatch import TRITON

pytestmark = pytest.mark.skipif(not TRITON, reason="Triton has no wheel for this system")
ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES = (80, 90, 120)
FILES = {f"fastcam.ops.triton.{op}" for op in OPS if "triton" in OPS[op].twins}


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """Every compiled kernel: its op, file, architecture, PTX, registers, stack."""
    folder = tmp_path_factory.mktemp("triton")
    environment = {**os.environ, "TRITON_CACHE_DIR": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    environment.pop("TRITON_INTERPRET", None)
    run = subprocess.run(
        [sys.executable, "-m", "tests.compile_triton", str(folder)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_file_compiles(kernels, architecture):
    here = [row for row in kernels if row["architecture"] == architecture]
    assert {row["file"] for row in here} == FILES
    assert all(f".target sm_{architecture}" in row["ptx"] for row in here)


def test_a_file_of_kernels_is_an_op():
    found = {path.stem for path in (ROOT / "fastcam" / "ops" / "triton").glob("*.py")}
    assert found - {"__init__", "resample"} == {file.rsplit(".", 1)[1] for file in FILES}


def test_nothing_spills(kernels):
    """A thread's tile stays in its registers; what does not fit goes through memory, twice. Measured: 0 bytes."""
    spilled = [(row["op"], row["architecture"], row["stack"]) for row in kernels if row["stack"] > 32]
    assert spilled == []
    assert all(0 < row["registers"] <= 255 for row in kernels)


def test_sums_are_float32_products_and_additions(kernels):
    """No matrix instruction, which would round to TF32."""
    instructions = [row["ptx"] for row in kernels if row["op"] == "weighted_sum"]
    assert instructions
    assert all("fma.rn.f32" in ptx and "mma" not in ptx for ptx in instructions)


def test_overlay_rounds_each_product_and_sum(kernels):
    """As the reference does, whose bytes it has to give: nothing fused, nothing left for the assembler to fuse."""
    instructions = [row["ptx"] for row in kernels if row["op"] == "overlay"]
    assert instructions
    for ptx in instructions:
        assert "mul.rn.f32" in ptx
        assert not [word for word in ("fma", "mul.f32", "add.f32") if word in ptx]
