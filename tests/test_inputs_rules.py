"""Attributions that change the way back: ReLU rules, DeepLIFT, FullGrad, FGVis, against loops over lists of layers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fastcam import CAM
from tests import formulas, formulas_inputs
from tests.networks import SIZE, Toy, images, pool, settle, shared
from tests.networks_modules import CLASSES, stem
from tests.test_inputs import TARGET, check, explain, near

pytestmark = pytest.mark.usefixtures("one_thread")
CHAINS = ("linear", "relu_pooled", "conv_classifier", "vgg", "deep", "inplace")


def layers_of(toy: Toy) -> list[nn.Module]:
    """The whole network as a list of layers."""
    assert toy.tail is not None
    features = toy.module.get_submodule("features")
    assert isinstance(features, nn.Sequential)
    return [*copy.deepcopy(features).double(), *toy.tail]


def sequential(*layers: nn.Module, seed: int = 21) -> Toy:
    """A chain of layers as a toy, to be explained as a whole."""
    module = settle(nn.Sequential(nn.Sequential(*layers[:-3]), *layers[-3:]), seed)
    double = copy.deepcopy(module).double()
    return Toy("chain", module, "0", shared("deep").halves, [*double[0], *list(double)[1:]])


def capped() -> Toy:
    """ReLU6, with values above its cap."""
    toy = sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU6(), nn.Conv2d(8, 6, 3), nn.ReLU6(), *pool(), nn.Linear(6, CLASSES))
    for layers in (toy.module[0], toy.tail):
        layers[0].weight.data *= 5
    return toy


def chain_of(toy: Toy) -> list[nn.Module]:
    assert toy.tail is not None
    return toy.tail if toy.name == "chain" else layers_of(toy)


@pytest.mark.parametrize("rule", ["deconvnet", "guided"])
@pytest.mark.parametrize("name", [*CHAINS, "capped"])
def test_relu_rules(name: str, rule: str) -> None:
    toy, x = capped() if name == "capped" else shared(name), images()
    expected = [formulas_inputs.ruled(chain_of(toy), image, c, rule) for image, c in zip(x, TARGET, strict=True)]
    check(explain(toy, {"guided": "guidedbackprop"}.get(rule, rule), x), expected, "abs")


class Spelled(nn.Module):
    """conv, a ReLU spelled in one of torch's ways, pool, linear."""

    def __init__(self, relu) -> None:
        super().__init__()
        self.conv, self.fc, self.relu = nn.Conv2d(3, 6, 4, 4), nn.Linear(6, CLASSES), relu

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(self.conv(x)).mean((2, 3)))


def overwritten(x: Tensor) -> Tensor:
    functional.relu(x, inplace=True)  # what it returns is not used
    return x


