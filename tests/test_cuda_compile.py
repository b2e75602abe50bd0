"""Every CUDA kernel compiles for every supported GPU, without a warning and with its values in registers.

No GPU is needed, but nvcc: from PATH or CUDA_HOME, else from the wheels that the extra `test` installs on Linux.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parent.parent / "csrc"
KERNELS = sorted((CSRC / "cuda").glob("*.cu"))
GENERATIONS = (80, 90, 120)
# As in CMakeLists.txt, and no value may be spilled from a register to memory.
FLAGS = (
    *("-std=c++17", "-O3", "--fmad=false", "-Werror=all-warnings", "-Xcompiler=-Wall,-Wextra,-Werror"),
    *("-Xptxas=--warn-on-spills,--warning-as-error", "--threads=2"),
    *(f"-gencode=arch=compute_{sm},code=sm_{sm}" for sm in GENERATIONS),
)


def find_nvcc():
    """Path of nvcc, or None."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    wheels = importlib.util.find_spec("nvidia")
    folders = [Path(root) for root in (wheels and wheels.submodule_search_locations) or ()]
    found = [path for folder in folders for path in sorted(folder.glob("*/bin/nvcc"))]
    return shutil.which("nvcc") or (home and shutil.which("nvcc", path=Path(home, "bin"))) or next(iter(found), None)


@pytest.fixture(scope="module")
def nvcc():
    found = find_nvcc()
    if found is None and sys.platform != "linux":
        pytest.skip("there are no wheels of nvcc for this system")
    assert found, "no nvcc: pip install 'fastcam[nvcc]'"
    return found


def compiled(nvcc, source, folder, *flags):
    """What nvcc says, and whether it succeeded."""
    command = [nvcc, *FLAGS, *flags, f"-I{CSRC}", f"-I{CSRC / 'cuda'}", "-DFASTCAM_ISA=cuda", "-c", source]
    run = subprocess.run([*command, "-o", folder / "out.o"], capture_output=True, text=True, check=False)
    return run.stdout + run.stderr, run.returncode == 0


def test_every_kernel_of_the_table_is_a_file():
    entries = re.findall(r"kernels\.(\w+) = (\w+);", (CSRC / "cuda" / "table.cu").read_text())
    assert entries
    assert all(entry == kernel for entry, kernel in entries)
    assert {path.stem for path in KERNELS} == {"device", "table"} | {kernel for _, kernel in entries}


@pytest.mark.parametrize("source", KERNELS, ids=lambda path: path.stem)
def test_it_compiles_for_every_generation(source, nvcc, tmp_path):
    said, succeeded = compiled(nvcc, source, tmp_path)
    assert succeeded, said


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("__global__ void kernel(int n) { int unused; }", "never referenced"),
        ("__global__ void kernel() { memory[threadIdx.x] = 0; }", "undefined"),
    ],
    ids=["warning", "error"],
)
def test_a_warning_fails(text, complaint, nvcc, tmp_path):
    source = tmp_path / "bad.cu"
    source.write_text(text)
    said, succeeded = compiled(nvcc, source, tmp_path)
    assert not succeeded
    assert complaint in said


def test_a_spill_fails(nvcc, tmp_path):
    """Forty sums at a time do not fit into 24 registers."""
    source = tmp_path / "bad.cu"
    source.write_text(
        "__global__ void kernel(float* x) { float v[40]; for (int i = 0; i < 40; ++i) v[i] = x[i * 32 + threadIdx.x];"
        "for (int j = 0; j < 40; ++j) for (int i = 0; i < 40; ++i) v[i] = v[i] * v[j] + v[(i + j) % 40];"
        "for (int i = 0; i < 40; ++i) x[i * 32 + threadIdx.x] = v[i]; }"
    )
    said, succeeded = compiled(nvcc, source, tmp_path, "-maxrregcount=24")
    assert not succeeded
    assert "spill" in said
