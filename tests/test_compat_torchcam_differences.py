"""Where our extractors differ from torchcam's on purpose: that they do, that ours is what the equation says."""

from __future__ import annotations

import copy
import importlib

import pytest
import torch
from torch import Tensor, nn

theirs = pytest.importorskip("torchcam.methods")

import fastcam  # noqa: E402
from fastcam.compat import strict_compat  # noqa: E402
from fastcam.compat.differences import DIFFERENCES  # noqa: E402
from fastcam.compat.torchcam import methods as ours  # noqa: E402
from tests.networks import settle  # noqa: E402
from tests.torchcam_both import CLASSES, LAYERS, NETWORKS, SEED, ask, distance, inputs, pictures  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]

CLOSE = 1e-5
DIFFER = 1e-2


def test_every_row_is_filled_and_names_an_extractor():
    rows = [row for row in DIFFERENCES if row.peer == "torchcam"]
    assert all(all((row.what, row.theirs, row.ours, row.reason, row.source, row.switch)) for row in rows)
    assert {"GradCAMpp (and RefineCAM by default)", "SmoothGradCAMpp"} <= {row.what for row in rows}


def scaled(raw: Tensor) -> Tensor:
    raw = raw.relu() - raw.relu().amin((1, 2), keepdim=True)
    return raw / raw.amax((1, 2), keepdim=True)


def test_gradcampp_divides_alpha():
    x = inputs("pictures")
    (found,) = ask(ours, "GradCAMpp", "pictures", x, "2", call={"class_idx": [1, 3]})
    (other,) = ask(theirs, "GradCAMpp", "pictures", x, "2", call={"class_idx": [1, 3]})
    net, classes = pictures(), torch.tensor([1, 3])
    a = net[:3](x).detach().requires_grad_()
    (g,) = torch.autograd.grad(net[3:](a).gather(1, classes[:, None]).sum(), a)
    below = 2 * g**2 + g**3 * a.sum((2, 3), keepdim=True) + 1e-8
    right = torch.einsum("bk,bkij->bij", (g**2 / below * g.relu()).sum((2, 3)), a).detach()
    cubed = torch.einsum("bk,bkij->bij", g.relu().pow(3).sum((2, 3)), a).detach()
    assert distance([found], [scaled(right)]) < CLOSE
    assert distance([other], [scaled(cubed)]) < CLOSE
    assert distance([found], [other]) > DIFFER


def test_smoothgradcampp_is_of_the_clean_image():
    x = inputs("pictures")
    call = {"class_idx": [1, 3]}
    (found,) = ask(ours, "SmoothGradCAMpp", "pictures", x, "2", call=call, num_samples=3, std=0.5)
    (other,) = ask(theirs, "SmoothGradCAMpp", "pictures", x, "2", call=call, num_samples=3, std=0.5)
    net, classes, generator = pictures(), torch.tensor([1, 3]), torch.Generator().manual_seed(SEED)
    gradients = []
    for _ in range(3):
        a = net[:3](x + 0.5 * torch.randn(x.shape, generator=generator)).detach().requires_grad_()
        gradients += torch.autograd.grad(net[3:](a).gather(1, classes[:, None]).sum(), a)
    g, a = torch.stack(gradients), net[:3](x).detach()
    d1, d2, d3 = g.mean(0), (g**2).mean(0), (g**3).mean(0)
    alpha = d2 / (2 * d2 + a.sum((2, 3), keepdim=True) * d3 + 1e-8)
    right = torch.einsum("bk,bkij->bij", (alpha * d1.relu()).sum((2, 3)), a)
    assert distance([found], [scaled(right)]) < CLOSE
    assert distance([found], [other]) > DIFFER


@pytest.mark.parametrize("name", ["SSCAM", "SmoothGradCAMpp"])
def test_noise_leaves_the_random_state_alone(name):
    x, net = inputs("pictures"), pictures()
    with getattr(ours, name)(net, "2", num_samples=2) as extractor:
        scores = net(x)
        torch.manual_seed(11)
        before = torch.get_rng_state()
        first, again = (extractor(1, scores, retain_graph=True) for _ in range(2))
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(12)
        other = extractor(1, scores, retain_graph=True)
    assert distance(first, again) < CLOSE
    assert distance(first, other) > DIFFER


