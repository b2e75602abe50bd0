"""Every CAM class of the drop-in against pytorch-grad-cam itself, on the same networks and calls."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fastcam.compat.pytorch_grad_cam as ours
from tests.networks import Toy, images, shared

theirs = pytest.importorskip("pytorch_grad_cam")
torchvision = pytest.importorskip("torchvision")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread", "no_progress_bars")]

AGREE = 1e-5  # of maps in [0, 1]; the worst measured is 4e-6
GRADIENTS = ["GradCAM", "HiResCAM", "GradCAMElementWise", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "ShapleyCAM"]
COMPONENTS = ["EigenCAM", "EigenGradCAM", "SegEigenCAM", "KPCA_CAM", "FEM", "RandomCAM"]
CLASSES = [*GRADIENTS, *COMPONENTS, "ScoreCAM", "AblationCAM", "FullGrad", "FinerCAM", "RefineCAM"]
WRAPPERS = ("FinerCAM", "RefineCAM")
BY_SIGN = {"EigenCAM", "EigenGradCAM"}  # LAPACK's sign is free, so these are compared under strict_compat
BURIED = {"AblationCAM"}  # differs where activations may be negative


@pytest.fixture
def no_progress_bars(monkeypatch):
    for name in ("score_cam", "ablation_cam"):
        module = importlib.import_module(f"pytorch_grad_cam.{name}")
        monkeypatch.setattr(module.tqdm, "tqdm", lambda rows: rows)


def targets_of(classes: list[int] | None) -> list[Any] | None:
    return classes and [theirs.utils.model_targets.ClassifierOutputTarget(c) for c in classes]


def both(name: str, model: nn.Module, layers: Sequence[Any], x: torch.Tensor, targets: Any, **call: Any) -> tuple:
    """Their map and ours of the same call; strict_compat goes to ours alone."""
    strict, options = call.pop("strict_compat", None), call.pop("options", {})
    found = []
    for package, extra in ((theirs, {}), (ours, {"strict_compat": strict})):
        np.random.seed(3)  # noqa: NPY002 - RandomCAM draws from there
        with torch.random.fork_rng():
            found.append(getattr(package, name)(model, layers, **options, **extra)(x, targets=targets, **call))
    return found[0], found[1]


def assert_same(a: np.ndarray, b: np.ndarray, limit: float = AGREE) -> None:
    assert a.dtype == b.dtype == np.float32
    assert a.shape == b.shape
    assert a.max() > 0.5, "nothing to compare"
    assert np.abs(a - b).max() < limit


def layer_of(toy: Toy) -> nn.Module:
    return toy.module.get_submodule(toy.layer)


@pytest.mark.parametrize("classes", [None, [1, 2]], ids=["predicted", "given"])
@pytest.mark.parametrize("name", CLASSES)
def test_maps_agree(name: str, classes: list[int] | None) -> None:
    for network in ("linear", "deep", "vgg", "signed"):
        toy = shared(network)
        strict = (name in BY_SIGN) or (name in BURIED and network == "signed")
        a, b = both(name, toy.module, [layer_of(toy)], images(), targets_of(classes), strict_compat=strict)
        assert_same(a, b)


@pytest.mark.parametrize("name", CLASSES)
def test_eigen_smooth_agrees_up_to_the_sign_of_lapack(name: str) -> None:
    toy = shared("deep")
    call = {"eigen_smooth": True, "strict_compat": True}
    a, b = both(name, toy.module, [layer_of(toy)], images(), targets_of([1, 2]), **call)
    assert_same(a, b)


@pytest.mark.parametrize("classes", [None, [1, 2]], ids=["predicted", "given"])
@pytest.mark.parametrize("name", [name for name in CLASSES if name not in WRAPPERS])
def test_aug_smooth_agrees(name: str, classes: list[int] | None) -> None:
    toy = shared("deep")
    call = {"aug_smooth": True, "strict_compat": classes is None or name in BY_SIGN}
    a, b = both(name, toy.module, [layer_of(toy)], images(), targets_of(classes), **call)
    assert_same(a, b)
    assert b.max() < 1 - 1e-4, "the mean of six maps is not scaled again"


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torchvision.models.resnet18(num_classes=10).eval()


@pytest.mark.parametrize("name", [n for n in CLASSES if n not in ("ScoreCAM", "AblationCAM", "FullGrad")])
def test_several_layers_of_a_resnet_agree(name: str, resnet: nn.Module) -> None:
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    layers = [resnet.layer2, resnet.layer4]
    a, b = both(name, resnet, layers, x, targets_of([1, 3]), strict_compat=name in BY_SIGN)
    assert_same(a, b)


def test_score_cam_of_several_layers_agrees() -> None:
    toy = shared("residual")
    layers = [toy.module.get_submodule("stem"), toy.module.get_submodule("conv2")]
    a, b = both("ScoreCAM", toy.module, layers, images(), targets_of([1, 2]))
    assert_same(a, b)


@pytest.mark.parametrize("kind", ["ClassifierOutputSoftmaxTarget", "ClassifierOutputReST", "ClassifierOutputTarget"])
@pytest.mark.parametrize("name", ["GradCAM", "GradCAMPlusPlus", "ShapleyCAM", "ScoreCAM", "AblationCAM"])
def test_other_targets_agree(name: str, kind: str) -> None:
    toy = shared("deep")
    own, other = (getattr(package.utils.model_targets, kind) for package in (ours, theirs))
    a, _ = both(name, toy.module, [layer_of(toy)], images(), [other(0), other(3)])
    _, b = both(name, toy.module, [layer_of(toy)], images(), [own(0), own(3)])
    assert_same(a, b)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("KPCA_CAM", {"kernel": "rbf", "gamma": 0.1}),
        ("FEM", {"k": 1}),
        ("AblationCAM", {"batch_size": 3, "ratio_channels_to_ablate": 0.4}),
        ("RefineCAM", {"base_method": "LayerCAM"}),
        ("FinerCAM", {"base_method": "HiResCAM"}),
        ("FinerCAM", {"base_method": "ScoreCAM"}),
    ],
)
def test_options_agree(name: str, options: dict[str, Any]) -> None:
    toy, found = shared("deep"), []
    for package in (theirs, ours):
        own = {k: getattr(package, v) if k == "base_method" else v for k, v in options.items()}
        found.append(getattr(package, name)(toy.module, [layer_of(toy)], **own)(images(), targets=None))
    assert_same(*found)


@pytest.mark.parametrize("call", [{"alpha": 0.6}, {"comparison_categories": [2, 4]}, {"target_idx": 3}])
def test_finer_cam_compares_the_same_classes(call: dict[str, Any]) -> None:
    toy = shared("deep")
    assert_same(*both("FinerCAM", toy.module, [layer_of(toy)], images(), None, **call))


@pytest.mark.parametrize(
    "options",
    [{}, {"pool": "max"}, {"smooth": False, "pre_filter_ratio": 0.3}, {"window_size": 12, "step_size": 5}],
    ids=str,
)
@pytest.mark.parametrize("scores", [True, False], ids=["softmax", "raw"])
def test_sess_agrees_above_rounding(options: dict[str, Any], scores: bool) -> None:
    toy = shared("deep")
    options = {**options, "num_scales": 4, "theta": 1e-4, "use_softmax_scores": scores}
    a, b = both("SESS", toy.module, [layer_of(toy)], images(), targets_of([1, 2]), options=options)
    assert_same(a, b)


def test_volumes_agree_with_cubic_splines() -> None:
    pytest.importorskip("scipy")
    with torch.random.fork_rng():
        torch.manual_seed(2)
        features = nn.Sequential(nn.Conv3d(1, 6, 3, 2), nn.ReLU())
        net = nn.Sequential(features, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(6, 4)).eval()
        x = torch.randn(2, 1, 9, 11, 13)
    for name in ("GradCAM", "GradCAMPlusPlus", "LayerCAM"):
        a, b = both(name, net, [features], x, targets_of([1, 2]), strict_compat=True)
        assert_same(a, b, 1e-4)
        smooth = getattr(ours, name)(net, [features])(x, targets_of([1, 2]))
        assert smooth.shape == (2, 9, 11, 13)
        assert np.abs(smooth - a).max() > 0.01
