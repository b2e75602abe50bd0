"""Our extractors and torchcam's on the same networks: the same maps, by the same calls."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

theirs = pytest.importorskip("torchcam.methods")
torchvision = pytest.importorskip("torchvision")

import fastcam.compat.torchcam  # noqa: E402
from fastcam.compat.torchcam import methods as ours  # noqa: E402
from fastcam.compat.torchcam.methods import core  # noqa: E402
from tests.networks import settle  # noqa: E402
from tests.torchcam_both import NETWORKS, ask, distance, inputs, pictures  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]

CLOSE = 5e-6  # of maps in [0, 1]; the largest that was seen is 2.6e-6, of a softmax over scores in other chunks

# What of each extractor is torchcam's without `strict_compat`.
SAME = {"GradCAM": {}, "XGradCAM": {}, "LayerCAM": {}, "ScoreCAM": {}, "ISCAM": {"num_samples": 3}}
STRICT = {"GradCAMpp": {}, "SmoothGradCAMpp": {"num_samples": 3}, "SSCAM": {"num_samples": 3}}
EACH = [pytest.param(name, {}, options, id=name) for name, options in SAME.items()]
EACH += [pytest.param(name, {"strict_compat": True}, options, id=f"{name}-strict") for name, options in STRICT.items()]

CALLS = {
    "class": {"class_idx": 1},
    "classes": {"class_idx": [1, 3]},
    "target": {"targets": lambda row: row[2] - row[0]},
    "targets": {"targets": [lambda row: row[2] ** 2, lambda row: row[0] * row[1]]},
    "not normalized": {"class_idx": [0, 2], "normalized": False},
}


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
@pytest.mark.parametrize(("name", "strict", "options"), EACH)
def test_same_maps_of_pictures(name, strict, options, call):
    x = inputs("pictures")
    found = ask(ours, name, "pictures", x, call=call, **options, **strict)
    expected = ask(theirs, name, "pictures", x, call=call, **options)
    assert distance(found, expected) < CLOSE
    assert float(expected[0].std()) > 0.02 * float(expected[0].max())


@pytest.mark.parametrize(("name", "strict", "options"), EACH)
def test_same_maps_of_volumes(name, strict, options):
    x, call = inputs("volumes"), {"class_idx": [1, 2]}
    found = ask(ours, name, "volumes", x, call=call, **options, **strict)
    assert distance(found, ask(theirs, name, "volumes", x, call=call, **options)) < CLOSE


@pytest.mark.parametrize("name", ["GradCAM", "XGradCAM", "LayerCAM"])
def test_same_maps_of_signals(name):
    x = inputs("signals")
    assert distance(ask(ours, name, "signals", x), ask(theirs, name, "signals", x)) < CLOSE


def test_cam_is_signed():
    x = inputs("pooled")
    for call in ({"class_idx": 1}, {"class_idx": [1, 3]}, {"class_idx": 1, "normalized": False}):
        found, expected = ask(ours, "CAM", "pooled", x, call=call), ask(theirs, "CAM", "pooled", x, call=call)
        assert distance(found, expected) < CLOSE
    assert float(found[0].min()) < -0.01


@pytest.mark.parametrize(("name", "layer"), [("GradCAM", None), ("ScoreCAM", "layer2")])
def test_same_maps_of_resnet(name, layer):
    """No layer named: both find layer4; Score-CAM's 128 masks of 8 x 8 cells."""
    block = torchvision.models.resnet.BasicBlock
    net = settle(torchvision.models.ResNet(block, [1, 1, 1, 1], num_classes=6), 5)
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    assert distance(ask(ours, name, net, x, layer), ask(theirs, name, net, x, layer)) < CLOSE


def tokens_to_grid(t: Tensor) -> Tensor:
    return t[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)


def transformer() -> nn.Module:
    make = torchvision.models.vision_transformer.VisionTransformer
    net = make(image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=6)
    return settle(net, 4)


@pytest.mark.parametrize(
    ("name", "options"), [("LayerCAM", {}), ("GradCAM", {}), ("ScoreCAM", {}), ("ScoreCAM", {"batch_size": 5})]
)
def test_same_maps_of_tokens(name, options):
    x, layer = (
        torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2)),
        "encoder.layers.encoder_layer_1.ln_1",
    )
    maps = [
        ask(lib, name, transformer(), x, layer, reshape_transform=tokens_to_grid, **options) for lib in (ours, theirs)
    ]
    assert maps[0][0].shape == (2, 4, 4)
    assert distance(*maps) < CLOSE


