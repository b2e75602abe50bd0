"""What users of pytorch-grad-cam's objects read and replace: activations, gradients, modes, layers, old names."""

from __future__ import annotations

import importlib
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fastcam.compat.pytorch_grad_cam as ours
from fastcam.compat.pytorch_grad_cam.utils.reshape_transforms import fasterrcnn_reshape_transform
from tests.networks import images, shared

theirs = pytest.importorskip("pytorch_grad_cam")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]
TARGETS = [theirs.utils.model_targets.ClassifierOutputTarget(c) for c in (1, 2)]


def deep() -> tuple[nn.Module, nn.Module]:
    toy = shared("deep")
    return toy.module, toy.module.get_submodule(toy.layer)


def maps(cam: Any, **call: Any) -> np.ndarray:
    found = cam(images(), TARGETS, **call)
    assert found.max() > 0.5
    return found


def test_activations_and_gradients_can_be_read_after_a_call() -> None:
    model, layer = deep()
    read = []
    for package in (theirs, ours):
        cam = package.GradCAM(model, [layer])
        maps(cam)
        kept = cam.activations_and_grads
        read.append((kept.activations[0], kept.gradients[0], cam.outputs.detach()))
        cam.activations_and_grads.release()
        assert kept.activations == kept.gradients == []
    for a, b in zip(*read, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_activations_and_gradients_by_itself() -> None:
    model, layer = deep()
    watch = ours.ActivationsAndGradients(model, [layer], None)
    watch(images())[:, 1].sum().backward()
    (a,), (g,) = watch.activations, watch.gradients
    assert a.shape == g.shape == (2, 10, 10, 14)
    assert not layer._forward_hooks
    model.zero_grad(set_to_none=True)
    other = theirs.ActivationsAndGradients(model, [layer], None)
    other(images())[:, 1].sum().backward()
    torch.testing.assert_close(g, other.gradients[0])
    other.release()
    model.zero_grad(set_to_none=True)


def test_activations_and_gradients_can_be_replaced() -> None:
    model, layer = deep()

    class Shown(ours.ActivationsAndGradients):
        def save_activation(self, module, input, output):  # noqa: A002 - the peer's word
            self.activations.append(2 * output.detach())

    class Foreign:
        """Nothing of ours: hooks of its own, as the peer's."""

        def __init__(self) -> None:
            self.inner = theirs.ActivationsAndGradients(model, [layer], None)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def __call__(self, x: Tensor) -> Tensor:
            return self.inner(x)

    want = maps(ours.XGradCAM(model, [layer]))
    cam: Any = ours.XGradCAM(model, [layer])
    cam.activations_and_grads.release()
    cam.activations_and_grads = Shown(model, [layer], None)
    assert np.abs(maps(cam) - want).max() < 1e-5
    cam.activations_and_grads = Foreign()
    assert np.abs(maps(cam) - want).max() < 1e-5
    assert all(p.grad is None for p in model.parameters())
    cam.activations_and_grads.release()


def test_in_place_operations_behind_the_layer_change_nothing() -> None:
    toy = shared("inplace")
    layer = toy.module.get_submodule(toy.layer)
    watch = ours.ActivationsAndGradients(toy.module, [layer], None)
    watch(images())
    assert watch.activations[0].min() < -0.1
    other = theirs.ActivationsAndGradients(toy.module, [layer], None)
    other(images())
    assert other.activations[0].min() == 0, "the peer no longer keeps overwritten memory"
    other.release()
    with torch.no_grad():
        torch.testing.assert_close(watch.activations[0], toy.module.get_submodule("features")(images()))


def test_layers_come_in_the_order_given_and_runs_count_last() -> None:
    toy = shared("residual")
    layers = [toy.module.get_submodule(name) for name in ("conv2", "stem")]
    watch = ours.ActivationsAndGradients(toy.module, layers, None)
    watch(images())[:, 1].sum().backward()
    toy.module.zero_grad(set_to_none=True)
    with torch.no_grad():
        torch.testing.assert_close(watch.activations[1], toy.module.get_submodule("stem")(images()))
    twice = shared("twice")
    watch = ours.ActivationsAndGradients(twice.module, [twice.module.get_submodule(twice.layer)], None)
    watch(images())[:, 1].sum().backward()
    twice.module.zero_grad(set_to_none=True)
    assert len(watch.activations) == len(watch.gradients) == 1


def test_exceptions_go_on() -> None:
    model, layer = deep()
    cam: Any = ours.GradCAM(model, [layer])
    with pytest.raises(IndexError, match="out of bounds"), cam:
        maps(cam)[9]


def test_the_mode_of_the_model_is_left_unless_told() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(3)).train()
    net(images())
    ours.GradCAM(net, [net[0]])(images())
    assert net.training
    ours.GradCAM(net, [net[0]], strict_compat=True)
    assert not net.training


class Pyramid(nn.Module):
    """A detector in small: levels by name, then boxes, labels and scores for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, 4)
        self.head = nn.Linear(12, 4)
        self.backbone = Levels(self.stem)

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        levels = self.backbone(x)
        pooled = torch.cat([level.mean((2, 3)) for level in levels.values()], 1)
        return [{"scores": row} for row in self.head(pooled)]


class Levels(nn.Module):
    def __init__(self, stem: nn.Module) -> None:
        super().__init__()
        self.stem = stem

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        first = self.stem(x)
        return OrderedDict([("0", first), ("pool", nn.functional.max_pool2d(first, 2))])


def test_feature_pyramids() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Pyramid().eval()
    targets = [lambda out: out["scores"][0]] * 2
    a, b = (
        package.EigenCAM(model, [model.backbone], fasterrcnn_reshape_transform, **extra)(images(), targets)
        for package, extra in ((theirs, {}), (ours, {"strict_compat": True}))
    )
    assert np.abs(a - b).max() < 1e-5
    options = {"ablation_layer": ours.AblationLayerFasterRCNN(), "batch_size": 5}
    cam: Any = ours.AblationCAM(model, [model.backbone], fasterrcnn_reshape_transform, **options)
    kept: list[np.ndarray] = []

    def keep(x: Tensor, layer: nn.Module, asked: Any, a: Any, g: Any, smooth: bool) -> Any:
        kept.append(cam.get_cam_weights(x, layer, asked, a, g))
        return a.mean(1)

    cam.get_cam_image = keep
    cam(images(), targets)
    with torch.no_grad():
        levels = model.backbone(images())
        y = torch.stack([out["scores"][0] for out in model(images())])
        pooled = torch.cat([level.mean((2, 3)) for level in levels.values()], 1)
        drop = model.head.weight[0] * pooled / y[:, None]
    assert np.abs(kept[0] - drop.numpy()).max() < 1e-5


def test_names_of_old_modules() -> None:
    for old in (name for name in ours.ALIASES if "." not in name):
        module = importlib.import_module(f"fastcam.compat.pytorch_grad_cam.{old}")
        peer = importlib.import_module(f"pytorch_grad_cam.{old}")
        kinds = {name: kind for name, kind in vars(peer).items() if isinstance(kind, type)}
        named = [name for name, kind in kinds.items() if kind.__module__ == peer.__name__]
        assert named
        assert all(hasattr(module, name) for name in named), old
    exported = {name for name in vars(theirs) if name[0].isupper()}
    assert exported <= {*dir(ours), "GuidedBackpropReLUModel"}
    assert {kind.__name__ for kind in ours.BaseCAM.__subclasses__()} >= {
        kind.__name__
        for kind in theirs.base_cam.BaseCAM.__subclasses__()
        if kind.__module__.startswith("pytorch_grad_cam")
    }
