"""Relevance-CAM and LRP against loops over units on chains of layers, and on a residual block."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from fastcam import CAM, TopK
from tests import formulas_relevance as loops
from tests.networks import CLASSES, TOYS, images, shared

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore:.*cannot be cut")]
CHAINS = ["linear", "signed", "relu_pooled", "norm_relu_pooled", "conv_classifier", "vgg", "deep", "one_row"]
PLUS = {"convolution": "zplus", "dense": "zplus"}
PLAIN = {"average": "zplus", "bias": "none"}
OPTIONS = {"alpha": 2.0, "beta": 1.0, "gamma": 0.25, "epsilon": 1e-6, "bias": "share", "average": "epsilon"}


def double(name: str) -> nn.Module:
    return copy.deepcopy(TOYS[name]().module).double()


def layers_of(module: nn.Module) -> list[nn.Module]:
    return [*module.get_submodule("features"), *module.get_submodule("tail")]


def near(got: Tensor, want: Tensor, share: float = 1e-9) -> None:
    assert float(want.abs().max()) > 0
    torch.testing.assert_close(got, want, rtol=0, atol=share * float(want.abs().max()))


def relevancecam(module: nn.Module, norm: str = "pass", **options) -> Tensor:
    """Of both images and two classes. (2, 2, h, w)"""
    tail = list(module.get_submodule("tail"))
    tail = loops.merged(tail) if norm == "merge" else tail
    with torch.no_grad():
        a = module.get_submodule("features")(images().double())
        each = [
            [
                loops.weighed(one, loops.through(tail, one, loops.contrast(CLASSES, c), PLUS, {**PLAIN, **options}))
                for c in (1, 3)
            ]
            for one in a
        ]
    return torch.stack([torch.stack(row) for row in each])


PAIR = torch.tensor([[1, 3], [1, 3]])


@pytest.mark.parametrize("name", CHAINS)
def test_relevancecam(name: str) -> None:
    module = double(name)
    exp = CAM(module, "relevancecam", "features").explain(images().double(), target=PAIR)
    near(exp.raw, relevancecam(module))
    single = CAM(shared(name).module, "relevancecam", "features").explain(images(), target=PAIR)
    near(single.raw.double(), exp.raw, 1e-4)


@pytest.mark.parametrize("name", ["conv_classifier", "deep"])
def test_the_official_code_counts_a_convolutions_bias_twice(name: str) -> None:
    module = double(name)
    exp = CAM(module, "relevancecam", "features", variant="official").explain(images().double(), target=PAIR)
    want = relevancecam(module, bias="share", twice=True) if name == "conv_classifier" else None
    if want is None:  # a linear layer has none, unlike the loops
        module.get_submodule("tail")[-1].bias.data.zero_()
        want = relevancecam(module, bias="share", twice=True)
    near(exp.raw, want)
    plain = CAM(module, "relevancecam", "features").explain(images().double(), target=PAIR).raw
    assert (plain - exp.raw).abs().max() > 1e-3 * plain.abs().max()


def test_a_norm_joins_the_convolution_in_front_of_it() -> None:
    """Without biases z+ sees of a norm only its sign."""
    module = double("deep")
    norm = next(layer for layer in module.get_submodule("tail") if isinstance(layer, nn.BatchNorm2d))
    norm.weight.data[::2] *= -1
    exp = CAM(module, "relevancecam", "features", norm="merge").explain(images().double(), target=PAIR)
    want = relevancecam(module, "merge")
    near(exp.raw, want)
    assert (want - relevancecam(module)).abs().max() > 1e-3 * want.abs().max()


@pytest.mark.parametrize("name", ["linear", "signed"])
def test_the_closed_form_is_the_walk(name: str) -> None:
    """A function as target has no closed form."""
    module, x = double(name), images().double()
    walked = CAM(module, "relevancecam", "features").explain(x, target=lambda y: y[:, 2])
    closed = CAM(module, "relevancecam", "features").explain(x, target=2)
    near(closed.raw, walked.raw, 1e-12)
    assert (closed.cost.tails, walked.cost.tails) == (0, 2)
    near(CAM(module, "relevancecam", "features").explain(x, target="all").raw[:, 2], closed.raw, 1e-12)


@pytest.mark.parametrize("layer", ["stem", "conv1"])
def test_a_residual_block_shares_in_proportion(layer: str) -> None:
    """At the stem relevance arrives on two ways; at conv1 what the other summand earns is gone."""
    module = copy.deepcopy(TOYS["residual"]().module).double()
    stem, conv1, conv2, fc = (module.get_submodule(n) for n in ("stem", "conv1", "conv2", "fc"))
    x, c, o = images().double(), 1, PLAIN
    exp = CAM(module, "relevancecam", layer).explain(x, target=c)
    pool = nn.AdaptiveAvgPool2d(1)
    for b in range(2):
        with torch.no_grad():
            a = stem(x[b : b + 1])[0]
            before = conv1(a)
            inner = conv2(before.relu())
            y = (a + inner).relu()
            r = loops.back(fc, y.mean((1, 2)), loops.contrast(CLASSES, c), "zplus", o)
            r = loops.back(pool, y, r[:, None, None], "zplus", o)
            around, branch = r * a / (a + inner), r * inner / (a + inner)
            branch = loops.back(conv2, before.relu(), branch, "zplus", o)
            r = around + loops.back(conv1, a, branch, "zplus", o) if layer == "stem" else branch
        near(exp.raw[b], loops.weighed(a if layer == "stem" else before, r))


COMPOSITES = [
    {},
    {"rule": "alphabeta"},
    {"rule": "alphabeta", "alpha": 1.5, "beta": 0.5, "dense": "same", "first": "same"},
    {"rule": "gamma", "first": "box"},
    {"rule": "gamma", "gamma": 0.1, "dense": "same", "first": "same"},
    {"rule": "epsilon", "first": "same", "epsilon": 0.1},
    {"first": "box", "low": -3.0, "high": 2.5, "bias": "none"},
    {"norm": "pass", "first": "same"},
]


@pytest.mark.parametrize(
    ("name", "options"),
    [("deep", options) for options in COMPOSITES] + [(n, o) for n in ("signed", "vgg") for o in COMPOSITES[::3]],
    ids=str,
)
def test_lrp(name: str, options: dict) -> None:
    module, x, c = double(name), images(1).double(), 3
    exp = CAM(module, "lrp", **options).explain(x, target=c)
    o = {**OPTIONS, **options}
    o["low"], o["high"] = o.get("low", float(x.min())), o.get("high", float(x.max()))
    layers = layers_of(module)
    layers = layers if o.get("norm") == "pass" else loops.merged(layers)
    rule = o.get("rule", "zplus")
    rules = {"convolution": rule, "dense": rule if o.get("dense") == "same" else "epsilon"}
    first = o.get("first", "flat")
    rules |= {} if first == "same" else {"first": first}
    with torch.no_grad():
        start = torch.zeros(CLASSES, dtype=torch.float64)
        start[c] = module(x)[0, c]
        want = loops.through(layers, x[0], start, rules, o)
    near(exp.attributions[0], want)
    near(exp.raw[0], want.sum(0))


def test_the_toys_tell_rules_apart() -> None:
    module, x = double("deep"), images(1).double()
    maps = [CAM(module, "lrp", **options).explain(x, target=3).attributions for options in COMPOSITES]
    for i, one in enumerate(maps):
        assert all((one - other).abs().max() > 1e-3 * one.abs().max() for other in maps[:i])


@pytest.mark.parametrize("rule", ["zplus", "alphabeta", "gamma", "epsilon"])
@pytest.mark.parametrize("first", ["flat", "box", "same"])
def test_without_biases_all_relevance_arrives(rule: str, first: str) -> None:
    options = {"rule": rule, "first": first, "bias": "none", "epsilon": 0.0, "norm": "pass"}
    x = images().double()
    for name in ("deep", "residual"):
        exp = CAM(double(name), "lrp", **options).explain(x, target=TopK(3))
        sums = exp.attributions.sum((2, 3, 4))
        if rule == "alphabeta":  # a unit without negative parts has only its positive ones to keep
            assert sums.isfinite().all()
        else:
            torch.testing.assert_close(sums, exp.logits.gather(1, exp.target), rtol=1e-9, atol=1e-9)


class Plain(nn.Module):
    """Without skips, norms and reshaping modules, for which captum has no rules."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU())
        self.head = nn.Sequential(nn.LazyLinear(10), nn.ReLU(), nn.Linear(10, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


def test_captum_walks_the_same_way() -> None:
    """Its epsilon rule everywhere."""
    attr = pytest.importorskip("captum.attr")
    torch.manual_seed(0)
    module, x = Plain(), images()
    module(x)
    module, x = module.double().eval(), x.double()
    theirs = attr.LRP(copy.deepcopy(module)).attribute(x.clone().requires_grad_(), target=2).detach()
    options = {"rule": "epsilon", "dense": "same", "first": "same", "epsilon": 1e-9}
    near(
        CAM(module, "lrp", **options).explain(x, target=2).attributions, theirs, 1e-6
    )  # where z is next to nothing, epsilon decides


class Odd(nn.Module):
    """An operation that no rule knows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.cumsum(self.stem(x), 2).mean((2, 3)))


def test_an_operation_without_a_rule_is_named() -> None:
    model = Odd().eval()
    with pytest.raises(ValueError, match=r"cumsum.* has no relevance rule; use gradcam"):
        CAM(model, "relevancecam", "stem")(images())


def test_numbers_that_cannot_be() -> None:
    model = TOYS["deep"]().module
    with pytest.raises(ValueError, match=r"alpha=2.0 and beta=0.5 must differ by 1"):
        CAM(model, "lrp", rule="alphabeta", beta=0.5)
    with pytest.raises(ValueError, match=r"epsilon=-1 must be a number from 0 on"):
        CAM(model, "lrp", epsilon=-1)
    with pytest.raises(ValueError, match=r"low and high need a number or one for each of the 3 channels"):
        CAM(model, "lrp", first="box", low=[0.0, 1.0])(images())
