"""ONNX Runtime: the exported network translated by `torch.onnx`."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor
from torch.export import ExportedProgram


class OnnxEngine:
    """A network in ONNX Runtime, on torch's number of threads.

    Args:
        program: images (n, C, H, W) to logits, n left open.
    """

    def __init__(self, program: ExportedProgram) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what fails is raised, and said there
        # Threads that wait by spinning would take the cores from torch and from fastcam's kernels between forwards.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        with tempfile.TemporaryDirectory(prefix="fastcam-") as folder:
            path = Path(folder) / "network.onnx"
            with _quiet():
                exported = torch.onnx.export(program, dynamo=True, verbose=False)
                assert exported is not None
                exported.save(str(path), external_data=True)  # one file would end at 2 GB
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

    def __call__(self, images: Tensor) -> Tensor:
        """The logits (n, classes) of images (n, C, H, W)."""
        return torch.from_numpy(self.session.run(None, {self.input: images.contiguous().numpy()})[0])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of its own parts."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
