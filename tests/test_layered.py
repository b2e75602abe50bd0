"""Zoom-CAM and Poly-CAM against their loops; which layers they join by default, their cost, their masks."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from fastcam import CAM, TopK
from fastcam.methods.layered import polycam_masks
from tests import formulas, formulas_layered
from tests.networks import CLASSES, SIZE, images, shared

pytestmark = pytest.mark.usefixtures("one_thread")
NEAR = 1e-4  # of the largest value, float32 against float64; quotients of small local means lose digits
WHERE = {
    "linear": ["features"],
    "vgg": ["features.1", "features"],
    "deep": ["features.1", "features", "tail.1", "tail.5"],
    "residual": ["stem", "conv2"],
}


def seen(name: str, x: Tensor, c: int) -> list:
    net = copy.deepcopy(shared(name).module).double()
    return formulas_layered.see(net, WHERE[name], x, c)


@pytest.mark.parametrize("name", WHERE)
def test_zoomcam(name: str) -> None:
    x = images()
    raw = [[formulas_layered.zoomcam(seen(name, image, c), *SIZE) for c in range(CLASSES)] for image in x]
    raw = torch.tensor(raw, dtype=torch.float64)
    every = torch.arange(CLASSES).expand(2, -1)
    exp = CAM(shared(name).module, "zoomcam", WHERE[name]).explain(x, target=every)
    torch.testing.assert_close(exp.raw.double(), raw, rtol=0, atol=NEAR)
    torch.testing.assert_close(exp.maps.double(), formulas.finish(raw, SIZE, "never"), rtol=0, atol=3 * NEAR)
    assert exp.layer == WHERE[name]


@pytest.mark.parametrize(("variant", "score"), [("+-", "probability"), ("+", "logit"), ("-", "probability")])
@pytest.mark.parametrize("name", WHERE)
def test_polycam(name: str, variant: str, score: str) -> None:
    x, net = images(), copy.deepcopy(shared(name).module).double()
    raw = []
    for image in x:
        layers = [a for a, _ in seen(name, image, 0)]
        one = [formulas_layered.polycam(net, image, c, layers, variant, score == "probability") for c in range(3)]
        raw.append(one)
    raw = torch.tensor(raw, dtype=torch.float64)
    cam = CAM(shared(name).module, "polycam", WHERE[name], variant=variant, score=score)
    exp = cam.explain(x, target=torch.arange(3).expand(2, -1))
    for got, want in zip(exp.raw.double().flatten(0, 1), raw.flatten(0, 1), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=NEAR * float(want.abs().max()))
    torch.testing.assert_close(exp.maps.double(), formulas.finish(raw, SIZE), rtol=0, atol=10 * NEAR)


def test_the_toys_tell_variants_apart() -> None:
    maps = [
        CAM(shared("deep").module, "polycam", WHERE["deep"][first:], variant=variant)(
            images()
        )  # of the likeliest class
        for first in (0, 1)
        for variant in ("+-", "+", "-")
    ]
    for i, one in enumerate(maps):
        assert all((one - other).abs().max() > 0.005 for other in maps[:i])


def test_masks_are_scaled_by_numpys_percentiles() -> None:
    a = torch.randn(5, 9, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).relu()
    a[3], a[4] = 0.0, -1.5
    flat = a.flatten(1).numpy()
    low, high = (np.percentile(flat, percent, axis=1, keepdims=True) for percent in (0.1, 99.9))
    theirs = np.clip((flat - low) / np.maximum(high, 1e-12), 0, 1)
    torch.testing.assert_close(polycam_masks(a).flatten(1), torch.from_numpy(theirs))


def test_the_layers_of_a_toy() -> None:
    """The last map of each resolution, the default layer last; a layer that is named stands alone."""
    module = shared("deep").module
    for method in ("zoomcam", "polycam"):
        assert CAM(module, method).explain(images()).layer == ["features", "tail.5"]
        one = CAM(module, method, "features").explain(images())
        assert one.layer == ["features"]
        listed = CAM(module, method, ["features"]).explain(images())
        assert torch.equal(listed.raw, one.raw)


LAYERS = {
    "resnet18": ["relu", "layer1", "layer2", "layer3", "layer4"],
    "vgg16": ["features.3", "features.8", "features.15", "features.22", "features.29"],
    "densenet121": ["features.relu0", *(f"features.denseblock{i}" for i in (1, 2, 3)), "features"],
    "efficientnet_b0": ["features.1", "features.2", "features.3", "features.5", "features"],
    "vit_b_16": ["encoder.layers.encoder_layer_11.ln_1"],
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_layers_of_known_networks(name: str) -> None:
    """Of ResNets and VGGs they are those that Poly-CAM's authors name in their script."""
    models = pytest.importorskip("torchvision.models")
    network = getattr(models, name)(weights=None).eval()
    cam = CAM(network, "zoomcam")
    cam(torch.randn(1, 3, 64, 64) if name != "vit_b_16" else torch.randn(1, 3, 224, 224))
    assert cam.layer_names == LAYERS[name]


@pytest.mark.parametrize(("layer", "backwards"), [(["features", "tail.1", "tail.5"], 4), ("features", 4)])
def test_one_backward_for_all_layers(layer, backwards: int) -> None:
    cost = CAM(shared("deep").module, "zoomcam", layer).explain(images(), target=TopK(2)).cost
    assert (cost.forwards, cost.backwards) == (2, backwards)


def test_the_cost_is_forwards_of_distinct_masks() -> None:
    """Channels that are the same everywhere, dead ones too, are scored together."""
    module = copy.deepcopy(shared("linear").module)  # two of its twelve channels are dead
    cam = CAM(module, "polycam", "features")
    cam(images())
    calls = []
    module.features[0].register_forward_hook(lambda _m, inputs, _o: calls.append(len(inputs[0])))
    assert cam.explain(images(), target=TopK(3)).cost.forwards == sum(calls) == 2 + 2 * 2 * 11
    one = CAM(module, "polycam", "features", variant="+").explain(images())
    assert one.cost.forwards == 2 + 2 * 11


def test_zoomcam_keeps_the_graph() -> None:
    module = copy.deepcopy(shared("deep").module)
    cam = CAM(module, "zoomcam", WHERE["deep"])
    maps = cam(images(), target=1, differentiable=True)
    torch.testing.assert_close(maps.detach(), cam(images(), target=1), rtol=0, atol=1e-5)
    maps.square().sum().backward()
    assert module.features[0].weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="polycam has no differentiable form"):
        CAM(module, "polycam")(images(), differentiable=True)
