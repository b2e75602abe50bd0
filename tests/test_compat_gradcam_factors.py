"""Concepts, guided backpropagation and edges of the pytorch-grad-cam drop-in, against pytorch-grad-cam itself."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

for package in ("pytorch_grad_cam", "sklearn", "cv2", "torchvision"):
    pytest.importorskip(package)
import pytorch_grad_cam.feature_factorization.deep_feature_factorization as their_factors  # noqa: E402
import pytorch_grad_cam.guided_backprop as their_guided  # noqa: E402
import torchvision  # noqa: E402
from pytorch_grad_cam.sobel_cam import sobel_cam as their_sobel_cam  # noqa: E402

from fastcam.compat.pytorch_grad_cam import guided_backprop  # noqa: E402
from fastcam.compat.pytorch_grad_cam.feature_factorization import deep_feature_factorization as factors  # noqa: E402
from fastcam.compat.pytorch_grad_cam.sobel_cam import sobel_cam  # noqa: E402
from tests.networks import images, settle, shared  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]
X = images(2)
DRAW = np.random.default_rng(2)


def resnet():
    block = torchvision.models.resnet.BasicBlock
    return settle(torchvision.models.ResNet(block, [1, 1, 1, 1], num_classes=5), 15)


@pytest.mark.parametrize("components", [1, 3, 6])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_factors_are_scikit_learns(components, kind):
    a = DRAW.standard_normal((2, 9, 5, 6)).astype(kind)
    a[0, 0, 0, 0] = np.nan
    before = a.copy()
    ours, theirs = factors.dff(a, components), their_factors.dff(a.copy(), components)
    assert np.array_equal(a, before, equal_nan=True)
    for got, expected in zip(ours, theirs, strict=True):
        assert got.shape == expected.shape
        assert got.dtype == kind
        # Up to 200 steps in float32 carry rounding along a flat valley; in float64 they are the same steps.
        share = 1e-9 if kind is np.float64 else 1e-3
        np.testing.assert_allclose(got, expected, rtol=0, atol=share * np.abs(expected).max())
    tensors = factors.dff(torch.from_numpy(a), components)
    assert np.array_equal(tensors[1].numpy(), ours[1])


def test_factors_of_nothing():
    concepts, places = factors.dff(np.full((1, 3, 2, 2), 2.0), 2)
    assert np.array_equal(concepts, np.full((3, 2), 2.0))
    assert np.isfinite(places).all()


@pytest.mark.parametrize("layer", ["layer2", "layer4"])
def test_deep_feature_factorization(layer):
    model, x = resnet(), torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(4))
    module = model.get_submodule(layer)
    classify = model.fc if layer == "layer4" else None
    theirs = their_factors.DeepFeatureFactorization(model, module, computation_on_concepts=classify)(x, 3)
    with factors.DeepFeatureFactorization(model, module, computation_on_concepts=classify) as ours:
        got = ours(x, 3)
    assert len(got) == len(theirs) == (3 if classify else 2)
    np.testing.assert_allclose(got[0], theirs[0], rtol=0, atol=1e-3 * np.abs(theirs[0]).max())
    assert isinstance(got[1], list)
    np.testing.assert_allclose(np.stack(got[1]), np.stack(theirs[1]), rtol=0, atol=1e-3)
    if classify:
        np.testing.assert_allclose(got[2], theirs[2], rtol=0, atol=1e-3 * np.abs(theirs[2]).max())


def test_factorization_leaves_the_model_alone():
    model = resnet().train().requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        ours = factors.DeepFeatureFactorization(
            model, model.layer4, reshape_transform=lambda a: a[:, :6], computation_on_concepts=lambda c: c.sum(1)
        )
        concepts, maps, sums = ours(torch.randn(1, 3, 64, 64), 2)
    assert concepts.shape == (6, 2)
    assert maps[0].shape == (2, 64, 64)
    np.testing.assert_allclose(sums, concepts.sum(0), rtol=1e-5)
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_factorization_of_bad_input():
    model = resnet()
    ours = factors.DeepFeatureFactorization(model, model.layer4)
    for wrong in (0, 1.5, True):
        with pytest.raises(ValueError, match="n_components is"):
            ours(torch.randn(1, 3, 64, 64), wrong)
    with pytest.raises(ValueError, match=r"expected images \(B, C, H, W\)"):
        ours(torch.randn(3, 64, 64))
    with pytest.raises(ValueError, match="never ran"):
        factors.DeepFeatureFactorization(model, nn.ReLU())(torch.randn(1, 3, 64, 64))
    with pytest.raises(ValueError, match="infinite"):
        factors.dff(np.full((1, 2, 2, 2), np.inf))


def test_picture_of_the_factors():
    model = resnet()
    model.config = SimpleNamespace(id2label={c: f"name {c}" for c in range(5)})
    picture = np.uint8(DRAW.integers(0, 256, (64, 64, 3)))
    x = torch.from_numpy(picture / 255).float().permute(2, 0, 1)
    shown = factors.run_dff_on_image(model, model.layer4, model.fc, picture, x, n_components=3)
    assert shown.shape == (64, 192, 3)
    assert np.array_equal(shown[:, :64], picture)
    assert len(np.unique(shown[:, 64:128].reshape(-1, 3), axis=0)) > 100
    assert len(np.unique(shown[:, 128:])) > 2  # the legend
    with pytest.raises(ValueError, match="expected \\(H, W, 3\\)"):
        factors.run_dff_on_image(model, model.layer4, model.fc, picture[:32], x)
    del model.config
    with pytest.raises(ValueError, match=r"no config\.id2label"):
        factors.run_dff_on_image(model, model.layer4, model.fc, picture, x)


@pytest.mark.parametrize("target", [None, 2])
@pytest.mark.parametrize("name", ["linear", "vgg", "resnet"])
def test_guided_backpropagation(name, target):
    model = resnet() if name == "resnet" else shared(name).module
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(4)) if name == "resnet" else X[:1]
    theirs = their_guided.GuidedBackpropReLUModel(copy.deepcopy(model))(x.clone(), target)
    ours = guided_backprop.GuidedBackpropReLUModel(model)(x, target)
    assert ours.shape == theirs.shape == (*x.shape[2:], 3)
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
    tensor = guided_backprop.GuidedBackpropReLUModel(model, "cpu")(x, target, as_tensor=True)
    assert np.array_equal(tensor.numpy(), ours)


def test_guided_backpropagation_leaves_all_as_it_was():
    model = resnet().train()
    modules, x = list(model.modules()), X[:1].clone().requires_grad_()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    guided = guided_backprop.GuidedBackpropReLUModel(model)
    with torch.no_grad():
        first, second = guided(x, 1), guided(x, 1)
    assert np.array_equal(first, second)  # the peer's second call adds the first one's gradient
    np.testing.assert_allclose(guided(torch.cat([x, -x])), guided(x), rtol=0, atol=1e-6)  # of the first image
    assert list(model.modules()) == modules
    assert all(module.training for module in modules)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert x.grad is None
    assert all(parameter.grad is None for parameter in model.parameters())
    smooth = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="guidedbackprop"):
        guided_backprop.GuidedBackpropReLUModel(smooth)(X[:1])


def test_functional_relus_are_guided_as_well():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)

        def forward(self, x):
            return self.fc(torch.relu(self.conv(x)).mean((2, 3)))

    model = settle(Functional(), 3)
    same = nn.Sequential(model.conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.fc)
    ours = guided_backprop.GuidedBackpropReLUModel(model)(X[:1], 1)
    np.testing.assert_allclose(ours, their_guided.GuidedBackpropReLUModel(same)(X[:1].clone(), 1), rtol=0, atol=1e-6)
    plain = their_guided.GuidedBackpropReLUModel(model)(X[:1].clone(), 1)  # sees modules only
    assert np.abs(plain - ours).max() > 1e-4


def test_guided_relu_and_its_modules():
    x = torch.randn(40, generator=torch.Generator().manual_seed(1))
    grads = []
    for module in (guided_backprop.GuidedBackpropReLUasModule(), their_guided.GuidedBackpropReLUasModule()):
        leaf = x.clone().requires_grad_()
        (module(leaf) * x.flip(0)).sum().backward()
        grads.append(leaf.grad)
    assert torch.equal(*grads)
    model = resnet()
    modules = list(model.modules())
    guided = guided_backprop.GuidedBackpropReLUModel(model)
    guided.recursive_replace_relu_with_guidedrelu(model)
    assert not any(isinstance(module, nn.ReLU) for module in model.modules())
    guided.recursive_replace_guidedrelu_with_relu(model)
    assert list(model.modules()) == modules


def test_edges():
    picture = np.uint8(DRAW.integers(0, 256, (31, 42, 3)))
    smooth = np.uint8(np.clip(np.cumsum(DRAW.standard_normal((31, 42, 3)) * 4, 1) + 120, 0, 255))
    for one in (picture, smooth, np.float32(smooth)):
        ours, theirs = sobel_cam(one), their_sobel_cam(one)
        assert ours.dtype == np.uint8
        assert np.abs(ours.astype(int) - theirs).max() <= (0 if one.dtype == np.uint8 else 1)
    assert np.array_equal(sobel_cam(torch.from_numpy(picture)).numpy(), their_sobel_cam(picture))
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\)"):
        sobel_cam(picture[..., 0])
