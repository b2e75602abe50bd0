"""The engines by name, what each needs, and how one is made of a network."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


class Engine(Protocol):
    """A compiled copy of a network."""

    def __call__(self, images: Tensor) -> Tensor:
        """The logits (n, classes) float32 of contiguous images (n, C, H, W) float32 on the CPU."""
        ...


@dataclass(frozen=True)
class Runtime:
    """What is known of a runtime before it is used.

    Attributes:
        name: its id.
        packages: to import.
        extra: of fastcam that installs them.
        precisions: in which it can run a float32 network.
    """

    name: str
    packages: tuple[str, ...]
    extra: str
    precisions: tuple[str, ...]


RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime("torch", (), "", ("float32", "bfloat16", "float16")),
        Runtime("onnxruntime", ("onnxruntime", "onnxscript"), "onnx", ("float32",)),
        Runtime("openvino", ("openvino",), "openvino", ("float32", "bfloat16", "float16")),
    )
}


def lacking(name: str) -> list[str]:
    """The packages of a runtime that are not installed."""
    return [package for package in RUNTIMES[name].packages if importlib.util.find_spec(package) is None]


def require(name: str, precision: str, compile: bool | str = False) -> None:  # noqa: A002 - torch's own word
    """Proves that a runtime exists, is installed and knows a precision.

    Raises:
        ValueError: it does not; the message says which do, or what to install.
    """
    if name not in RUNTIMES:
        raise ValueError(f"runtime must be one of {', '.join(map(repr, RUNTIMES))}, got {name!r}")
    runtime = RUNTIMES[name]
    if precision not in runtime.precisions:
        fitting = [one.name for one in RUNTIMES.values() if precision in one.precisions]
        raise ValueError(
            f"runtime {name!r} runs {' and '.join(runtime.precisions)}, not {precision}; {precision} is to be had "
            f"with runtime={' or '.join(map(repr, fitting))}"
        )
    if compile and name != "torch":
        raise ValueError(f"compile={compile!r} compiles torch's forwards; runtime {name!r} has a compiler of its own")
    if compile not in (True, False, "graphs"):
        raise ValueError(f"compile must be True, False or 'graphs', got {compile!r}")
    for package in lacking(name):
        raise ValueError(f"runtime {name!r} needs {package}: pip install 'fastcam[{runtime.extra}]'")


def refuse(name: str, images: Tensor, extra_inputs: bool) -> None:
    """Proves that a runtime can take these inputs.

    Raises:
        ValueError: it cannot.
    """
    if images.device.type != "cpu":
        raise ValueError(f"runtime {name!r} runs on the CPU, the images are on {images.device}; use runtime='torch'")
    if images.dtype != torch.float32:
        dtype = str(images.dtype).removeprefix("torch.")
        raise ValueError(f"runtime {name!r} takes float32 models and images, got {dtype}; use runtime='torch'")
    if extra_inputs:
        raise ValueError(f"runtime {name!r} takes images alone; use runtime='torch' for a model with further inputs")


def build(name: str, network: nn.Module, images: Tensor, precision: str) -> Engine:
    """An engine for a network, any number of images at once.

    Args:
        name: of the runtime.
        network: images to logits, in evaluation mode.
        images: (n, C, H, W) as it takes them, n at least 2.
        precision: in which to run.

    Raises:
        Exception: whatever the exporter or the runtime says of a network that it cannot take.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        batch = ({0: torch.export.Dim.AUTO},)
        program = torch.export.export(network, (images,), dynamic_shapes=batch, strict=False)
        if name == "onnxruntime":
            from .onnx import OnnxEngine

            return OnnxEngine(program)
        from .openvino import OpenVinoEngine

        return OpenVinoEngine(program, tuple(images.shape[1:]), precision)
