"""Masked forwards outside torch: the same maps, the weights as they are now, torch where nothing else can."""

from __future__ import annotations

import copy
import gc
import importlib.util
import warnings
import weakref

import pytest
import torch
from torch import nn

from fastcam import CAM, engines
from fastcam.metrics import Evaluation
from fastcam.runtimes import RUNTIMES, require
from tests import networks
from tests.small import images, network

OTHERS = [name for name in RUNTIMES if name != "torch"]
NEAR = 1e-4  # of a map in [0, 1]: other orders of summation, then a softmax over channels


@pytest.fixture(params=OTHERS)
def runtime(request):
    for package in RUNTIMES[request.param].packages:
        pytest.importorskip(package)
    return request.param


@pytest.mark.parametrize("method", ["scorecam", "sscam", "iscam"])
@pytest.mark.parametrize("name", ["linear", "vgg", "residual", "swin"])
def test_maps_are_torchs(runtime, method, name, one_thread):
    toy = networks.shared(name)
    options = {"samples": 3} if method != "scorecam" else {}
    expected = CAM(toy.module, method, toy.layer, **options)(networks.images())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no falling back
        maps = CAM(toy.module, method, toy.layer, runtime=runtime, **options)(networks.images())
    assert (maps - expected).abs().max() < NEAR


def test_curves_are_torchs(runtime):
    net, x = network(), images()
    metrics = ["insertion", "deletion", "road"]
    curves = [
        Evaluation({"gradcam": CAM(net, "gradcam", runtime=one)}, metrics, options={"steps": 9}).update(x)["gradcam"]
        for one in ("torch", runtime)
    ]
    for name in metrics:
        assert torch.allclose(curves[0][name], curves[1][name], atol=1e-5)


def test_the_forwards_run_there_and_are_counted(runtime, monkeypatch):
    net, x = network(), images(1)
    cam = CAM(net, "scorecam", runtime=runtime)
    cam(x)
    (engine,) = net_engines(cam).values()
    seen = []
    monkeypatch.setattr(engine, "run", wrapped(engine.run, seen))
    cost = cam.explain(x).cost
    assert sum(seen) > 1
    # One more in torch, for the proof, and the capture.
    assert cost.forwards == sum(seen) - 1 + 2


def net_engines(cam):
    return cam.network.facts.engines


def wrapped(call, seen):
    def counted(rows):
        seen.append(len(rows))
        return call(rows)

    return counted


def test_changed_weights_are_seen(runtime):
    net, x = network(), images(1)
    cam = CAM(net, "scorecam", runtime=runtime)
    before = cam(x)
    with torch.no_grad():
        net[3].weight.mul_(-1.0)  # counted by torch
    assert (cam(x) - CAM(net, "scorecam")(x)).abs().max() < NEAR
    net[3].weight.data = torch.roll(net[3].weight.data, 1, 0)
    net[0][0].weight.data.mul_(torch.linspace(-2, 2, 8)[:, None, None, None])  # behind torch's back
    after = cam(x)
    assert (after - CAM(net, "scorecam")(x)).abs().max() < NEAR
    assert (after - before).abs().max() > 0.01
    assert len(net_engines(cam)) == 1


def test_the_model_is_left_alone_and_let_go(runtime):
    net = network().train()
    state = copy.deepcopy(net.state_dict())
    CAM(net, "scorecam", runtime=runtime)(images(1))
    assert all(module.training for module in net.modules())
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    gone = weakref.ref(net)
    del net
    gc.collect()
    assert gone() is None


def test_scores_of_maps_of_logits(runtime):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    target = lambda logits: logits[:, 1].mean((-2, -1))  # noqa: E731 - as for segmentation
    expected = CAM(net, "scorecam", "1")(images(), target=target)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maps = CAM(net, "scorecam", "1", runtime=runtime)(images(), target=target)
    assert (maps - expected).abs().max() < NEAR


class Choosy(nn.Module):
    """Looks at its input to decide what to do, which no exporter can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x):
        return self.net(x if float(x.sum()) > -1e9 else -x)


def test_what_cannot_be_exported_runs_in_torch_after_one_warning(runtime):
    net, x = Choosy(), images(1)
    cam = CAM(net, "scorecam", "net.0", runtime=runtime)
    with pytest.warns(UserWarning, match=f"Choosy cannot run in {runtime}") as record:
        maps = cam(x)
    assert len(record) == 1
    assert (maps - CAM(net, "scorecam", "net.0")(x)).abs().max() < NEAR
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (cam(x) - maps).abs().max() < NEAR


def test_a_network_that_holds_its_batch_for_constant_runs_in_torch(runtime):
    toy = networks.shared("vit")  # expands its class token by len(x), a number to torch.export
    with pytest.warns(UserWarning, match=f"in {runtime}.*run in torch"):
        maps = CAM(toy.module, "scorecam", toy.layer, runtime=runtime)(networks.images())
    assert (maps - CAM(toy.module, "scorecam", toy.layer)(networks.images())).abs().max() < NEAR


def test_an_engine_that_computes_something_else_is_not_used(monkeypatch):
    net, x = network(), images(1)
    monkeypatch.setattr(engines, "build", lambda *_: lambda rows: net(rows) + 1.0)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    with pytest.warns(UserWarning, match="gives other logits in openvino"):
        maps = CAM(net, "scorecam", runtime="openvino")(x)
    assert (maps - CAM(net, "scorecam")(x)).abs().max() < NEAR


def test_bfloat16_in_openvino():
    pytest.importorskip("openvino")
    net, x = network(), images(1)
    expected = CAM(net, "scorecam")(x)
    maps = CAM(net, "scorecam", runtime="openvino", precision="bfloat16")(x)
    assert torch.corrcoef(torch.stack([maps.flatten(), expected.flatten()]))[0, 1] > 0.99


def test_bad_requests_say_what_to_do(monkeypatch):
    net, x = network(), images(1)
    with pytest.raises(ValueError, match="'torch', 'onnxruntime', 'openvino', got 'tensorrt'"):
        CAM(net, runtime="tensorrt")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"needs onnxruntime: pip install 'fastcam\[onnx\]'"):
        CAM(net, runtime="onnxruntime")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    with pytest.raises(ValueError, match="not bfloat16; bfloat16 is to be had with runtime='torch' or 'openvino'"):
        CAM(net, runtime="onnxruntime", precision="bfloat16")
    with pytest.raises(ValueError, match="a compiler of its own"):
        CAM(net, runtime="openvino", compile=True)
    with pytest.raises(ValueError, match="takes float32 models and images, got float64"):
        CAM(copy.deepcopy(net).double(), "scorecam", runtime="openvino")(x.double())
    with pytest.raises(ValueError, match="takes images alone"):
        CAM(Two(), "scorecam", "net.0", runtime="openvino")(x, torch.ones(1, 5))
    require("torch", "bfloat16", compile=True)


class Two(nn.Module):
    """A network with a second input."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x, shift):
        return self.net(x) + shift
