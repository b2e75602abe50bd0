"""Where a measurement was made: versions, processor, threads, allocator."""

from __future__ import annotations

import datetime
import functools
import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from fastcam.allocator import chosen, keep_freed_memory

PEERS = {"pytorch-grad-cam": "grad-cam", "torchcam": "torchcam", "captum": "captum"}
METRIC_PEERS = {  # and the package of each
    "OpenCV contours": "opencv-python-headless",
    "OpenCV components": "opencv-python-headless",
    "SciPy": "scipy",
    "cc3d": "connected-components-3d",
    "RISE": "",
    "torchcam": "torchcam",
    "pytorch-grad-cam": "grad-cam",
    "Quantus": "quantus",
}


@functools.cache
def package(name: str) -> str:
    """The installed version of a distribution, or "" where it is missing."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def commit() -> str:
    """The commit measured, with a + where files differ from it, or "" outside a repository."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        try:
            done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--short", "HEAD")
    return f"{head}+" if head and git("status", "--porcelain", "--", ":/fastcam", ":/csrc") else head


def processor() -> str:
    """The CPU's model name and its widest vectors, which its name may hide."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    lines = (line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in lines}
    return f"{fields.get('model name', platform.machine())} ({torch.backends.cpu.get_cpu_capability()})"


def gpu(device: str) -> str:
    """The GPU's name, its driver and the CUDA that torch was built with."""
    name, driver = torch.cuda.get_device_name(device), Path("/proc/driver/nvidia/version")
    version = re.search(r"\d+\.\d+(\.\d+)?", driver.read_text()) if driver.exists() else None
    return f"{name} (driver {version[0] if version else 'unknown'}, CUDA {torch.version.cuda})"


@functools.cache
def keep_memory() -> bool:
    """Lets malloc keep freed memory, for all contenders alike: without it page faults blur what is compared."""
    return keep_freed_memory()


def allocator() -> str:
    """ "kept", "stock", or the settings in the environment that change how malloc keeps freed memory."""
    kept = keep_memory.cache_info().currsize and keep_memory()
    return chosen() or ("kept" if kept else "stock")


@functools.cache
def describe(device: str) -> dict[str, str]:
    """What every row records of the machine."""
    cuda = torch.device(device).type == "cuda"
    return {
        "commit": commit(),
        "fastcam": package("fastcam"),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "processor": gpu(device) if cuda else processor(),
        "threads": str(torch.get_num_threads()),
        "malloc": allocator(),
        "load": f"{os.getloadavg()[0]:.1f}",
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }
