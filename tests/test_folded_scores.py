"""Folded networks under the score methods: when they are used, when not, and what they must never change."""

from __future__ import annotations

import copy
import gc
import warnings
import weakref

import torch
from torch import nn

from fastcam import CAM, engines
from fastcam.model.folded import copied_bytes, fold
from fastcam.model.onednn import Convolution
from tests import networks
from tests.small import images, network

ROWS = 6  # images of the small network with 12 channels: enough masks for folding to pay


def kinds(module):
    return [m.unary[0] for m in module.modules() if isinstance(m, Convolution)]


class Choosy(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x):
        return self.net(x if float(x.sum()) > -1e9 else -x)


def test_what_cannot_be_traced_or_gains_nothing_is_not_folded():
    with torch.inference_mode():
        assert fold(Choosy().eval(), images(1)) is None
        assert fold(networks.shared("vit").module, networks.images(1)) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = Choosy().eval()
        maps = CAM(net, "scorecam", "net.0")(images(ROWS))
    assert torch.allclose(maps, CAM(net.net, "scorecam")(images(ROWS)), atol=1e-4)


def test_float64_and_float16_models():
    for dtype, near in ((torch.float64, 1e-6), (torch.float16, 1e-2)):
        net, x = network().to(dtype), images(ROWS).to(dtype)
        cam = CAM(net, "scorecam")
        expected = CAM(network(), "scorecam")(images(ROWS))
        assert (cam(x) - expected).abs().max() < near


def folded_engine(cam):
    return [engine for engine in cam.network.facts.engines.values() if engine is not None]


def test_many_rows_run_folded_few_do_not(monkeypatch):
    net = network()
    cam = CAM(net, "scorecam")
    cam(images(1))
    assert folded_engine(cam) == []
    cost = cam.explain(images(ROWS)).cost
    (engine,) = folded_engine(cam)
    assert kinds_of(engine)
    few = cam.explain(images(1)).cost  # made already
    monkeypatch.setattr(engines, "find", lambda *_: None)
    plain = CAM(network(), "scorecam")
    assert torch.allclose(cam(images(ROWS)), plain(images(ROWS)), atol=1e-6)
    for found, x in ((cost, images(ROWS)), (few, images(1))):
        assert found.forwards == plain.explain(x).cost.forwards + 1  # the proof


def kinds_of(engine):
    (cell,) = [c.cell_contents for c in engine.run.__closure__ if isinstance(c.cell_contents, nn.Module)]
    return kinds(cell)


def test_changed_weights_are_seen():
    net, x = network(), images(ROWS)
    cam = CAM(net, "scorecam")
    before = cam(x)
    (first,) = folded_engine(cam)
    with torch.no_grad():
        net[3].weight.mul_(-8.0)  # counted by torch
    changed = cam(x)
    net[0][0].weight.data.mul_(torch.linspace(-8, 8, 8)[:, None, None, None])  # behind torch's back
    after = cam(x)
    assert folded_engine(cam) != [first]
    for maps, expected in ((changed, before), (after, changed)):
        assert (maps - expected).abs().max() > 0.01
    fresh = CAM(copy.deepcopy(net), "scorecam")
    assert torch.allclose(after, fresh(x), atol=1e-6)


class Wrapped(torch.Tensor):
    """A weight without memory of its own, as quantized ones are."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        bare = torch.utils._pytree.tree_map(lambda t: t.inner if isinstance(t, cls) else t, (args, kwargs or {}))
        result = function(*bare[0], **bare[1])
        return cls(result) if function is torch.ops.aten.detach.default else result


def test_weights_that_are_no_plain_tensors():
    net, x = network(), images(ROWS)
    expected = CAM(net, "scorecam")(x)
    net[3].weight = nn.Parameter(Wrapped(net[3].weight.detach()), requires_grad=False)
    cam = CAM(net, "scorecam")
    assert torch.allclose(cam(x), expected, atol=1e-6)
    net[3].weight = nn.Parameter(Wrapped(-8 * net[3].weight.inner), requires_grad=False)
    assert (cam(x) - expected).abs().max() > 0.01


def test_hooks_keep_running():
    net, x, seen = network(), images(ROWS), []
    cam = CAM(net, "scorecam")
    expected = cam(x)
    net[0][0].register_forward_hook(lambda module, given, output: seen.append(len(output)) or output * 1.0)
    assert torch.allclose(cam(x), expected, atol=1e-6)
    assert sum(seen) > ROWS * 12


def test_another_network_is_not_used(monkeypatch):
    net, x = network(), images(ROWS)
    monkeypatch.setattr(engines, "fold", lambda *_: network(seed=1))
    cam = CAM(net, "scorecam")
    maps = cam(x)
    assert folded_engine(cam) == []
    monkeypatch.undo()
    assert torch.allclose(maps, CAM(copy.deepcopy(net), "scorecam")(x), atol=1e-6)


def test_a_small_budget_keeps_no_copy():
    net = network()
    cam = CAM(net, "scorecam", max_memory=2 * copied_bytes(net) - 1)
    cam(images(ROWS))
    assert folded_engine(cam) == []


def test_the_model_is_let_go():
    net = network()
    CAM(net, "scorecam")(images(ROWS))
    gone = weakref.ref(net)
    del net
    gc.collect()
    assert gone() is None


def test_half_precision():
    net, x, dtype = network(), images(ROWS), torch.bfloat16
    with torch.inference_mode(), torch.autocast("cpu", dtype=dtype):
        folded = fold(net, x[:1], dtype)
        found = folded(x)
        assert found.dtype == dtype
    assert all(m.weight.dtype == dtype for m in folded.modules() if isinstance(m, Convolution))
    assert (found.float() - net(x)).abs().max() < 0.05 * net(x).abs().max()
    maps, expected = CAM(net, "scorecam", precision="bfloat16")(x), CAM(net, "scorecam")(x)
    assert torch.corrcoef(torch.stack([maps.flatten(), expected.flatten()]))[0, 1] > 0.99
