"""Folded networks: the same logits with fewer passes, never another network, and nothing of the user's changed."""

from __future__ import annotations

import copy
import threading

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional

from fastcam.model import folded as folding
from fastcam.model.folded import copied_bytes, fold
from fastcam.model.onednn import Convolution
from tests import networks
from tests.small import network


def rows(size=32, count=3):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(3))


def tried(model, size=32, dtype=None):
    """The model's logits, and the folded model."""
    model = networks.settle(model, 5)
    x = rows(size)
    with torch.inference_mode():
        expected, found = model(x), fold(model, x[:1], dtype)
        return expected, None if found is None else found(x), found


def kinds(module):
    return [m.unary[0] for m in module.modules() if isinstance(m, Convolution)]


ZOO = {
    "resnet18": lambda: torchvision.models.resnet18(num_classes=7),
    "mobilenet_v3_small": lambda: torchvision.models.mobilenet_v3_small(num_classes=7),
    "densenet121": lambda: torchvision.models.densenet121(num_classes=7),
    "googlenet": lambda: torchvision.models.googlenet(num_classes=7, aux_logits=False, init_weights=False),
    "shufflenet": lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=7),
    "tf_efficientnet_lite0": lambda: timm.create_model("tf_efficientnet_lite0", num_classes=7),
    "fastvit_t8": lambda: timm.create_model("fastvit_t8", num_classes=7),
}


@pytest.mark.parametrize("name", ZOO)
def test_logits_are_the_networks(name, one_thread):
    expected, found, folded = tried(ZOO[name](), 64)
    assert folded is not None
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert "none" in kinds(folded) or name == "googlenet"  # an addition, or a convolution without an activation
    assert len(kinds(folded)) > 10
    if name != "densenet121":  # whose norms stand before the convolutions too
        assert sum(isinstance(m, nn.BatchNorm2d) for m in folded.modules()) == (24 if name == "fastvit_t8" else 0)


ACTIVATIONS = {
    "relu": nn.ReLU(),
    "hardtanh": nn.ReLU6(),
    "swish": nn.SiLU(inplace=True),
    "hardswish": nn.Hardswish(),
    "leaky_relu": nn.LeakyReLU(0.2),
    "gelu": nn.GELU(approximate="tanh"),
}


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("conv", ["plain", "depthwise", "dilated", "same_odd", "no_bias"])
def test_activations_and_geometries(kind, conv):
    first = {
        "plain": nn.Conv2d(3, 6, 3, 2, 1),
        "depthwise": nn.Conv2d(3, 6, 3, padding=(1, 2), groups=3),
        "dilated": nn.Conv2d(3, 6, (3, 5), dilation=2),
        "same_odd": timm.layers.create_conv2d(3, 6, 3, stride=2, padding="same"),
        "no_bias": nn.Conv2d(3, 6, 1, bias=False),
    }[conv]
    norm = nn.BatchNorm2d(6) if conv != "no_bias" else nn.Identity()
    net = nn.Sequential(first, norm, copy.deepcopy(ACTIVATIONS[kind]), nn.Dropout(), nn.Flatten())
    for size in (32, 31):
        expected, found, folded = tried(net, size)
        assert kinds(folded) == [kind]
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


class Block(nn.Module):
    """What can stand around an addition."""

    def __init__(self, form):
        super().__init__()
        self.form, self.one, self.two = form, nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        y = self.one(x)
        forms = {
            "relu": lambda: functional.relu(y + x),
            "inplace": lambda: y.add_(x).relu_(),
            "both": lambda: torch.add(y, self.two(x)),
            "used_twice": lambda: (y + x) * y,
            "broadcast": lambda: y + x.mean((2, 3), keepdim=True),
            "scaled": lambda: torch.add(y, x, alpha=2),
            "number": lambda: y + 1.0,
            "silu": lambda: functional.silu(y + x),
            "itself": lambda: y + y,
            "mutated": lambda: (self.two(functional.relu_(y)), y)[0] + y,
        }
        return forms[self.form]().flatten(1)


FUSED = {"relu": ["relu"], "inplace": None, "both": ["none", "none"], "silu": ["none"], "mutated": ["none", "none"]}
APART = ("used_twice", "broadcast", "scaled", "number", "itself")


@pytest.mark.parametrize("form", [*FUSED, *APART])
def test_additions(form):
    expected, found, folded = tried(Block(form))
    wanted = FUSED.get(form)
    assert (folded and kinds(folded)) == wanted
    if folded is not None:
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_convolution_used_twice_is_copied_twice():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.norms = nn.ModuleList([nn.BatchNorm2d(3), nn.BatchNorm2d(3)])

        def forward(self, x):
            for norm in self.norms:
                x = norm(self.conv(x)).relu()
            return x.flatten(1)

    expected, found, folded = tried(Shared())
    assert kinds(folded) == ["relu", "relu"]
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_model_is_left_alone():
    net = networks.settle(ZOO["resnet18"](), 5)
    state, modules = copy.deepcopy(net.state_dict()), {n: id(m) for n, m in net.named_modules()}
    with torch.inference_mode():
        assert fold(net, rows()[:1]) is not None
    assert modules == {n: id(m) for n, m in net.named_modules()}
    assert all(torch.equal(v, state[k]) and not v.is_inference() for k, v in net.state_dict().items())
    assert copied_bytes(net) == sum(m.weight.numel() * 4 for m in net.modules() if isinstance(m, nn.Conv2d))


def test_other_threads_run_their_networks_while_one_is_traced():
    other, x, found = networks.settle(ZOO["resnet18"](), 5), rows(), []

    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, x):
            def run():
                with torch.no_grad():
                    found.append((other(rows()), self.net(rows())))

            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
            return self.net(x)

    slow = Slow().eval()
    with torch.inference_mode():
        assert fold(slow, x[:1]) is not None
        assert torch.allclose(found[0][0], other(x))
        assert torch.allclose(found[0][1], slow.net(x))


def test_without_onednn_norms_are_folded_still(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    expected, found, folded = tried(ZOO["resnet18"](), 64)
    assert not kinds(folded)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert folding.copied_bytes(folded) == folding.copied_bytes(ZOO["resnet18"]())
