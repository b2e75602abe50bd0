"""Volumes: what masks of them take, a video network, and other libraries on the same network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastcam import CAM
from fastcam.model.folded import fold
from tests.networks_ranks import SIZES, TAILS, images, kinds, shared

pytestmark = pytest.mark.usefixtures("one_thread")


class _Largest(TorchDispatchMode):
    """The largest tensor that any operation gives, in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [t.untyped_storage().nbytes() for t in tree_leaves(out) if isinstance(t, Tensor)]
        self.bytes = max(self.bytes, *sizes, 0) if sizes else self.bytes
        return out


def test_masks_of_volumes_stay_within_the_memory() -> None:
    k, limit = kinds(3), 2 << 20
    torch.manual_seed(0)
    features = nn.Sequential(k["Conv"](1, 96, 4, 4), nn.ReLU())
    module = nn.Sequential(features, k["AdaptiveAvgPool"](1), nn.Flatten(), nn.Linear(96, 3)).eval()
    x, rows = torch.randn(1, 1, 24, 32, 32), []
    features.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    with _Largest() as largest:
        maps = CAM(module, "scorecam", "0", max_memory=limit)(x, target=1)
    assert max(rows) > 1  # chunks, and small ones: a row is 96 kB, its activations 144 kB
    assert sum(rows) >= 97
    assert largest.bytes <= limit < 96 * x.numel() * 4
    torch.testing.assert_close(maps, CAM(module, "scorecam", "0", batch_size=96)(x, target=1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", TAILS)
@pytest.mark.parametrize("rank", SIZES)
def test_batch_norm_goes_into_the_weights(rank: int, name: str) -> None:
    module, x = shared(rank, name).module, images(rank)
    with torch.no_grad():
        folded = fold(module, x[:1])
        assert folded is not None
        torch.testing.assert_close(folded(x), module(x), rtol=1e-5, atol=1e-6)
    norms = (nn.BatchNorm1d, nn.BatchNorm3d)
    left = 1 if name == "norm_relu" else 0  # one that stands behind another norm
    assert sum(isinstance(m, norms) for m in folded.modules()) == left
    assert sum(isinstance(m, norms) for m in module.modules()) > left


def test_a_video_network() -> None:
    video = pytest.importorskip("torchvision.models.video")
    torch.manual_seed(0)
    module = video.r3d_18(weights=None).eval()
    clip, expected = torch.randn(1, 3, 16, 32, 32), (1, 16, 32, 32)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    for method, options in (
        ("gradcam", {}), ("scorecam", {"budget": 3}), ("ablationcam", {}), ("reciprocam", {}), ("eigencam", {}),
    ):  # fmt: skip
        exp = CAM(module, method, **options).explain(clip)
        assert exp.layer == ["layer4"]
        assert exp.maps.shape == expected
        assert exp.raw.shape == (1, 2, 2, 2)
        assert exp.cost.tails == exp.cost.backwards == 0  # a pooled tail
    inner = CAM(module, "gradcam", "layer3.1").explain(clip)
    assert inner.raw.shape == (1, 4, 4, 4)
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in before.items())


@pytest.mark.parametrize("name", ["linear", "deep"])
def test_peers_on_volumes(name: str) -> None:
    """Raw Grad-CAM of torchcam and of pytorch-grad-cam; what they show differs: the latter resizes by cubic splines."""
    torchcam = pytest.importorskip("torchcam.methods")
    grad_cam = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    module, x = shared(3, name).module, images(3)
    own = CAM(module, "gradcam", "features").explain(x, target=torch.tensor([1, 2])).raw.relu()
    with torchcam.GradCAM(module, "features") as peer:
        (found,) = peer([1, 2], module(x), normalized=False)
    torch.testing.assert_close(found, own, rtol=1e-4, atol=1e-6)
    with grad_cam.GradCAM(module, [module.features]) as peer:
        a = module.features(x)
        scores = module.tail(a)
        (g,) = torch.autograd.grad(scores[0, 1] + scores[1, 2], a)
        weights = peer.get_cam_weights(x, module.features, None, a.detach().numpy(), g.numpy())
        raw = (torch.from_numpy(weights)[..., None, None, None] * a.detach()).sum(1).relu()
        shown = torch.from_numpy(peer(x, [targets.ClassifierOutputTarget(c) for c in (1, 2)]))
    torch.testing.assert_close(raw, own, rtol=1e-4, atol=1e-6)
    assert shown.shape == (2, *SIZES[3])