def test_sscam_with_the_same_noise():
    """Theirs takes the noise of all masks of a sample at once; ours that of all samples of a mask."""
    x, net, samples = inputs("pictures"), pictures(), 3
    (found,) = ask(ours, "SSCAM", net, x, "4", num_samples=samples, std=1.5)
    generator = torch.Generator().manual_seed(SEED)
    drawn = torch.stack([torch.randn(samples, *x.shape[2:], generator=generator) for _ in range(2 * 8)])
    noise = iter((1.5 * drawn).view(2, 8, samples, *x.shape[2:]).unbind(2))
    with theirs.SSCAM(net, "4", num_samples=samples, std=1.5) as extractor:
        net(x)
        extractor._distrib = type("Given", (), {"sample": staticmethod(lambda size: next(noise))})
        (expected,) = extractor(1)
    assert next(noise, None) is None
    assert distance([found], [expected]) < CLOSE


def test_smoothgradcampp_leaves_batch_statistics_alone():
    net = pictures().train()
    before = copy.deepcopy(net.state_dict())
    with ours.SmoothGradCAMpp(net, "2") as extractor:
        with torch.no_grad():
            net.eval()(inputs("pictures"))
            net.train()
        extractor(1)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def before_relu(inplace: bool) -> nn.Module:
    layers = [nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(inplace), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU(inplace)]
    return settle(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)), 6)


@pytest.mark.parametrize("name", ["CAM", "GradCAM", "XGradCAM", "ScoreCAM"])
def test_in_place_relu(name):
    x = inputs("pictures")
    found, apart = ask(ours, name, before_relu(True), x, "2"), ask(theirs, name, before_relu(False), x, "2")
    overwritten = ask(theirs, name, before_relu(True), x, "2")
    assert distance(found, apart) < CLOSE
    assert distance(overwritten, apart) > DIFFER
    assert distance(ask(ours, name, before_relu(True), x, "2", strict_compat=True), overwritten) < CLOSE


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["CAM", "GradCAM", "GradCAMpp", "XGradCAM", "LayerCAM", "ScoreCAM"])
def test_half_precision(name, half):
    x, net = inputs("pooled").to(half), NETWORKS["pooled"]().to(half)
    (found,) = ask(ours, name, net, x, "1")
    (full,) = ask(ours, name, copy.deepcopy(net).float(), x.float(), "1")
    assert found.dtype == half
    assert torch.isfinite(found).all()
    assert distance([found.float()], [full]) < (0.05 if half == torch.bfloat16 else 0.01)


def test_float16_of_torchcam_is_nan():
    """A dead channel is 0 / 0 where 1e-8 rounds to zero, and then each score."""
    net = before_relu(False)
    net[2].weight.data[3], net[2].bias.data[3] = 0, -1
    net, x = net.half(), inputs("pictures").half()
    assert ask(theirs, "ScoreCAM", net, x, "3")[0].isnan().any()
    assert torch.isfinite(ask(ours, "ScoreCAM", net, x, "3")[0]).all()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ["GradCAM", "GradCAMpp", "XGradCAM", "LayerCAM", "FinerCAM", "SmoothGradCAMpp"])
def test_no_grad(name, mode):
    x, net = inputs("pictures"), pictures()
    expected = ask(ours, name, "pictures", x)
    with mode(), getattr(ours, name)(net, LAYERS["pictures"]) as extractor:
        scores = net(inputs("pictures"))
        torch.manual_seed(SEED)
        assert distance(extractor(1, scores), expected) < CLOSE
        torch.manual_seed(SEED)
        assert distance(extractor(1, scores), expected) < CLOSE
    assert all(p.grad is None for p in net.parameters())


def test_no_grad_of_torchcam_and_of_changed_scores():
    for lib in (ours, theirs):
        net = pictures()
        with torch.no_grad(), lib.GradCAM(net, "2") as extractor:
            scores = net(inputs("pictures"))
            with pytest.raises(RuntimeError, match="not connected to every target layer"):
                extractor(1, scores.softmax(1))


def test_frozen_parameters():
    x = inputs("pictures")
    for name in ("GradCAM", "LayerCAM", "SmoothGradCAMpp"):
        net = pictures().requires_grad_(False)
        expected = ask(ours, name, "pictures", x)
        with getattr(ours, name)(net, LAYERS["pictures"]) as extractor:
            scores = net(x)
            torch.manual_seed(SEED)
            assert distance(extractor(1, scores), expected) < CLOSE
        assert not any(p.requires_grad for p in net.parameters())
    net = pictures().requires_grad_(False)
    with theirs.GradCAM(net, "2") as extractor, pytest.raises(RuntimeError):
        extractor(1, net(x))


