"""Every method and every metric on a GPU beside the CPU, and what a GPU changes: streams, graphs, memory."""

from __future__ import annotations

import copy

import pytest
import torch

from fastcam import CAM, list_methods
from fastcam.metrics import Evaluation
from tests import networks
from tests.quick import quick
from tests.small import images, network

pytestmark = pytest.mark.cuda
NEAR = 1e-4  # of a map in [0, 1], both float32


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    """The device, computing in float32 throughout."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    return torch.device("cuda")


@pytest.mark.parametrize("name", ["linear", "norm_relu_pooled", "deep", "residual_branch", "swin", "vit"])
@pytest.mark.parametrize("method", list_methods())
def test_maps_are_the_cpus(method, name, gpu):
    toy, x = networks.shared(name), networks.images()
    there = copy.deepcopy(toy.module).to(gpu)

    def maps(model, x):
        try:
            return quick(model, method, toy.layer)(x, target=torch.tensor([1, 2])).cpu()
        except ValueError as error:  # a method that this network cannot serve
            return str(error)

    expected, found = maps(toy.module, x), maps(there, x.to(gpu))
    if isinstance(expected, str):
        assert found == expected
    else:
        assert (found - expected).abs().max() < NEAR


def test_metrics_are_the_cpus(gpu):
    net, x = network(), images(3)
    boxes = torch.tensor([[[2.0, 3, 20, 15]]] * 3)

    def values(model, device):
        evaluation = Evaluation({"gradcam": CAM(model, "gradcam"), "scorecam": CAM(model, "scorecam")}, "all")
        evaluation.update(x.to(device), target=torch.tensor([0, 1, 2], device=device), boxes=boxes.to(device))
        return evaluation.compute()

    expected, found = values(net, torch.device("cpu")), values(copy.deepcopy(net).to(gpu), gpu)
    for method, metrics in expected.items():
        for metric, value in metrics.items():
            assert float(found[method][metric]) == pytest.approx(float(value), abs=1e-3, nan_ok=True), metric


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_maps_correlate(precision, gpu):
    net, x = network().to(gpu), images(6).to(gpu)
    for method, least in (("gradcam", 0.999), ("scorecam", 0.99)):
        both = torch.stack([CAM(net, method, precision=p)(x).flatten() for p in (precision, "float32")])
        assert torch.corrcoef(both)[0, 1] > least


@pytest.mark.parametrize("options", [{}, {"batch_size": 5}, {"compile": "graphs", "batch_size": 9}])
def test_streams_and_graphs_give_the_same_maps_again_and_again(options, gpu):
    net, x = network().to(gpu), images(6).to(gpu)
    expected = CAM(network(), "scorecam")(images(6))
    cam = CAM(net, "scorecam", **options)
    for _ in range(4):
        assert (cam(x).cpu() - expected).abs().max() < NEAR


def test_memory_stays_within_the_budget_and_flat(gpu):
    net, x, allowed = network().to(gpu), images(4, (128, 128)).to(gpu), 8 << 20
    cam = CAM(net, "scorecam", max_memory=allowed)
    net(x[:1])
    cam(x)
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(20):
        cam(x)
    assert torch.cuda.memory_allocated() <= held
    assert torch.cuda.max_memory_allocated() <= held + 2 * allowed


def test_images_elsewhere_than_the_model_are_refused(gpu):
    with pytest.raises(ValueError, match="images are on cuda:0, the model is on cpu; move one of them"):
        CAM(network())(images().to(gpu))
    with pytest.raises(ValueError, match="runs on the CPU, the images are on cuda:0"):
        CAM(network().to(gpu), "scorecam", runtime="onnxruntime")(images().to(gpu))
