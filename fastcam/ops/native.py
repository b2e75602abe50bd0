"""The only Python file that touches the compiled library."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any

import torch  # first: the library then shares the OpenMP threads that torch has loaded

TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # fastcam::Float in csrc/ops.h


def _load() -> tuple[Any, str | None]:
    try:
        from fastcam import _C
    except ImportError as error:
        return None, f"the compiled library did not load ({error}); pip install fastcam builds it"
    return _C, None


library, missing = _load()  # missing: why there is no library
CUDA = not missing and library.build_info()["cuda"]


REBUILD = "pip install --force-reinstall --no-deps --no-cache-dir --no-binary fastcam fastcam"
SCRATCH = 2**28  # bytes of device memory that a CUDA kernel's blocks share, unless one alone needs more
EMULATED = os.environ.get("FASTCAM_EMULATE") == "1"  # CUDA kernels then run on CPU tensors too, slowly, for tests


def call(name: str, *args: Any) -> None:
    """Run a kernel on torch's number of threads; tensors go as pointers."""
    getattr(library, name)(*args, torch.get_num_threads())


def launch(device: torch.device, name: str, *args: Any) -> None:
    """Run a CUDA kernel on the current stream of a GPU, or emulated where the tensors are on a CPU."""
    if device.type == "cuda":
        getattr(library.cuda, name)(*args, torch.cuda.current_stream(device).cuda_stream)
    else:
        getattr(library.emulated, name)(*args, 0)


def blocks(device: torch.device, tasks: int, scratch: int) -> int:
    """How many blocks of a CUDA kernel share `tasks`, each with `scratch` bytes of its own: SCRATCH at most in all."""
    processors = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2
    return max(1, min(tasks, 2 * processors, SCRATCH // scratch))


def no_cuda() -> str | None:
    """Why no CUDA kernel can run here, and what mends it; None where they can."""
    if missing or EMULATED:
        return missing
    if not CUDA:
        return (
            "built without CUDA: nvcc 12 or later was not found when fastcam was built; install the CUDA toolkit and "
            f"build again: {REBUILD}"
        )
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    return _refusal(torch.cuda.current_device())


@functools.cache
def _refusal(index: int) -> str | None:
    with torch.cuda.device(index):
        said = library.cuda.refusal()
        name, (major, minor) = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    if not said:
        return None
    return (
        f"the CUDA kernels of this build do not run on {name}: {said}; build again: "
        f"SKBUILD_CMAKE_DEFINE=FASTCAM_CUDA_ARCHITECTURES={major}{minor} {REBUILD}"
    )


def build_info() -> dict[str, Any]:
    """What was built and what was chosen: {"isa", "openmp", "cuda", "compiler"}.

    Returns:
        isa is "plain", "avx2" or "avx512", or "" where the library is missing.
    """
    if missing:
        return {"isa": "", "openmp": False, "cuda": False, "compiler": ""}
    return dict(library.build_info())


@contextlib.contextmanager
def use_isa(isa: str) -> Iterator[None]:
    """Run the CPU kernels of one instruction set; the environment's FASTCAM_ISA does so for a whole process.

    Args:
        isa: "plain", "avx2" or "avx512".

    Raises:
        ValueError: This build or this CPU does not have it.
    """
    before = build_info()["isa"]
    _set_isa(isa)
    try:
        yield
    finally:
        library.use_isa(before)


def _set_isa(isa: str) -> None:
    if missing or not library.use_isa(isa):
        raise ValueError(f"instruction set {isa!r} is not in this build or not on this CPU: {build_info()}")


if os.environ.get("FASTCAM_ISA"):
    _set_isa(os.environ["FASTCAM_ISA"])
