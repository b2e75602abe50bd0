"""Every method on a network so small that the library's own work shows beside the forward."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.entries import ATTENTION, LEARNED
from fastcam import CAM, list_methods
from fastcam.methods.registry import METHODS


@pytest.fixture
def network(device):
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)).eval().to(device)


@pytest.fixture
def images(device):
    return torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(1)).to(device)


def time(benchmark, call, what, who, cost, images):
    def done():
        call()
        if images.is_cuda:
            torch.cuda.synchronize()

    benchmark(done)
    benchmark.extra_info.update(what=what, who=who, floor=cost, shape="x".join(map(str, images.shape)), dtype="float32")


def test_forward(benchmark, network, images):
    with torch.inference_mode():
        time(benchmark, lambda: network(images), "forward", "floor", "1 F", images)


@pytest.mark.parametrize("name", [name for name in list_methods() if name not in ATTENTION | LEARNED])
def test_method(benchmark, name, network, images):
    cam = CAM(network, name)
    first = cam(images)
    assert (first - cam(images)).abs().max() < 1e-4  # chunks of another size, found on the way, round otherwise
    assert 0 <= float(first.min()) <= float(first.max()) <= 1
    time(benchmark, lambda: cam(images), name, "fastcam", METHODS[name].cost, images)