class Heads(nn.Module):
    """A network that gives its scores by name, or in a tuple."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.body, self.kind = pictures(), kind

    def forward(self, x: Tensor) -> dict | tuple:
        scores = self.body(x)
        return {"a": scores, "b": -scores} if self.kind is dict else (scores, -scores)


@pytest.mark.parametrize("kind", [dict, tuple])
@pytest.mark.parametrize("name", ["GradCAM", "ScoreCAM", "ISCAM", "SmoothGradCAMpp"])
def test_outputs_with_parts(name, kind):
    x, key = inputs("pictures"), "b" if kind is dict else 1
    targets = [lambda sample: sample[key][2], lambda sample: sample[key].square().sum()]
    plain = [lambda row: -row[2], lambda row: row.square().sum()]
    found = ask(ours, name, Heads(kind), x, "body.2", call={"targets": targets})
    assert distance(found, ask(ours, name, "pictures", x, "2", call={"targets": plain})) < CLOSE
    with pytest.raises(TypeError):
        ask(theirs, name, Heads(kind), x, "body.2", call={"targets": targets})


class Weighed(nn.Module):
    """A network of an image and a weight for each, by position and by name."""

    def __init__(self) -> None:
        super().__init__()
        self.body = pictures()

    def forward(self, x: Tensor, weight: Tensor, *, sign: Tensor) -> Tensor:
        return (self.body(x) * weight).tanh() * sign


@pytest.mark.parametrize("name", ["ScoreCAM", "SmoothGradCAMpp", "GradCAM"])
def test_further_inputs(name):
    x, weight, sign = inputs("pictures"), torch.tensor([[0.5], [2.0]]), torch.tensor([[1.0], [-1.0]])
    found, alone = [], []
    for b in (slice(0, 2), slice(1, 2)):
        net = Weighed()
        with torch.no_grad(), getattr(ours, name)(net, "body.2") as extractor:
            out = net(x[b], weight[b], sign=sign[b])
            (found if b.start == 0 else alone).extend(extractor(1, out))
    if name != "SmoothGradCAMpp":  # its noise is that of the batch
        assert distance([found[0][1:]], alone) < CLOSE
    assert torch.isfinite(found[0]).all()


def test_signals():
    x = inputs("signals")
    for name in ("ScoreCAM", "SSCAM", "ISCAM"):
        found = ask(ours, name, "signals", x)
        assert [tuple(cam.shape) for cam in found] == [(2, 20), (2, 10)]
        with pytest.raises(ValueError, match="align_corners"):
            ask(theirs, name, "signals", x)
    (raw,) = ask(ours, "ScoreCAM", "signals", x, "1", call={"class_idx": 1, "normalized": False})
    exp = fastcam.CAM(NETWORKS["signals"](), "scorecam", "1", normalize="before").explain(x, target=1)
    assert distance([raw], [exp.raw.relu()]) < CLOSE
    cams = ask(ours, "LayerCAM", "signals", x)
    resized = torch.nn.functional.interpolate(cams[1][:, None], 20, mode="linear")[:, 0]
    assert distance([ours.GradCAM.fuse_cams(cams)], [torch.maximum(cams[0], resized)]) < CLOSE


def test_class_that_the_model_does_not_have():
    for name, error in (("GradCAM", IndexError), ("LayerCAM", IndexError), ("ScoreCAM", ValueError)):
        for classes in (CLASSES, [0, CLASSES]):
            with pytest.raises(error, match=f"{CLASSES}"):
                ask(ours, name, "pictures", inputs("pictures"), call={"class_idx": classes})


def test_layers_are_found_in_half_precision_and_beside_tuples():
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.rnn, self.fc = nn.Conv2d(3, 4, 3), nn.GRU(4, 4, batch_first=True), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.rnn(self.conv(x).flatten(2).transpose(1, 2))[0][:, -1])

    find = importlib.import_module("torchcam.methods._utils").locate_candidate_layer
    mine = importlib.import_module("fastcam.compat.torchcam.methods._utils").locate_candidate_layer
    assert mine(Recurrent(), (3, 8, 8)) == "conv"
    assert mine(Recurrent().bfloat16(), (3, 8, 8)) == "conv"
    with pytest.raises(RuntimeError, match="type"):
        find(Recurrent().bfloat16(), (3, 8, 8))


def test_strict_for_all():
    try:
        strict_compat(True)
        with ours.GradCAM(pictures(), "2") as all_strict, ours.GradCAM(pictures(), "2", strict_compat=False) as one_not:
            assert all_strict._strict
            assert not one_not._strict
    finally:
        strict_compat(False)
    with ours.GradCAM(pictures(), "2") as usual:
        assert not usual._strict
