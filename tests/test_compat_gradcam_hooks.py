"""What subclasses of pytorch-grad-cam's classes override, read and replace: theirs and ours get the same arrays."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fastcam.compat.pytorch_grad_cam as ours
from tests.networks import images, shared

theirs = pytest.importorskip("pytorch_grad_cam")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]
Package = ModuleType
TARGETS = [theirs.utils.model_targets.ClassifierOutputTarget(c) for c in (1, 2)]


def deep() -> tuple[nn.Module, nn.Module]:
    toy = shared("deep")
    return toy.module, toy.module.get_submodule(toy.layer)


def maps(cam: Any, **call: Any) -> np.ndarray:
    found = cam(images(), TARGETS, **call)
    assert found.max() > 0.5
    return found


def weights(package: Package) -> type:
    class Cubed(package.base_cam.BaseCAM):
        def get_cam_weights(self, input_tensor, target_layers, targets, activations, grads):
            assert isinstance(activations, np.ndarray)
            assert isinstance(grads, np.ndarray)
            assert input_tensor.shape == (2, 3, 20, 28)
            assert len(targets) == 2
            return (grads**3).sum((2, 3))

    return Cubed


def image(package: Package) -> type:
    class Strongest(package.GradCAM):
        def get_cam_image(self, input_tensor, target_layer, targets, activations, grads, eigen_smooth=False):
            own = self.get_cam_weights(input_tensor, target_layer, targets, activations, grads)
            return (own[:, :, None, None] * activations).max(1)

    return Strongest


def gradient_free(package: Package) -> type:
    class Free(package.base_cam.BaseCAM):
        def __init__(self, model, target_layers, reshape_transform=None):
            super().__init__(model, target_layers, reshape_transform, uses_gradients=False)

        def get_cam_weights(self, input_tensor, target_layers, targets, activations, grads):
            assert grads is None
            return activations.std((2, 3))

    return Free


def input_gradient(package: Package) -> type:
    class AtInput(package.base_cam.BaseCAM):
        def __init__(self, model, target_layers, reshape_transform=None):
            super().__init__(model, target_layers, reshape_transform, compute_input_gradient=True)

        def compute_cam_per_layer(self, input_tensor, targets, eigen_smooth):
            return [input_tensor.grad.abs().amax(1, keepdim=True).numpy()]

    return AtInput


def second_order(package: Package) -> type:
    class Curved(package.base_cam.BaseCAM):
        def __init__(self, model, target_layers, reshape_transform=None):
            options = {"compute_input_gradient": True, "detach": False}
            super().__init__(model, target_layers, reshape_transform, **options)

        def get_cam_weights(self, input_tensor, target_layers, targets, activations, grads):
            (h,) = torch.autograd.grad(grads, activations, torch.ones_like(activations))
            return h.mean((2, 3)).numpy()

    return Curved


def aggregated(package: Package) -> type:
    class Largest(package.LayerCAM):
        def aggregate_multi_layers(self, cam_per_target_layer):
            return np.concatenate(cam_per_target_layer, axis=1).max(1)

    return Largest


def forwarded(package: Package) -> type:
    class Squared(package.GradCAM):
        def forward(self, input_tensor, targets, eigen_smooth=False):
            return super().forward(input_tensor, targets, eigen_smooth) ** 2

    return Squared


@pytest.mark.parametrize(
    "subclass", [weights, image, gradient_free, input_gradient, second_order, aggregated, forwarded]
)
def test_subclasses_get_the_same(subclass: Any) -> None:
    model, layer = deep()
    a, b = (maps(subclass(package)(model, [layer])) for package in (theirs, ours))
    assert np.abs(a - b).max() < 1e-5


@pytest.mark.parametrize("subclass", [weights, aggregated, forwarded])
def test_subclasses_get_the_same_of_versions_and_several_layers(subclass: Any) -> None:
    toy = shared("residual")
    layers = [toy.module.get_submodule(name) for name in ("stem", "conv2")]
    for call in ({}, {"aug_smooth": True}):
        a, b = (maps(subclass(package)(toy.module, layers), **call) for package in (theirs, ours))
        assert np.abs(a - b).max() < 1e-5


def test_plain_subclasses_take_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    class Named(ours.GradCAM):
        """Nothing is overridden."""

    model, layer = deep()
    monkeypatch.setattr("fastcam.compat.pytorch_grad_cam.drawing.recorded", None)
    assert np.array_equal(maps(Named(model, [layer])), maps(ours.GradCAM(model, [layer])))
    monkeypatch.undo()
    cam: Any = ours.GradCAM(model, [layer])
    cam.get_cam_weights = lambda *args: np.ones((2, 10))
    assert np.abs(maps(cam) - maps(ours.GradCAM(model, [layer]))).max() > 0.1


def overriding(kind: type, name: str) -> type:
    """A subclass whose own method only hands on."""
    return type("ByArrays", (kind,), {name: lambda self, *args: getattr(super(type(self), self), name)(*args)})


def test_every_class_works_by_arrays_too() -> None:
    model, layer = deep()
    for name in ours.__all__:
        kind = getattr(ours, name)
        if not isinstance(kind, type) or not issubclass(kind, ours.BaseCAM) or kind in (ours.BaseCAM, ours.RandomCAM):
            continue
        plain = kind(model, [layer])
        by_arrays = overriding(kind, "compute_cam_per_layer" if kind is ours.FullGrad else "get_cam_image")
        assert np.abs(maps(by_arrays(model, [layer])) - maps(plain)).max() < 1e-5, name
        if name != "FullGrad":
            slow, fast = (maps(one, eigen_smooth=True) for one in (by_arrays(model, [layer]), plain))
            assert np.abs(slow - fast).max() < 1e-5, f"{name} with eigen_smooth"


def test_the_size_of_maps_can_be_told() -> None:
    model, layer = deep()
    found = []
    for package in (theirs, ours):
        cam = package.GradCAM(model, [layer])
        cam.get_target_width_height = lambda x: (7, 9)
        found.append(cam(images(), TARGETS))
    assert found[1].shape == (2, 9, 7)
    assert np.abs(found[0] - found[1]).max() < 1e-5
