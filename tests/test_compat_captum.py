"""captum's LayerGradCam, GuidedGradCam and LayerGradientXActivation, against captum itself."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

captum = pytest.importorskip("captum.attr")
from fastcam import CAM  # noqa: E402 - captum is asked for above
from fastcam.compat.captum import attr as ours  # noqa: E402
from tests.networks import images, settle, shared  # noqa: E402
from tests.networks_modules import Joined  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:(Setting|Input Tensor):UserWarning"),  # captum's own
]

CLOSE = 2e-6  # of the largest value
TARGETS = [1, [2, 0], torch.tensor([0, 1]), torch.tensor(2), torch.tensor([1]), -1, (1,), [(0,), (2,)]]


def close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    top = float(expected.detach().abs().max())
    assert top > 1e-8
    assert float((found - expected).detach().abs().max()) <= CLOSE * top


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("toy", ["linear", "deep"])
def test_grad_cam(toy, target):
    found, expected = (
        one.LayerGradCam(shared(toy).module, shared(toy).module.features).attribute(images(), target)
        for one in (ours, captum)
    )
    close(found, expected)
    assert found.min() < 0
    assert expected.requires_grad
    assert not found.requires_grad


def test_half_precision_gives_float32():
    toy = shared("linear")
    model, x = copy.deepcopy(toy.module).bfloat16(), images().bfloat16()
    found, theirs = (one.LayerGradCam(model, model.features).attribute(x, 1) for one in (ours, captum))
    assert (found.dtype, theirs.dtype) == (torch.float32, torch.bfloat16)
    expected = captum.LayerGradCam(toy.module, toy.module.features).attribute(images(), 1).detach()
    assert float((found - expected).abs().max()) < 0.03 * float(expected.abs().max())


@pytest.mark.parametrize("layer", ["layer2", "layer4", "layer3.0.relu"])
def test_a_network_of_torchvision(layer):
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    model, x = models.resnet18(num_classes=7).eval(), torch.randn(2, 3, 64, 64)
    found, expected = (
        one.LayerGradCam(model, model.get_submodule(layer)).attribute(x, [3, 6]) for one in (ours, captum)
    )
    close(found, expected)


@pytest.mark.parametrize(
    "given",
    [
        {"relu_attributions": True},
        {"attribute_to_layer_input": True},
        {"attr_dim_summation": False},
        {"attr_dim_summation": False, "relu_attributions": True, "attribute_to_layer_input": True},
        {"grad_kwargs": {"create_graph": True}},
    ],
    ids=str,
)
def test_grad_cam_of_other_kinds(given):
    module = shared("vgg").module
    layer = module.features[0]
    found, expected = (one.LayerGradCam(module, layer).attribute(images(), 1, **given) for one in (ours, captum))
    close(found, expected)


def test_a_graph_is_kept_where_it_is_asked_for():
    module = copy.deepcopy(shared("deep").module)
    grads = []
    for one in (ours, captum):
        module.zero_grad()
        one.LayerGradCam(module, module.features).attribute(
            images(), 1, grad_kwargs={"create_graph": True}
        ).sum().backward()
        grads.append(module.features[0].weight.grad)
    close(grads[0], grads[1])


@pytest.mark.parametrize("target", [(1, 0), [(1, 0), (3, 1)]], ids=str)
@pytest.mark.parametrize("scale", [None, 2.0])
def test_several_inputs_and_tuples_as_target(target, scale):
    given, joined = (images(), images(2, 1)[:, :1]), settle(Joined(), 3)
    for layer in (joined.conv, joined.relu):
        found, expected = (one.LayerGradCam(joined, layer).attribute(given, target, scale) for one in (ours, captum))
        close(found, expected)


def test_any_callable():
    module = shared("linear").module

    def probability(x: Tensor) -> Tensor:
        return module(x).softmax(1)[:, 2]

    found, expected = (one.LayerGradCam(probability, module.features).attribute(images()) for one in (ours, captum))
    close(found, expected)
    found, expected = (
        one.LayerGradCam(module.forward, module.features).attribute(images(), 1) for one in (ours, captum)
    )
    close(found, expected)


def test_a_model_in_training_mode_runs_in_it():
    module = copy.deepcopy(shared("deep").module).train()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 0.0
    found, expected = (one.LayerGradCam(module, module.features).attribute(images(), 1) for one in (ours, captum))
    close(found, expected)
    evaluated = ours.LayerGradCam(shared("deep").module, shared("deep").module.features).attribute(images(), 1)
    assert not torch.allclose(found, evaluated, rtol=0.1)


def test_one_score_an_example_needs_no_target():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)).eval()
    found, expected = (one.LayerGradCam(module, module[1]).attribute(images()) for one in (ours, captum))
    close(found, expected)


def test_a_layer_with_several_values():
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x[:, :2] * 2, x[:, 2:].sin()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.two = Two()

        def forward(self, x: Tensor) -> Tensor:
            a, b = self.two(x)
            return torch.cat([a, b], 1).pow(2).mean((2, 3))

    net = Net()
    found, expected = (one.LayerGradCam(net, net.two).attribute(images(), 2) for one in (ours, captum))
    assert len(found) == len(expected) == 2
    close(found[1], expected[1])


@pytest.mark.parametrize("multiply", [True, False])
def test_gradient_x_activation(multiply):
    module = shared("vgg").module
    for layer in (module.features, [module.features[0], module.tail[1]]):
        found, expected = (
            one.LayerGradientXActivation(module, layer, multiply_by_inputs=multiply).attribute(images(), [1, 0])
            for one in (ours, captum)
        )
        assert isinstance(found, list) == isinstance(layer, list)
        for a, b in zip(found, expected, strict=True) if isinstance(layer, list) else [(found, expected)]:
            close(a, b)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_interpolate(mode):
    x = images()[:, :1, :5, :7]
    for owner in (ours.LayerAttribution, ours.LayerGradCam):
        found = owner.interpolate(x, (20, 28), mode)
        assert torch.equal(found, captum.LayerAttribution.interpolate(x, (20, 28), mode))


def test_tokens_are_maps():
    """captum takes the mean over features and the sum over tokens, which is no map."""
    toy = shared("vit")
    layer = toy.module.get_submodule(toy.layer)
    found = ours.LayerGradCam(toy.module, layer).attribute(images(), 1)
    assert torch.equal(found[:, 0], CAM(toy.module, "gradcam", toy.layer).explain(images(), target=1).raw)
    assert found.dim() == 4
    assert captum.LayerGradCam(toy.module, layer).attribute(images(), 1).dim() == 3


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("whole", [True, False])
def test_whatever_the_callers_mode_and_nothing_is_left(mode, whole):
    module = copy.deepcopy(shared("inplace").module).requires_grad_(False)
    expected = captum.LayerGradCam(shared("inplace").module, shared("inplace").module.features).attribute(images(), 1)
    with mode():
        found = ours.LayerGradCam(module if whole else module.forward, module.features).attribute(images(), 1)
    close(found, expected)
    with pytest.raises(ValueError, match="99"):
        ours.LayerGradCam(module.forward, module.features).attribute(images(), 99)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert all(p.grad is None and not p.requires_grad for p in module.parameters())


@pytest.mark.parametrize(
    ("target", "error", "says"),
    [
        (None, ValueError, "pass target="),
        ([1], ValueError, "1.*2"),
        ([(1,)], ValueError, "1 (entries|tuples) for 2 examples"),
        (torch.zeros(2), (TypeError, ValueError), "integers"),
        (torch.zeros(3, dtype=torch.long), ValueError, "3"),
        (torch.zeros(2, 2, dtype=torch.long), ValueError, r"\(2, 2\)"),
        ([[0, 1], [1, 2]], (TypeError, ValueError), r"\[0, 1\]"),
        ((0, 0), ValueError, "outside the output"),
        (17, ValueError, "17"),
        ("cat", TypeError, "'cat'"),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_bad_targets(target, error, says, whole):
    module = shared("linear").module
    with pytest.raises(error, match=says):
        ours.LayerGradCam(module if whole else module.forward, module.features).attribute(images(), target)


def test_bad_input():
    module = shared("linear").module
    with pytest.raises(TypeError, match="callable, got int"):
        ours.LayerGradCam(3, module.features)
    with pytest.raises(TypeError, match=r"such as model\.layer4, got 'features'"):
        ours.LayerGradCam(module, "features")
    with pytest.raises(TypeError, match="a LayerGradCam of each"):
        ours.LayerGradCam(module, [module.features])
    with pytest.raises(ValueError, match="inner module of a DataParallel"):
        ours.LayerGradCam(module, module.features, device_ids=[0, 1])
    with pytest.raises(ValueError, match="did not run"):
        ours.LayerGradCam(module, nn.ReLU()).attribute(images(), 1)
    with pytest.raises(ValueError, match="do not hang on the layer"):
        ours.LayerGradCam(lambda x: module.features(x).detach().mean((1, 2, 3)), module.features).attribute(images())
    with pytest.raises(TypeError, match="give a tensor, got a tuple"):
        ours.LayerGradCam(lambda x: (module(x),), module.features).attribute(images(), 1)
    with pytest.raises(ValueError, match="no spatial map"):
        ours.LayerGradCam(module, module.tail[1]).attribute(images(), 1)
