"""The public object on unusual models, inputs and targets."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fastcam
from fastcam import CAM, TopK
from fastcam.methods.registry import METHODS
from tests.small import images, network


@dataclass
class ModelOutput:
    """As Hugging Face models return."""

    loss: None
    logits: Tensor


class Wrapped(nn.Module):
    """A network whose output is dressed up."""

    def __init__(self, dress):
        super().__init__()
        self.net, self.dress = network(), dress

    def forward(self, x):
        return self.dress(self.net(x))


@pytest.mark.parametrize("method", ["gradcam", "scorecam", "ablationcam"])
@pytest.mark.parametrize(
    ("dress", "output"),
    [
        (lambda y: (y, y * 0), None),
        (lambda y: {"loss": None, "logits": y}, None),
        (lambda y: {"aux": y * 0, "out": y}, None),
        (lambda y: ModelOutput(None, y), None),
        (lambda y: (y * 0, y), 1),
        (lambda y: {"other": y * 0, "scores": y}, "scores"),
        (lambda y: {"deep": [y * 0, y]}, lambda out: out["deep"][1]),
    ],
)
def test_outputs_of_any_shape(method, dress, output):
    expected = CAM(network(), method).explain(images())
    found = CAM(Wrapped(dress), method, output=output).explain(images())
    assert torch.allclose(found.raw, expected.raw, rtol=1e-4, atol=1e-6)
    assert torch.equal(found.logits, expected.logits)


@pytest.mark.parametrize("method", ["gradcam", "smoothgradcampp", "inputxgradient"])
def test_a_selector_may_compute(method):
    """What a function makes of the output is part of the graph."""
    net, more = network(), lambda logits: torch.cat([logits, logits.square()], 1)
    classes = net(images()).shape[1]
    found = CAM(net, method, output=more).explain(images(), target=classes + 1)
    expected = CAM(net, method).explain(images(), target=lambda logits: logits[:, 1].square())
    torch.testing.assert_close(found.maps, expected.maps, rtol=1e-4, atol=1e-5)


class TwoInputs(nn.Module):
    """Image features scaled by a second input."""

    def __init__(self):
        super().__init__()
        self.net = network()[0]
        self.gate = nn.Linear(4, 12)
        self.last = nn.Conv2d(12, 12, 3)
        self.head = nn.Linear(12, 5)

    def forward(self, x, question, scale=1.0):
        y = self.last(self.net(x) * self.gate(question)[:, :, None, None] * scale).relu()
        return self.head(y.mean((-2, -1)))


@pytest.mark.parametrize("method", ["gradcam", "scorecam", "ablationcam", "reciprocam", "liftcam", "integratedgradcam"])
def test_further_inputs_follow_their_image(method):
    torch.manual_seed(0)
    model, x, question = TwoInputs().eval(), images(3), 10 * torch.randn(3, 4)
    cam = CAM(model, method, "net")
    together = cam.explain(x, question, scale=1.5, target=2)
    for b in range(3):
        alone = cam.explain(x[b : b + 1], question[b : b + 1], scale=1.5, target=2)
        assert torch.allclose(together.raw[b], alone.raw[0], rtol=1e-3, atol=1e-6)
    assert not torch.allclose(together.raw, cam.explain(x, question.flip(0), scale=1.5, target=2).raw, rtol=1e-3)


def test_inputs_that_are_no_tensors_are_not_remembered_by_the_cut():
    torch.manual_seed(0)
    x, question = images(1), 10 * torch.randn(1, 4)
    model = TwoInputs().eval()
    for scale in (1.5, 4.0, 1.5):
        found = CAM(model, "reciprocam", "net", score="logit").explain(x, question, scale=scale, target=2)
        fresh = TwoInputs().eval()
        fresh.load_state_dict(model.state_dict())
        expected = CAM(fresh, "reciprocam", "net", score="logit").explain(x, question, scale=scale, target=2)
        assert torch.allclose(found.raw, expected.raw, rtol=1e-4, atol=1e-6)


def test_classes_as_an_array():
    model, x = network(), images()
    expected = CAM(model, "gradcam", "0.1")(x, target=[1, 2])
    assert torch.equal(CAM(model, "gradcam", "0.1")(x, target=np.array([1, 2])), expected)


class Segmenter(nn.Module):
    """Per-pixel classes in a dict, as torchvision gives them."""

    def __init__(self):
        super().__init__()
        self.backbone = network()[0]
        self.classifier = nn.Conv2d(12, 4, 1)

    def forward(self, x):
        small = self.classifier(self.backbone(x))
        return {"out": nn.functional.interpolate(small, x.shape[-2:], mode="bilinear")}


def test_segmentation_through_a_callable():
    torch.manual_seed(0)
    model, x = Segmenter().eval(), images()
    region = torch.zeros(24, 32)
    region[4:12, 8:20] = 1

    def score(logits):
        return (logits[:, 2] * region).sum((-2, -1))

    for method in ("gradcam", "scorecam", "ablationcam", "hirescam"):
        explanation = CAM(model, method, "backbone").explain(x, target=score)
        assert explanation.target is None
        assert explanation.maps.shape == (2, 24, 32)
    kept = CAM(model, "gradcam", "backbone").explain(x, target=score)
    weights = model.classifier.weight[2].flatten()
    assert torch.allclose(kept.raw[0] / kept.raw[0].norm(), _direction(model, x, weights)[0], rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="callable target"):
        CAM(model, "gradcam", "backbone")(x, target=2)


def _direction(model, x, weights):
    """A linear head makes Grad-CAM the weighted sum of its row, up to a scale."""
    with torch.no_grad():
        raw = torch.einsum("bchw,c->bhw", model.backbone(x), weights)
    return raw / raw.flatten(1).norm(dim=1)[:, None, None]


class Detector(nn.Module):
    """Returns one dict of boxes for each image, as torchvision's detectors do."""

    def __init__(self):
        super().__init__()
        self.net = network(6)

    def forward(self, x):
        return [{"scores": row[:2].sigmoid(), "boxes": row[2:].reshape(1, 4)} for row in self.net(x)]