SPELLINGS = {
    "functional": functional.relu,
    "functional in place": overwritten,
    "functional, flag by place": lambda x: functional.relu(x, True),
    "torch": torch.relu,
    "torch in place": torch.relu_,
    "method": lambda x: x.relu(),
    "method in place": lambda x: x.relu_(),
    "by name": lambda x: functional.relu(input=x),
    "clamp": lambda x: x.clamp(min=0),
    "clamp in place": lambda x: x.clamp_(0),
    "clamp_min": lambda x: torch.clamp_min(x, 0),
    "threshold": lambda x: functional.threshold(x, 0, 0),
    "view in place": lambda x: x.flatten(2).relu_().view_as(x),
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_relu_is_known_however_it_is_spelled(spelling: str) -> None:
    module, x = settle(Spelled(SPELLINGS[spelling]), 3), images()
    layers = [copy.deepcopy(module.conv).double(), nn.ReLU(), *pool(), copy.deepcopy(module.fc).double()]
    for method, rule in (("deconvnet", "deconvnet"), ("guidedbackprop", "guided")):
        expected = [formulas_inputs.ruled(layers, image, c, rule) for image, c in zip(x, TARGET, strict=True)]
        exp = CAM(module, method).explain(x, target=torch.tensor(TARGET))
        near(exp.attributions, torch.stack(expected))
        torch.testing.assert_close(exp.logits, module(x))


def test_a_clamp_elsewhere_is_no_relu() -> None:
    module, x = settle(Spelled(lambda x: functional.relu(x).clamp(min=0.1)), 3), images()
    plain = settle(Spelled(lambda x: functional.relu(x).maximum(torch.tensor(0.1))), 3)
    near(CAM(module, "deconvnet").explain(x).attributions, CAM(plain, "deconvnet").explain(x).attributions.double())


@pytest.mark.parametrize("method", ["deconvnet", "guidedbackprop", "guidedgradcam"])
def test_a_network_without_relus_is_told_so(method: str) -> None:
    with pytest.raises(ValueError, match=f"{method} changes what ReLUs hand back, and Vit has none .* runs gelu; use"):
        CAM(shared("vit").module, method)(images())


@pytest.mark.parametrize("name", ["linear", "deep", "vgg"])
def test_guidedgradcam(name: str) -> None:
    toy, x = shared(name), images()
    cams = formulas.explain(formulas.gradcam, toy.halves, x, TARGET)
    expected = [
        formulas_inputs.guidedgradcam(formulas_inputs.ruled(layers_of(toy), image, c, "guided"), cam.tolist())
        for image, c, cam in zip(x, TARGET, cams, strict=True)
    ]
    exp = CAM(toy.module, "guidedgradcam", toy.layer).explain(x, target=torch.tensor(TARGET))
    check(exp, expected, "abs")
    assert exp.layer == [toy.layer]


@pytest.mark.parametrize("method", ["gradcam", "guidedgradcam"])
def test_several_layers_of_one_graph(method: str) -> None:
    module, x = shared("deep").module, images()
    several = CAM(module, method, ["features", "features.0"]).explain(x, target=1)
    for raw, layer in zip(several.raw, ("features", "features.0"), strict=True):
        torch.testing.assert_close(raw, CAM(module, method, layer).explain(x, target=1).raw)


def dense() -> Toy:
    """Two linear layers with ReLUs behind them, and a third."""
    head = [nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, CLASSES)]
    return sequential(*stem(6, nn.ReLU()), nn.AdaptiveAvgPool2d(2), nn.Flatten(), *head)


@pytest.mark.parametrize("name", ["conv_classifier", "vgg", "deep", "dense"])
def test_deeplift(name: str) -> None:
    """The layers' loops; and the attributions add up to the change of the score."""
    toy, x = dense() if name == "dense" else shared(name), images()
    for base, rule in ((torch.zeros_like(x), "rescale"), (images(2, seed=13), "revealcancel")):
        rows = zip(x, base, TARGET, strict=True)
        expected = [formulas_inputs.deeplift(chain_of(toy), *row, rule == "revealcancel") for row in rows]
        exp = explain(toy, "deeplift", x, rule=rule, baseline=base)
        check(exp, expected, "sum", 1e-4)
        scores = [toy.module(one)[torch.arange(2), TARGET].detach() for one in (x, base)]
        torch.testing.assert_close(exp.attributions.sum((1, 2, 3)), scores[0] - scores[1], rtol=1e-4, atol=1e-5)


def test_the_two_rules_differ_behind_dense_layers_alone() -> None:
    x = images()
    for toy, differ in ((dense(), True), (shared("conv_classifier"), False)):
        one, other = (explain(toy, "deeplift", x, rule=rule).raw for rule in ("rescale", "revealcancel"))
        assert (float((one - other).abs().max()) > 0.05 * float(one.abs().max())) == differ


def test_reveal_cancel_tells_apart_where_rescale_does_not() -> None:
    """min(a, b) = a - relu(a - b), of the paper's section 3.5: Rescale sees the smaller alone, RevealCancel halves."""

    class Smaller(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
            self.first.weight.data = torch.tensor([[1.0, 0.0], [1.0, -1.0]])
            self.second.weight.data = torch.tensor([[1.0, -1.0], [0.0, 0.0]])

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x.flatten(1)).relu())

    x = torch.tensor([[3.0, 1.0], [1.0, 4.0]]).view(2, 1, 1, 2)
    found = {
        rule: CAM(Smaller(), "deeplift", rule=rule).explain(x, target=0).attributions.flatten(1).tolist()
        for rule in ("rescale", "revealcancel")
    }
    assert found["rescale"] == [pytest.approx([0, 1]), pytest.approx([1, 0])]
    assert found["revealcancel"] == [pytest.approx([0.5, 0.5]), pytest.approx([0.5, 0.5])]


