"""Compiles what the Triton twins launch for GPUs that are not there; `tests.test_triton_compile` runs it by itself.

Not under TRITON_INTERPRET, where a kernel is Python. A launch then compiles for a GPU instead of running: its
signature is the one that the op's real call has. One JSON line a compiled kernel; the argument is a scratch folder.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import torch
import triton.runtime.jit
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from bench.test_bench_ops import real
from fastcam import ops
from fastcam.ops import OPS, dispatch
from fastcam.ops.mask_cells import KERNELS
from fastcam.ops.mask_images import NORMALIZE
from fastcam.ops.resize_normalize import CLIPS
from tests.case import normal
from tests.cases import CASES

ARCHITECTURES = (80, 90, 120)
TARGETS = 8  # the widest tile of weighted_sum
VARIANTS = {
    "mask_images": [{"normalize": value} for value in NORMALIZE[1:]],
    "mask_cells": [{"kernel": value} for value in KERNELS[1:]],
    "resize_normalize": [{"clip": value} for value in CLIPS[1:]],
    "energy_in_boxes": [{"edges": "inclusive"}],
    "weighted_sum": [{"weights": normal((1, TARGETS, 1280), torch.float32, "cpu")}],
}


class Absent:
    """A driver of GPUs by their architecture, which Triton asks what to compile for."""

    architecture = 0

    def get_current_device(self):
        return self.architecture

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return GPUTarget("cuda", self.architecture, 32)


def in_form(arguments, dtype, layout):
    """The same call in another dtype and layout."""

    def cast(value):
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        return value.to(dtype).contiguous(memory_format=layout if value.dim() == 4 else torch.contiguous_format)

    return {name: cast(value) for name, value in arguments.items()}


def calls(op):
    """At the sizes of a network and a picture, in each dtype, layout and option; and at sizes that divide nothing."""
    plain, last = torch.contiguous_format, torch.channels_last
    for dtype, layout in ((torch.float32, plain), (torch.bfloat16, last)):
        yield in_form(real(op, "cpu"), dtype, layout)
    for options in VARIANTS.get(op, []):
        yield real(op, "cpu") | options
    yield CASES[op]["odd" if "odd" in CASES[op] else "plain"](torch.float16)


def resources(cubin, folder):
    """What the assembler gave to a kernel: registers of a thread, bytes of a thread's stack, where it spills to."""
    file = Path(folder) / "kernel.cubin"
    file.write_bytes(cubin)
    command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: int(re.search(rf"{key}:(\d+)", said)[1]) for name, key in (("registers", "REG"), ("stack", "STACK"))}


def main(folder):
    gpu, found = Absent(), []
    driver.set_active(gpu)

    def compiled(kernel, grid):
        return lambda *args, **options: found.append((kernel, kernel.run(*args, grid=grid, warmup=True, **options)))

    triton.runtime.jit.KernelInterface.__getitem__ = compiled
    dispatch.IMITATED["triton"] = True  # or a call with tensors on the CPU would not reach its twin
    for op, architecture in itertools.product([op for op in OPS if "triton" in OPS[op].twins], ARCHITECTURES):
        gpu.architecture = architecture
        for arguments in calls(op):
            found.clear()
            with ops.use("triton"):
                OPS[op](**arguments)
            for kernel, result in found:
                made = {"op": op, "file": kernel.fn.__module__, "architecture": architecture, "ptx": result.asm["ptx"]}
                print(json.dumps(made | resources(result.asm["cubin"], folder)))


if __name__ == "__main__":
    main(*sys.argv[1:])