@pytest.mark.parametrize("call", [{"class_idx": 1}, {"class_idx": [0, 3], "normalized": False}])
@pytest.mark.parametrize("options", [{}, {"grid_shape": (2, 8)}])
def test_legrad(call, options):
    found = []
    for lib in (ours, theirs):
        net, x = transformer(), torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
        before = net(x)
        with lib.LeGrad(net, list(net.get_submodule("encoder.layers").children()), **options) as extractor:
            scores = net(x)
            torch.testing.assert_close(scores, before, rtol=1e-5, atol=1e-5)
            found.append(extractor(scores=scores, **call))
    assert distance(*found) < CLOSE * (1 if call.get("normalized", True) else float(found[0][0].max()))


@pytest.mark.parametrize("base", ["GradCAM", "LayerCAM", "ScoreCAM"])
@pytest.mark.parametrize("call", [{}, {"normalized": False}, {"target_shape": (9, 11)}])
def test_refinecam(base, call):
    x = inputs("pictures")
    maps = [
        ask(lib, "RefineCAM", "pictures", x, call={"class_idx": [1, 2], **call}, base_method=getattr(lib, base))
        for lib in (ours, theirs)
    ]
    assert distance(*maps) < CLOSE


@pytest.mark.parametrize("comparison_idx", [None, 2, [2, 0], [[2, 4], [0, 1]]])
@pytest.mark.parametrize("base", ["GradCAM", "LayerCAM"])
def test_finercam(base, comparison_idx):
    x = inputs("pictures")
    call = {"class_idx": [1, 3], "comparison_idx": comparison_idx}
    maps = [ask(lib, "FinerCAM", "pictures", x, call=call, base_method=getattr(lib, base)) for lib in (ours, theirs)]
    assert distance(*maps) < CLOSE


@pytest.mark.parametrize("name", ["GradCAM", "LayerCAM"])
@pytest.mark.parametrize("target_shape", [None, (8, 8), (20, 28)])
def test_fuse_cams(name, target_shape):
    x = inputs("pictures")
    cams = ask(theirs, name, "pictures", x)
    fused = [getattr(lib, name).fuse_cams(cams, target_shape) for lib in (ours, theirs)]
    assert distance(fused[:1], fused[1:]) < CLOSE


@pytest.mark.parametrize("shape", [(2, 5, 7), (2, 3, 5, 7)])
def test_normalize(shape):
    cams = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    for dims in (None, 2):
        expected = importlib.import_module("torchcam.methods.core")._CAM._normalize(cams.clone(), dims)
        torch.testing.assert_close(core._CAM._normalize(cams, dims), expected, rtol=0, atol=1e-7)


def test_layers_are_found_as_torchcam_finds_them():
    find = importlib.import_module("torchcam.methods._utils").locate_candidate_layer
    mine = importlib.import_module("fastcam.compat.torchcam.methods._utils").locate_candidate_layer
    models = torchvision.models
    nets = [models.resnet18, models.mobilenet_v3_small, models.squeezenet1_1, models.densenet121, models.convnext_tiny]
    for make in nets:
        net = make(weights=None).eval()
        assert mine(net, (3, 64, 64)) == find(net, (3, 64, 64))
    assert mine(pictures(), (3, 20, 28)) == "7"


def test_names_and_order_of_arguments():
    """Positional calls of old scripts: every parameter of theirs is ours, in its place; ours may have more by name."""
    for name in theirs.__dict__:
        if isinstance(getattr(theirs, name), type) and name[0].isupper():
            mine, other = (list(inspect.signature(getattr(lib, name)).parameters.values()) for lib in (ours, theirs))
            kept = [p for p in mine if p.name != "strict_compat"]
            assert [(p.name, p.kind) for p in kept] == [(p.name, p.kind) for p in other], name
            assert [p.default for p in kept if not isinstance(p.default, type)] == [
                p.default for p in other if not isinstance(p.default, type)
            ]
            for method in ("__call__", "compute_cams", "fuse_cams"):
                mine, other = (
                    inspect.signature(getattr(getattr(lib, name), method)).parameters for lib in (ours, theirs)
                )
                assert list(mine) == list(other), (name, method)


def test_the_package_is_lazy():
    code = "import sys, fastcam.compat.torchcam as t; print('torch' in sys.modules, t.__version__, callable(t.version))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "0.5.0", "True"]
    assert fastcam.compat.torchcam.methods is ours
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        fastcam.compat.torchcam.missing  # noqa: B018


class Waits(TorchDispatchMode):
    """Notes the operations for which a program on a GPU waits: those whose result Python or a shape depends on."""

    names = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "_to_copy", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in self.names:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["CAM", "GradCAM", "GradCAMpp", "XGradCAM", "LayerCAM", "FinerCAM"])
def test_no_gpu_would_be_waited_for(name):
    net, x = NETWORKS["pooled"](), inputs("pooled")
    with getattr(ours, name)(net, "1") as extractor:
        scores = net(x)
        with Waits() as waits:
            extractor([1, 2], scores, retain_graph=True)
            extractor(3, scores)
    assert waits.seen == []
    with Waits() as waits:
        scores.sum().item()
    assert waits.seen
