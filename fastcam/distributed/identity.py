"""Who computed what: a hash of the weights, and the machine."""

from __future__ import annotations

import hashlib
import platform
from typing import Any

import torch
from torch import Tensor, nn


def digest(model: nn.Module) -> str:
    """A hash of a model's parameters and buffers by name, so that other weights are never taken for the same.

    Args:
        model: on any device.
    """
    found = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, Tensor):
            found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
            data = tensor.detach().cpu().contiguous().flatten()
            found.update(data.view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]


def machine(device: torch.device) -> dict[str, Any]:
    """Where a worker runs, as plain data.

    Args:
        device: of its model.
    """
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "node": platform.node(),
        "platform": platform.platform(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "device": gpu or str(device),
    }
