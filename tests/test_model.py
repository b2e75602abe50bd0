"""Capture, pooled tail and cut on real architectures: each shortcut against the whole model."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from fastcam import CAM
from fastcam.ask import Question
from fastcam.ask.masked import layer_scores
from fastcam.model import layers
from fastcam.model.capture import evaluation
from fastcam.model.network import Network
from fastcam.model.tails import CutTail, WholeModel
from fastcam.targets import resolve
from tests.zoo import ZOO, build, images

RELATIVE = 2e-4  # of the largest value; a cut graph sums in another order, over up to 50 layers


def agree(one, other, within=RELATIVE):
    one, other = one.detach(), other.detach()
    scale = other.abs().max().clamp_min(1e-12)
    return float((one - other).abs().max() / scale) <= within


def see(model, x, layer, *, grad=False):
    return Network(model).forward(x, (), {}, layer, grad=grad)[0]


class Counter:
    """Counts the forwards of a model."""

    def __init__(self, model):
        self.count = 0
        self.handle = model.register_forward_hook(lambda *_: setattr(self, "count", self.count + 1))


@pytest.mark.parametrize("entry", ZOO, ids=str)
def test_default_layer_is_guessed_and_found(entry):
    model = build(entry)
    infos = layers.list_layers(model, images(entry, 1))
    assert [info.name for info in infos if info.default] == [entry.default]
    assert layers.guess(model) == entry.default


@pytest.mark.parametrize("entry", ZOO, ids=str)
def test_first_explanation_costs_one_forward(entry):
    model = build(entry)
    cam = CAM(model, "gradcam")
    cam.network.facts = type(cam.network.facts)()  # as if the model had never been seen
    counter = Counter(model)
    explanation = cam.explain(images(entry, 1))
    counter.handle.remove()
    assert counter.count == 1
    assert explanation.layer == [entry.default]
    with evaluation(model), torch.no_grad():
        assert agree(explanation.logits, model(images(entry, 1)), 1e-5)


@pytest.mark.parametrize("entry", ZOO, ids=str)
def test_pooled_tail_is_found_where_it_is(entry):
    model, x = build(entry), images(entry)
    assert kind_of(see(model, x, None).pooled) == entry.tail
    assert see(model, x, entry.inner).pooled is None or entry.inner == "conv_head"


def kind_of(tail):
    """How a tail is pooled, in a word."""
    if tail is None:
        return ""
    if tail.structure.psi:
        return "conv"
    return "relu" if tail.structure.relu else "linear" if tail.linear is not None else "general"


@pytest.mark.parametrize("entry", ZOO, ids=str)
def test_gradient_equals_that_of_the_whole_model(entry):
    model, x = build(entry), images(entry)
    for layer in (entry.default, entry.inner):
        forward = see(model, x, layer, grad=True)
        classes = forward.logits.detach().argmax(1, keepdim=True)
        found = forward.gradients(lambda s, c=classes: s.gather(1, c), classes)[:, 0]
        module, kept = dict(model.named_modules())[layer], []
        handle = module.register_forward_hook(lambda _m, _i, out, kept=kept: (kept.append(out), out * 1)[1])
        logits = model(x.clone().requires_grad_())
        handle.remove()
        (expected,) = torch.autograd.grad(logits.gather(1, classes).sum(), kept[-1])
        maps = forward.captured.layout.maps(expected)
        assert agree(found.expand_as(maps), maps)
        assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("entry", ZOO, ids=str)
def test_tails_equal_the_whole_model(entry):
    model, x = build(entry), images(entry)
    for layer in {entry.inner} if entry.tail else {entry.inner, entry.default}:
        forward = see(model, x, layer)
        maps = forward.captured.maps
        some = torch.rand(3, *maps.shape[1:], generator=torch.Generator().manual_seed(2)) * maps[1]
        expected = WholeModel(forward)(some, 1)
        assert forward.split is not None
        assert agree(CutTail(forward, forward.split)(some, 1), expected)
        assert agree(CutTail(forward, forward.split)(maps[:1], 0), forward.logits[:1])


@pytest.mark.parametrize("entry", [e for e in ZOO if e.tail], ids=str)
def test_pooled_tail_equals_the_whole_model(entry):
    model, x = build(entry), images(entry)
    forward = see(model, x, None)
    maps = forward.captured.maps
    some = torch.rand(3, *maps.shape[1:], generator=torch.Generator().manual_seed(2)) * maps[1]
    assert forward.pooled is not None
    assert agree(forward.pooled(some), WholeModel(forward)(some, 1))


@pytest.mark.parametrize("method", ["ablationcam", "reciprocam"])
@pytest.mark.parametrize("entry", [e for e in ZOO if e.tail], ids=str)
def test_closed_form_equals_masked_forwards(entry, method):
    model, x = build(entry), images(entry, 1)
    forward, cam = see(model, x, None), CAM(model, method)
    assert forward.pooled is not None
    target = resolve(None, forward.logits, 1)
    question = Question(cam.method, cam.options, cam.network, x, (), {}, None, None, cam.budget)
    closed = layer_scores(question, forward, target)[0, 0]
    maps, c = forward.captured.maps, int(target.classes)
    cells = maps.shape[-2] * maps.shape[-1]
    count = maps.shape[1] if method == "ablationcam" else cells
    for k in range(0, count, max(1, count // 6)):
        if method == "ablationcam":
            masked = maps.index_fill(1, torch.tensor(k), 0.0)
        else:
            masked = maps * (torch.arange(cells) == k).view(maps.shape[-2:])
        logits = WholeModel(forward)(masked, 0)
        size = logits.abs().max()
        expected, scale = logits[0, c], size
        if method == "reciprocam":
            expected = logits.softmax(1)[0, c]
            scale = expected * size.clamp_min(1)
        assert abs(closed[k] - expected) <= RELATIVE * scale


class Gate(nn.Module):
    """A model that torch.export cannot capture, because it decides by its data."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU())
        self.next = nn.Conv2d(6, 6, 3)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        y = self.next(self.layer(x))
        if float(y.sum()) > 0:
            y = y * 2
        return self.head(y.relu().mean((-2, -1)))


