"""Attributions of the image from gradients: against their loops, in every option; what they cost."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from fastcam import CAM, TopK
from tests import formulas, formulas_inputs
from tests.networks import SIZE, Toy, images, shared

pytestmark = pytest.mark.usefixtures("one_thread")
TARGET = [1, 2]
NEAR = 2e-5  # of the largest value, float32 against float64


def double(toy: Toy) -> nn.Module:
    return copy.deepcopy(toy.module).double()


def near(found: Tensor, expected: Tensor, tolerance: float = NEAR) -> None:
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def check(explanation, attributions: list[Tensor], how: str, tolerance: float = NEAR) -> None:
    """Attributions, the raw map, and the map that is shown."""
    near(explanation.attributions, torch.stack(attributions), tolerance)
    raw = torch.tensor([formulas_inputs.reduced(one, how) for one in attributions], dtype=torch.float64)
    near(explanation.raw, raw, tolerance)
    shown = formulas.finish(raw, SIZE, "before" if how == "sum" else "never")
    torch.testing.assert_close(explanation.maps.double(), shown, rtol=0, atol=1e-4)


def explain(toy: Toy, method: str, x: Tensor, **options):
    return CAM(toy.module, method, **options).explain(x, target=torch.tensor(TARGET))


@pytest.mark.parametrize("reduce", ["max", "abs", "sum"])
@pytest.mark.parametrize("method", ["saliency", "inputxgradient"])
@pytest.mark.parametrize("name", ["deep", "residual", "vit"])
def test_gradients(name: str, method: str, reduce: str) -> None:
    toy, x = shared(name), images()
    net = double(toy)
    expected = [formulas_inputs.gradient(net, image, c) for image, c in zip(x, TARGET, strict=True)]
    if method == "inputxgradient":
        expected = [image.double() * g for image, g in zip(x, expected, strict=True)]
    check(explain(toy, method, x, reduce=reduce), expected, reduce)


@pytest.mark.parametrize(
    ("method", "how"),
    [
        *(("saliency", "max"), ("inputxgradient", "sum"), ("integratedgradients", "sum"), ("smoothgrad", "abs")),
        *(("deconvnet", "abs"), ("guidedbackprop", "abs"), ("guidedgradcam", "abs")),
    ],
)
def test_channels_are_shown_as_is_usual(method: str, how: str) -> None:
    exp = explain(shared("deep"), method, images())
    raw = [formulas_inputs.reduced(one, how) for one in exp.attributions.double()]
    near(exp.raw, torch.tensor(raw, dtype=torch.float64), 1e-6)


@pytest.mark.parametrize("kind", ["mean", "squared", "variance"])
@pytest.mark.parametrize("batch_size", ["auto", 4])
def test_smoothgrad(kind: str, batch_size) -> None:
    toy, x, net = shared("deep"), images(), double(shared("deep"))
    generator = torch.Generator().manual_seed(4)
    spread = 0.3 * (x.amax((1, 2, 3)) - x.amin((1, 2, 3))).view(-1, 1, 1, 1)
    noise = torch.stack([spread * torch.randn(x.shape, generator=generator) for _ in range(7)])
    expected = [
        formulas_inputs.smoothgrad(net, image, c, noise[:, b], kind)
        for b, (image, c) in enumerate(zip(x, TARGET, strict=True))
    ]
    exp = explain(toy, "smoothgrad", x, kind=kind, spread=0.3, samples=7, seed=4, batch_size=batch_size)
    check(exp, expected, "abs")


@pytest.mark.parametrize("rule", ["right", "left", "trapezoid", "midpoint", "gausslegendre"])
@pytest.mark.parametrize("based", [False, True])
def test_integratedgradients(rule: str, based: bool) -> None:
    toy, x, net = shared("deep"), images(), double(shared("deep"))
    base = images(2, seed=11) if based else torch.zeros_like(x)
    expected = [
        formulas_inputs.integratedgradients(net, image, c, b, 6, rule)
        for image, c, b in zip(x, TARGET, base, strict=True)
    ]
    exp = explain(toy, "integratedgradients", x, rule=rule, samples=6, baseline=base if based else None)
    check(exp, expected, "sum", 1e-4)


@pytest.mark.parametrize("value", [0.4, torch.tensor([0.3, -0.2, 0.1]), images(1, seed=3)[0]])
def test_integrated_gradients_add_up(value) -> None:
    """Σ A = S(x) - S(x') on a smooth network, whatever the baseline."""
    toy, x, target = shared("vit"), images(), torch.tensor(TARGET)
    base = torch.as_tensor(value)
    base = (base[:, None, None] if base.dim() == 1 else base).expand_as(x)
    exp = explain(toy, "integratedgradients", x, rule="gausslegendre", samples=60, baseline=value)
    scores = [toy.module(one).gather(1, target[:, None])[:, 0] for one in (x, base)]
    change = (scores[0] - scores[1]).detach()
    torch.testing.assert_close(exp.attributions.sum((1, 2, 3)), change, rtol=0, atol=2e-3)
    assert float(change.abs().min()) > 0.02


@pytest.mark.parametrize("method", ["saliency", "smoothgrad", "integratedgradients", "guidedbackprop"])
def test_several_targets_and_functions(method: str) -> None:
    toy, x = shared("deep"), images()
    few = {"samples": 3} if method in ("smoothgrad", "integratedgradients") else {}
    cam = CAM(toy.module, method, **few)
    many = cam.explain(x, target=torch.tensor([[1, 3], [2, 0]]))
    assert many.attributions.shape == (2, 2, 3, *SIZE)
    for t, target in enumerate(([1, 2], [3, 0])):
        near(cam.explain(x, target=torch.tensor(target)).attributions, many.attributions[:, t].double(), 1e-6)
    functions = [lambda logits: logits[:, 1], lambda logits: logits[:, 2]]
    near(cam.explain(x, target=functions).attributions, many.attributions[:, 0].double(), 1e-6)
    assert cam.explain(x, target=TopK(3)).attributions.shape == (2, 3, 3, *SIZE)
    with pytest.raises(ValueError, match=r"target='all' would take a backward of its own .* TopK"):
        cam(x, target="all")


@pytest.mark.parametrize(
    ("method", "options", "forwards", "backwards"),
    [
        ("saliency", {}, 1, 1),
        ("inputxgradient", {}, 1, 1),
        ("guidedbackprop", {}, 1, 1),
        ("fullgrad", {}, 1, 1),
        ("smoothgrad", {"samples": 5}, 6, 5),
        ("integratedgradients", {"samples": 5}, 6, 5),
        ("deeplift", {}, 3, 1),
        ("fgvis", {"steps": 4}, 6, 4),
    ],
)
def test_cost(method: str, options: dict, forwards: int, backwards: int) -> None:
    cost = explain(shared("deep"), method, images(), **options).cost
    assert (cost.forwards, cost.backwards) == (2 * forwards, 2 * backwards)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("saliency", {}),
        ("integratedgradients", {"samples": 2}),
        ("smoothgrad", {"samples": 2}),
        ("inputxgradient", {}),
        ("fullgrad", {}),
    ],
)
def test_maps_are_differentiable(method: str, options: dict) -> None:
    """The derivative of the raw map along a change of the weights is what the map does."""
    module, x = double(shared("deep")), images().double()
    cam, weight = CAM(module, method, **options), module.features[2].weight
    exp = cam.explain(x, target=1, differentiable=True)
    (g,) = torch.autograd.grad((exp.raw * exp.raw).sum(), weight)
    step = torch.randn(g.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1e-6
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step
        values.append(float((cam.explain(x, target=1).raw ** 2).sum()))
        with torch.no_grad():
            weight -= sign * step
    assert (values[0] - values[1]) / 2 == pytest.approx(float((g * step).sum()), rel=1e-4)
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize("method", ["deconvnet", "guidedbackprop", "guidedgradcam", "deeplift", "fgvis"])
def test_no_differentiable_form(method: str) -> None:
    with pytest.raises(ValueError, match=f"{method} has no differentiable form"):
        CAM(shared("deep").module, method)(images(), differentiable=True)


def test_errors() -> None:
    module, x = shared("deep").module, images()
    with pytest.raises(ValueError, match="saliency explains the image itself, at no layer; leave layer='features' out"):
        CAM(module, "saliency", "features")
    with pytest.raises(ValueError, match=r"spread=-1 must be a number from 0 on"):
        CAM(module, "smoothgrad", spread=-1)
    with pytest.raises(ValueError, match=r"rule='simpson' is not one of 'right', 'left', 'trapezoid'"):
        CAM(module, "integratedgradients", rule="simpson")
    with pytest.raises(ValueError, match=r"baseline has shape \(4, 1, 1\)"):
        CAM(module, "integratedgradients", baseline=torch.zeros(4))(x)
    for wrong in ({"steps": 0}, {"rate": -0.1}, {"sparsity": "x"}):
        with pytest.raises(ValueError, match="must be a"):
            CAM(module, "fgvis", **wrong)
    with pytest.raises(ValueError, match="does not depend on layer"):
        CAM(module, "saliency")(x, target=lambda logits: torch.ones(len(logits)))
