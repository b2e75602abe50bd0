"""Components, peaks, differences of classes and second derivatives against their loops, on every kind of tail."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from fastcam import CAM, TopK
from fastcam.methods import components
from tests import formulas, formulas_further, small
from tests.networks import CLASSES, SIZE, TOYS, images, shared

pytestmark = pytest.mark.usefixtures("one_thread")
NEAR = 2e-5  # of the largest value: float32 against float64
BLIND = ("activationmap", "fem", "kpcacam")
METHODS = (*BLIND, "segeigencam", "finercam", "shapleycam")
TARGET = [1, 2]


def check(method: str, name: str, near: float = NEAR, target: list | None = None, **options) -> Tensor:
    toy, target = shared(name), TARGET if target is None else target
    exp = CAM(toy.module, method, toy.layer, **options).explain(
        images(), target=target if callable(target[0]) else torch.tensor(target)
    )
    rows = [lambda row, f=f: f(row[None])[0] for f in target] if callable(target[0]) else target
    raw = formulas.explain(getattr(formulas_further, method), toy.halves, images(), rows, **options)
    for got, want in zip(exp.raw.double(), raw, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=near * float(want.abs().max()))
    clip = "never" if method in {"activationmap", "kpcacam"} else "before"
    shown = formulas.finish(raw, SIZE, clip)
    torch.testing.assert_close(exp.maps.double(), shown, rtol=0, atol=1e-3)
    return raw


@pytest.mark.parametrize("name", list(TOYS))
@pytest.mark.parametrize("method", METHODS)
def test_formula(method: str, name: str) -> None:
    check(method, name)


OPTIONS = [
    ("fem", {"variant": "fraction"}),
    ("fem", {"k": 1.0}),
    ("kpcacam", {"gamma": 0.7}),
    *(("kpcacam", {"kernel": kernel}) for kernel in ("rbf", "poly", "cosine", "linear")),
    ("finercam", {"variant": "official"}),
    ("finercam", {"variant": "official", "alpha": 0.5, "references": 2}),
    ("finercam", {"alpha": 1.5, "references": 1}),
    ("finercam", {"references": 40}),
    ("shapleycam", {"score": "logit"}),
    ("shapleycam", {"score": "probability"}),
]


@pytest.mark.parametrize("name", ["signed", "deep", "vit"])
@pytest.mark.parametrize(("method", "options"), OPTIONS, ids=str)
def test_options(method: str, options: dict, name: str) -> None:
    raw = check(method, name, **options)
    check_apart(method, name, raw, same=name == "signed" and options == {"score": "logit"})  # no curvature


def check_apart(method: str, name: str, raw: Tensor, same: bool = False) -> None:
    """Whether the toy tells the map of an option from that of the defaults, so that the test can fail."""
    usual = formulas.explain(getattr(formulas_further, method), shared(name).halves, images(), TARGET)
    apart = (raw / raw.abs().max() - usual / usual.abs().max()).abs().max()
    assert same or apart > 1e-3


@pytest.mark.parametrize("name", ["deep", "vgg"])
@pytest.mark.parametrize("base", ["gradcampp", "xgradcam", "layercam", "hirescam"])
def test_finercam_of_other_methods(base: str, name: str) -> None:
    check_apart("finercam", name, check("finercam", name, base=base))


def test_finercam_without_strength_is_its_base() -> None:
    toy, x = shared("deep"), images()
    one = CAM(toy.module, "finercam", toy.layer, alpha=0).explain(x, target=1)
    torch.testing.assert_close(one.raw, CAM(toy.module, "gradcam", toy.layer).explain(x, target=1).raw)


@pytest.mark.parametrize("name", ["linear", "conv_classifier"])
def test_shapleycam_of_a_logit_behind_a_linear_tail_is_gradcam(name: str) -> None:
    toy, x = shared(name), images()
    one = CAM(toy.module, "shapleycam", toy.layer, score="logit").explain(x, target=1)
    torch.testing.assert_close(one.raw, CAM(toy.module, "gradcam", toy.layer).explain(x, target=1).raw)


@pytest.mark.parametrize("name", ["linear", "deep"])
def test_shapleycam_of_functions(name: str) -> None:
    check("shapleycam", name, target=[lambda s: s[:, 1] * s[:, 2], lambda s: s[:, 0] ** 2])


class Attentive(nn.Module):
    """A convolution, and attention of PyTorch's own over its cells."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, CLASSES)

    def after(self, a: Tensor) -> Tensor:
        return self.head(self.attention(a.flatten(2).transpose(1, 2)).mean(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.stem(x))


def test_shapleycam_differentiates_fused_attention_twice() -> None:
    torch.manual_seed(2)
    module = Attentive().eval()
    double = copy.deepcopy(module).double()
    net = formulas.Halves(double.stem, lambda a, x: double.after(a))
    raw = formulas.explain(formulas_further.shapleycam, net, images(), TARGET)
    exp = CAM(module, "shapleycam", "stem").explain(images(), target=torch.tensor(TARGET))
    torch.testing.assert_close(exp.raw.double(), raw, rtol=0, atol=1e-4 * float(raw.abs().max()))


@pytest.mark.parametrize("kernel", components.KERNELS)
def test_kernels_are_those_of_scikit_learn(kernel: str) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    a = torch.randn(2, 1, 9, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for ours, image in zip(components.kpcacam(a, kernel=kernel)[:, 0], a[:, 0], strict=True):
        rows = image.flatten(1).T.numpy()
        found = decomposition.KernelPCA(1, kernel=kernel).fit_transform(rows - rows.mean(0))[:, 0]
        theirs = torch.from_numpy(found).view(6, 5)
        torch.testing.assert_close(ours, theirs * torch.sign((ours * theirs).sum()), rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", BLIND)
def test_blind_methods_give_every_class_the_same(method: str) -> None:
    toy, x = shared("deep"), images()
    every = CAM(toy.module, method, toy.layer).explain(x, target="all").raw
    assert every.shape[1] == CLASSES
    assert torch.equal(every, every[:, :1].expand_as(every))


@pytest.mark.parametrize("method", METHODS)
def test_maps_carry_a_graph_to_the_weights(method: str) -> None:
    toy = TOYS["deep"]()
    maps = CAM(toy.module, method, toy.layer)(images(), target=1, differentiable=True)
    (weight,) = (toy.module.get_submodule("features.2").weight,)
    (g,) = torch.autograd.grad(maps.square().sum(), weight)
    assert g.isfinite().all()
    assert g.abs().max() > 0
    assert weight.grad is None
    plain = CAM(toy.module, method, toy.layer)(images(), target=1)
    torch.testing.assert_close(maps.detach(), plain, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "backwards"), [("linear", 0), ("deep", 8)])
def test_second_derivatives_cost_two_backwards_a_class(name: str, backwards: int) -> None:
    toy = TOYS[name]()
    cam = CAM(toy.module, "shapleycam", toy.layer)
    cam(images())
    cost = cam.explain(images(), target=TopK(2)).cost
    assert (cost.forwards, cost.backwards) == (2, backwards)


def test_a_model_of_one_class_has_no_other() -> None:
    with pytest.raises(ValueError, match="finercam needs two classes at least, and the model has one"):
        CAM(small.network(classes=1), "finercam")(small.images())


def test_functions_are_no_classes_to_set_apart() -> None:
    with pytest.raises(ValueError, match=r"finercam .* needs classes as target, not a callable"):
        CAM(small.network(), "finercam")(small.images(), target=lambda logits: logits[:, 0])


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("fem", {"k": "2"}, "k='2' must be a number of standard deviations"),
        ("kpcacam", {"gamma": 0}, "gamma=0 must be a positive number, or None"),
        ("kpcacam", {"kernel": "tanh"}, "'sigmoid', 'rbf'"),
        ("finercam", {"alpha": -1}, "alpha=-1 must be a number from 0 up"),
        ("finercam", {"alpha": math.nan}, "alpha=nan must be a number from 0 up"),
        ("finercam", {"references": 0}, "references=0 must be a positive int"),
        ("finercam", {"base": "cam"}, "'gradcam', 'gradcampp'"),
        ("shapleycam", {"score": "loss"}, "'rest', 'logit', 'probability'"),
    ],
)
def test_options_that_cannot_be(method: str, options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CAM(shared("deep").module, method, **options)


@pytest.mark.parametrize("method", ["finercam", "segeigencam", "shapleycam"])
def test_several_layers_are_those_alone(method: str) -> None:
    toy, x, layers = shared("deep"), images(), ["features", "tail.0", "tail.5"]
    several = CAM(toy.module, method, layers).explain(x, target=torch.tensor(TARGET))
    for layer, raw in zip(layers, several.raw, strict=True):
        alone = CAM(toy.module, method, layer).explain(x, target=torch.tensor(TARGET)).raw
        torch.testing.assert_close(raw, alone, rtol=0, atol=1e-5 * float(alone.abs().max()))
