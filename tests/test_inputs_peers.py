"""captum and pytorch-grad-cam as further witnesses of the image's attributions, in float64 on copies."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastcam import CAM
from tests.networks import CLASSES, Toy, images, shared
from tests.test_inputs import TARGET, near

captum = pytest.importorskip("captum.attr")
pgc = pytest.importorskip("pytorch_grad_cam")
torchvision = pytest.importorskip("torchvision")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]
NETWORKS = ("linear", "vgg", "conv_classifier", "resnet", "mobilenet", "densenet")


def network(name: str) -> tuple[nn.Module, Tensor]:
    """A toy, or a small untrained network of torchvision's, in float64, and images for it."""
    if name in ("resnet", "mobilenet", "densenet"):
        torch.manual_seed(3)
        module: nn.Module = {
            "resnet": lambda: torchvision.models.ResNet(
                torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=CLASSES
            ),
            "mobilenet": lambda: torchvision.models.mobilenet_v2(num_classes=CLASSES, width_mult=0.25),
            "densenet": lambda: torchvision.models.DenseNet(8, (2, 2), 16, num_classes=CLASSES),
        }[name]()
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.normal_(0, 0.1)
                norm.bias.data.normal_(0, 0.1)
        return module.double().eval(), torch.randn(2, 3, 48, 64, dtype=torch.float64)
    toy: Toy = shared(name)
    return copy.deepcopy(toy.module).double(), images().double()


def compare(name: str, method: str, theirs: Any, tolerance: float = 1e-9, **options: Any) -> None:
    """theirs: (module, images, target) -> attributions (2, 3, H, W)"""
    module, x = network(name)
    target = torch.tensor(TARGET)
    ours = CAM(module, method, **options).explain(x, target=target).attributions
    assert ours is not None
    near(ours, theirs(copy.deepcopy(module), x.clone().requires_grad_(), target).detach(), tolerance)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_captums(name: str) -> None:
    compare(name, "saliency", lambda m, x, t: captum.Saliency(m).attribute(x, target=t, abs=False))
    compare(name, "inputxgradient", lambda m, x, t: captum.InputXGradient(m).attribute(x, target=t))


