"""OpenVINO: the exported network in float32, bfloat16 or float16."""

from __future__ import annotations

import openvino
import torch
from torch import Tensor
from torch.export import ExportedProgram

HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


class OpenVinoEngine:
    """A network in OpenVINO, on torch's number of threads.

    Args:
        program: images (n, C, H, W) to logits, n left open.
        size: (C, H, W)
        precision: "float32", "bfloat16" or "float16".
    """

    def __init__(self, program: ExportedProgram, size: tuple[int, ...], precision: str) -> None:
        graph = openvino.convert_model(program)
        graph.reshape({0: openvino.PartialShape([-1, *size])})
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",  # all threads on one request
        }
        self.request = openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()

    def __call__(self, images: Tensor) -> Tensor:
        """The logits (n, classes) of images (n, C, H, W)."""
        given = openvino.Tensor(images.contiguous().numpy(), shared_memory=True)
        return torch.from_numpy(self.request.infer({0: given}, share_outputs=False)[0])