def test_deeplift_where_nothing_can_be_exported() -> None:
    class Loop(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([row.sum() * torch.ones(CLASSES) for row in x if float(row.sum()) < 1e9])

    with pytest.raises(ValueError, match=r"deeplift needs the graph of Loop, .* use integratedgradients"):
        CAM(Loop(), "deeplift")(images())


@pytest.mark.parametrize("scale", ["layer", "channel"])
@pytest.mark.parametrize("name", [*CHAINS, "dense"])
def test_fullgrad(name: str, scale: str) -> None:
    toy, x = dense() if name == "dense" else shared(name), images()
    layers, rows = chain_of(toy), list(zip(x, TARGET, strict=True))
    raw = torch.tensor([formulas_inputs.fullgrad(layers, image, c, scale) for image, c in rows], dtype=torch.float64)
    exp = explain(toy, "fullgrad", x, scale=scale)
    near(exp.raw, raw, 1e-4)
    torch.testing.assert_close(exp.maps.double(), formulas.finish(raw, SIZE, "never"), rtol=0, atol=1e-3)
    near(exp.attributions, torch.stack([formulas_inputs.bias_gradients(layers, *row)[0] for row in rows]))
    if name != "deep":  # whose SiLU has an implicit bias of its own
        for image, c in rows:
            inputs, biases = formulas_inputs.bias_gradients(layers, image, c)
            total = float(inputs.sum()) + sum(float(one.sum()) for one in biases)
            assert total == pytest.approx(float(toy.module(image[None])[0, c].detach()), rel=1e-4)


def test_fullgrad_of_several_targets_is_that_of_each() -> None:
    toy, x = shared("deep"), images()
    many = CAM(toy.module, "fullgrad").explain(x, target=torch.tensor([[1, 3], [2, 0]])).raw
    for t, target in enumerate(([1, 2], [3, 0])):
        near(CAM(toy.module, "fullgrad").explain(x, target=torch.tensor(target)).raw, many[:, t].double(), 1e-6)


SEARCHES = [
    {"steps": 5, "rate": 0.2},
    {"steps": 5, "rate": 0.2, "game": "deletion"},
    {"steps": 5, "rate": 0.2, "score": "logit", "sparsity": 0.05},
    {"steps": 5, "rate": 0.2, "defense": False},
]


@pytest.mark.parametrize("options", SEARCHES, ids=str)
@pytest.mark.parametrize("name", ["linear", "inplace"])
def test_fgvis(name: str, options: dict) -> None:
    toy, x, layers = shared(name), images(), layers_of(shared(name))
    full = {"game": "preservation", "score": "probability", "defense": True, "rate": 0.1, "sparsity": 0.03, **options}
    kept = torch.stack([formulas_inputs.fgvis(layers, image, c, full) for image, c in zip(x, TARGET, strict=True)])
    shown = kept if full["game"] == "preservation" else 1 - kept
    exp = explain(toy, "fgvis", x, **options)
    near(exp.raw, shown.mean(1), 1e-3)
    near(exp.attributions, shown * x.double(), 1e-3)
    torch.testing.assert_close(exp.maps.double(), formulas.finish(shown.mean(1), SIZE, "never"), rtol=0, atol=5e-3)


def test_the_defense_changes_the_mask() -> None:
    toy, x = shared("vgg"), images()
    one, other = (explain(toy, "fgvis", x, steps=8, rate=0.2, defense=d).raw for d in (True, False))
    assert float((one - other).abs().max()) > 0.02


def test_the_games_move_the_score() -> None:
    """What is kept holds the probability while most is gone; what is deleted takes it away."""
    toy, x = shared("vgg"), images()

    def probability(of: Tensor) -> Tensor:
        return toy.module(of).softmax(1).gather(1, target)[:, 0].detach()

    target = toy.module(x).argmax(1, keepdim=True)
    kept = CAM(toy.module, "fgvis", steps=60, sparsity=0.1).explain(x)
    gone = CAM(toy.module, "fgvis", steps=60, game="deletion", score="logit").explain(x)
    assert (kept.raw.mean((1, 2)) < 0.6).all()
    assert (gone.raw.mean((1, 2)) < 0.6).all()
    assert (probability(kept.attributions) > probability(x) - 1e-4).all()
    assert (probability(x - gone.attributions) < 0.5 * probability(x)).all()


def test_another_path_on_the_masked_image_is_told() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 6, 4, 4), nn.Linear(6, CLASSES)
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            h = self.conv(x)
            for _ in range(self.calls):
                h = h.relu()
            return self.fc(h.mean((2, 3)))

    with pytest.raises(ValueError, match="runs other nonlinearities on a masked image"):
        CAM(Branches(), "fgvis", steps=2)(images())