@pytest.mark.parametrize(
    ("rule", "theirs"),
    [
        ("gausslegendre", "gausslegendre"),
        ("right", "riemann_right"),
        ("left", "riemann_left"),
        ("midpoint", "riemann_middle"),
        ("trapezoid", "riemann_trapezoid"),
    ],
)
def test_integrated_gradients_are_captums(rule: str, theirs: str) -> None:
    """Its steps are float32; the weights of its trapezoids add up to (n - 1) / n and not to one."""
    times = 7 / 6 if rule == "trapezoid" else 1.0

    def attribute(module: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        integrated = captum.IntegratedGradients(module)
        return times * integrated.attribute(x, baselines=baseline, target=target, n_steps=7, method=theirs)

    for baseline in (0.0, 0.3):
        compare("vgg", "integratedgradients", attribute, 1e-6, rule=rule, samples=7, baseline=baseline)


@pytest.mark.parametrize(
    ("kind", "theirs"), [("mean", "smoothgrad"), ("squared", "smoothgrad_sq"), ("variance", "vargrad")]
)
def test_smoothgrad_is_captums_for_the_same_noise(kind: str, theirs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """captum draws for each image in turn, and one deviation for all; here it is given our noise in its order."""
    samples = 6

    def tunnel(module: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        spread = 0.15 * (x.amax((1, 2, 3)) - x.amin((1, 2, 3))).view(-1, 1, 1, 1)
        noise = torch.stack([spread * torch.randn(x.shape, generator=generator) for _ in range(samples)], 1)
        monkeypatch.setattr(torch, "normal", lambda mean, std: noise.flatten(0, 1))
        saliency = captum.NoiseTunnel(captum.Saliency(module))
        return saliency.attribute(x, nt_type=theirs, nt_samples=samples, stdevs=1.0, target=target, abs=False)

    compare("vgg", "smoothgrad", tunnel, kind=kind, samples=samples, seed=2)


@pytest.mark.parametrize("name", ["linear", "vgg", "conv_classifier", "resnet"])
@pytest.mark.parametrize(("method", "theirs"), [("deconvnet", "Deconvolution"), ("guidedbackprop", "GuidedBackprop")])
def test_relu_rules_are_captums(name: str, method: str, theirs: str) -> None:
    compare(name, method, lambda m, x, t: getattr(captum, theirs)(m).attribute(x, target=t))


@pytest.mark.parametrize("name", ["mobilenet", "densenet"])
def test_captum_misses_relus_that_are_not_its_modules(name: str) -> None:
    """DenseNet's last ReLU is a function, MobileNet's are ReLU6: as modules of the class it knows they agree."""

    def theirs(module: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        return captum.GuidedBackprop(module).attribute(x, target=target)

    with pytest.raises(AssertionError):
        compare(name, "guidedbackprop", theirs)

    def mended(module: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        if name == "densenet":
            rest = [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), module.get_submodule("classifier")]
            return theirs(nn.Sequential(module.get_submodule("features"), *rest), x, target)
        assert float(max(relu_inputs(module, x))) < 6  # so that no cap is reached, and ReLU does the same
        for parent in list(module.modules()):
            for key, child in parent.named_children():
                if isinstance(child, nn.ReLU6):
                    setattr(parent, key, nn.ReLU())
        return theirs(module, x, target)

    compare(name, "guidedbackprop", mended)


def relu_inputs(module: nn.Module, x: Tensor) -> list[float]:
    seen: list[float] = []
    hooks = [
        one.register_forward_pre_hook(lambda _m, given: seen.append(float(given[0].detach().max())))
        for one in module.modules()
        if isinstance(one, nn.ReLU6)
    ]
    module(x)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize(("name", "layer"), [("linear", "features"), ("vgg", "features"), ("resnet", "layer2")])
def test_guided_gradcam_is_captums(name: str, layer: str) -> None:
    """captum resizes to the nearest cell unless it is told otherwise."""

    def theirs(module: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        both = captum.GuidedGradCam(module, module.get_submodule(layer))
        return both.attribute(x, target=target, interpolate_mode="bilinear")

    compare(name, "guidedgradcam", theirs, layer=layer)


@pytest.mark.parametrize("name", ["linear", "conv_classifier"])
@pytest.mark.parametrize("baseline", [0.0, 0.25])
def test_deeplift_is_captums(name: str, baseline: float) -> None:
    def theirs(module: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        return captum.DeepLift(module).attribute(x, baselines=torch.full_like(x, baseline), target=target)

    compare(name, "deeplift", theirs, baseline=baseline)


def test_captums_deeplift_does_not_add_up_where_a_max_pool_meets_relus() -> None:
    module, x = network("vgg")
    target, rows = torch.tensor(TARGET), torch.arange(2)
    change = (module(x) - module(torch.zeros_like(x)))[rows, target].detach()
    ours = CAM(module, "deeplift").explain(x, target=target).attributions
    theirs = captum.DeepLift(copy.deepcopy(module)).attribute(x, target=target)
    assert ours is not None
    near(ours.sum((1, 2, 3)), change, 1e-12)
    assert float((theirs.sum((1, 2, 3)) - change).abs().max()) > 1e-2


@pytest.mark.parametrize("name", ["linear", "vgg", "resnet"])
def test_fullgrad_by_channel_is_pytorch_grad_cams(name: str) -> None:
    """Its own scale is that of each channel; it leaves linear layers out, and adds 1e-7 below every division."""
    module, x = network(name)
    target = torch.tensor(TARGET)
    [one for one in module.modules() if isinstance(one, nn.Linear)][-1].weight.data *= 1e4  # gradients far above 1e-7
    cam = pgc.FullGrad(copy.deepcopy(module), [])
    theirs = cam(x.clone(), [pgc.utils.model_targets.ClassifierOutputTarget(c) for c in TARGET])
    ours = CAM(module, "fullgrad", scale="channel").explain(x, target=target).maps
    torch.testing.assert_close(ours, torch.as_tensor(theirs).float(), rtol=0, atol=2e-4)