def test_model_that_cannot_be_cut_falls_back_and_says_so_once():
    torch.manual_seed(0)
    model, x = Gate().eval(), torch.rand(2, 3, 20, 28)
    with pytest.warns(UserWarning, match="cannot be cut at 'layer'"):
        first = CAM(model, "reciprocam", "layer").explain(x, target=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = CAM(model, "reciprocam", "layer").explain(x, target=1)
    assert torch.equal(first.raw, again.raw)
    maps = see(model, x, "layer").captured.maps
    one = torch.zeros_like(maps[:1])
    one[:, :, 2, 3] = maps[:1, :, 2, 3]
    expected = WholeModel(see(model, x, "layer"))(one, 0).softmax(1)[0, 1]
    assert torch.allclose(first.raw[0, 2, 3], expected, rtol=1e-5)


class Reused(nn.Module):
    """A model whose one layer is fed again; its last run is the one that counts."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.head = nn.Linear(3, 4)

    def forward(self, x):
        return self.head(self.conv(self.conv(x).relu()).relu().mean((-2, -1)))


def test_layer_that_runs_twice_gives_its_last_run():
    torch.manual_seed(0)
    model, x = Reused().eval(), torch.rand(1, 3, 8, 8)
    with evaluation(model), torch.no_grad():
        last = model.conv(model.conv(x).relu())
    assert torch.allclose(see(model, x, "conv", grad=True).captured.maps.detach(), last)


def test_changed_weights_change_the_cut():
    torch.manual_seed(0)
    entry = ZOO[0]
    model, x = build(entry), images(entry, 1)
    before = CAM(model, "reciprocam", "layer3").explain(x, target=3)
    saved = model.fc.bias.detach().clone()
    try:
        with torch.no_grad():
            model.fc.bias[3] += 2.0
        after = CAM(model, "reciprocam", "layer3").explain(x, target=3)
    finally:
        with torch.no_grad():
            model.fc.bias.copy_(saved)
    assert float(after.raw.min()) > 2 * float(before.raw.min())


def test_changed_head_is_noticed():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    x = torch.rand(1, 3, 16, 16)
    assert see(model, x, "1").pooled is not None
    model[4] = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    tail = see(model, x, "1").pooled
    assert tail is not None
    assert tail.linear is None
    assert agree(tail(see(model, x, "1").captured.maps), model(x))