@pytest.mark.parametrize("method", ["gradcam", "scorecam", "eigencam"])
def test_detections_through_a_callable(method):
    model, x = Detector().eval(), images()
    maps = CAM(model, method, "net.0")(x, target=lambda found: torch.stack([one["scores"].max() for one in found]))
    assert maps.shape == (2, 24, 32)
    assert float(maps.amax()) == pytest.approx(1.0)


@pytest.mark.parametrize("fusion", ["mean", "max"])
@pytest.mark.parametrize("method", ["gradcam", "layercam", "scorecam", "smoothgradcampp"])
def test_several_layers_fuse_their_maps(method, fusion):
    model, x = network(), images()
    options = {"samples": 2} if method == "smoothgradcampp" else {}
    both = CAM(model, method, ["0.1", model[0]], fusion=fusion, **options).explain(x, target=1)
    each = [CAM(model, method, layer, **options)(x, target=1) for layer in ("0.1", "0")]
    fused = torch.stack(each).mean(0) if fusion == "mean" else torch.stack(each).amax(0)
    low, high = fused.amin((1, 2), keepdim=True), fused.amax((1, 2), keepdim=True)
    assert torch.allclose(both.maps, (fused - low) / (high - low), atol=1e-4)
    assert both.layer == ["0.1", "0"]
    assert [tuple(raw.shape) for raw in both.raw] == [(2, 11, 15), (2, 5, 7)]


@pytest.mark.parametrize("method", ["gradcam", "gradcampp", "xgradcam", "layercam", "hirescam", "cam", "eigencam"])
def test_differentiable_maps_reach_the_weights(method):
    """The graph's slope against the change that a small step in the first convolution makes."""
    model, x = network().double(), images(1).double()
    cam, weight = CAM(model, method), model[0][0].weight
    best = int(cam(x, target=[[0, 1, 2, 3, 4]]).flatten(2).mean(2).argmax())
    ramp = torch.linspace(0, 1, 24 * 32, dtype=torch.float64).view(1, 24, 32)

    def value(differentiable):
        return (cam(x, target=best, differentiable=differentiable) * ramp).sum()

    value(True).backward()
    gradient = weight.grad.clone()
    assert float(gradient.abs().sum()) > 0
    step, values = 1e-4 * gradient / gradient.norm(), []
    with torch.no_grad():
        for sign in (1, -2):
            weight += sign * step
            values.append(float(value(False)))
    assert (values[0] - values[1]) / 2 == pytest.approx(float((gradient * step).sum()), rel=0.01)


def test_no_differentiable_form():
    with pytest.raises(ValueError, match="scorecam has no differentiable form"):
        CAM(network(), "scorecam")(images(), differentiable=True)


def test_compiled_models_give_the_same_maps():
    model, x = network(), images()
    expected = {m: CAM(model, m)(x) for m in ("gradcam", "scorecam", "reciprocam")}
    compiled = torch.compile(network(), backend="eager")
    in_place = network()
    in_place.compile(backend="eager")
    for other in (compiled, in_place):
        other(x)
        for method, maps in expected.items():
            assert torch.allclose(CAM(other, method)(x), maps, atol=1e-5)


def test_facts_do_not_keep_a_model_alive():
    model = network()
    for method in ("gradcam", "scorecam", "reciprocam"):
        CAM(model, method, "0.1")(images())
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_explain_in_one_call():
    model, x = network(), images()
    explanation = fastcam.explain(model, x, "xgradcam", target=TopK(2), eps=1e-6)
    assert explanation.maps.shape == (2, 2, 24, 32)
    assert torch.equal(explanation.target, explanation.logits.topk(2).indices)
    assert explanation.method == "xgradcam"


def test_names_of_methods():
    assert fastcam.list_methods("grad*") == ["gradcam", "gradcamelementwise", "gradcampp"]
    assert set(fastcam.list_methods()) == set(METHODS)
    assert CAM(network(), "Grad-CAM++").method.name == "gradcampp"


def test_masks_are_scored_once():
    """Dead channels share one forward, channels of one shape another."""
    model, x = network(), images(1)
    with torch.no_grad():
        model[0][2].weight[3:6] = 0
        model[0][2].bias[3:6] = -1  # three dead channels
        model[0][2].weight[7] = 2 * model[0][2].weight[6]
        model[0][2].bias[7] = 2 * model[0][2].bias[6]  # and one that is twice another
    rows = []
    handle = model.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    CAM(model, "scorecam", batch_size=4)(x)
    handle.remove()
    with torch.no_grad():
        maps = model[0](x)[0].flatten(1)
    dead = int((maps.amax(1) == maps.amin(1)).sum())
    assert dead >= 3
    capture, measure, *chunks = rows
    assert capture == measure == 1
    assert sum(chunks) == (12 - dead - 1) + 1
