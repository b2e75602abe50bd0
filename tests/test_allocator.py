"""malloc keeps freed memory where a program asks for it, and only there."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch, fastcam

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.empty(16 << 20).fill_(1.0)  # 64 MB: more than malloc ever keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

stock = faults()
done = fastcam.keep_freed_memory()
faults()
print(done, stock, faults())
"""
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is not glibc's")


def run(**environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    clean.pop("GLIBC_TUNABLES", None)
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, env=clean | environment
    )
    kept, before, after = done.stdout.split()
    return kept == "True", int(before), int(after)


@glibc
def test_freed_memory_is_used_again():
    kept, before, after = run()
    assert kept
    assert after < before / 10


@glibc
def test_the_environments_own_choice_is_left_alone():
    kept, before, after = run(MALLOC_MMAP_THRESHOLD_="65536")
    assert not kept
    assert after > before / 2
