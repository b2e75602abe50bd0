"""Each method and variant, on each kind of tail, against its formula written out in loops."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from fastcam import CAM
from tests import formulas, formulas_rescale, formulas_samples, formulas_scores
from tests.networks import CLASSES, SIZE, TOYS, Toy, chain, images, pool, shared, stem

TARGET = [1, 2]
SEED = 0
NEAR = 5e-5  # of the largest term, float32 against float64; measured: 2.4e-5 for the derivatives of a ViT, squared


pytestmark = pytest.mark.usefixtures("one_thread")


Loops = Callable[[Toy, Tensor, dict], Tensor]


class Variant(NamedTuple):
    """One way to call a method, and the loops that say what it must give.

    `size` says how large the terms of the map are, where they may cancel almost wholly.
    """

    method: str
    options: dict[str, object]
    expected: Loops
    clip: str = "before"
    size: Loops | None = None

    def __str__(self) -> str:
        return "-".join([self.method, *(str(v) for v in self.options.values() if not isinstance(v, Tensor))])


def plain(formula: Callable) -> Loops:
    return lambda toy, x, options: formulas.explain(formula, toy.halves, x, TARGET, **options)


def reciprocam(toy: Toy, x: Tensor, options: dict) -> Tensor:
    formula = functools.partial(formulas_scores.reciprocam, answer=options["score"])
    return formulas.explain(formula, toy.halves, x, TARGET, kernel=options["kernel"])


def sscam(toy: Toy, x: Tensor, options: dict) -> Tensor:
    g = torch.Generator().manual_seed(SEED)
    return formulas.explain(formulas_scores.sscam, toy.halves, x, TARGET, generator=g, **options)


def smooth(toy: Toy, x: Tensor, options: dict) -> Tensor:
    g, rest = torch.Generator().manual_seed(SEED), dict(options)
    samples, spread, std = rest.pop("samples"), rest.pop("spread", 0.15), rest.pop("std", None)
    noise = torch.stack([torch.randn(x.shape, generator=g) for _ in range(samples)], 1)
    own = spread * (x.amax((1, 2, 3)) - x.amin((1, 2, 3)))[:, None, None, None, None]
    noise = noise * (own if std is None else std)
    maps = [
        formulas_samples.smoothgradcampp(toy.halves, image, c, e, **rest)
        for image, c, e in zip(x.double(), TARGET, noise, strict=True)
    ]
    return torch.tensor(maps, dtype=torch.float64)


def integrated(toy: Toy, x: Tensor, options: dict) -> Tensor:
    rest = dict(options)
    base = rest.pop("baseline", None)
    if isinstance(base, Tensor):
        rest["base"] = base.reshape(3, 1, 1).expand(3, *SIZE) if base.ndim == 1 else base
    return formulas.explain(formulas_samples.integratedgradcam, toy.halves, x, TARGET, **rest)


def liftcam(toy: Toy, x: Tensor, options: dict) -> Tensor:
    assert toy.tail is not None
    return formulas.explain(formulas_rescale.liftcam, toy.halves, x, TARGET, layers=toy.tail)


def terms(*args) -> formulas.Grid:
    """Σ_k |g A|: before a LayerNorm g is orthogonal to A, and hirescam is what rounding leaves (Euler)."""
    return formulas.elementwise(*args, term=lambda a, g: abs(g * a))


VARIANTS = [
    Variant("cam", {}, plain(formulas.cam), "never"),
    Variant("gradcam", {}, plain(formulas.gradcam)),
    Variant("gradcampp", {}, plain(formulas.gradcampp)),
    Variant("gradcampp", {"variant": "official"}, plain(formulas.gradcampp)),
    Variant("gradcampp", {"eps": 1e-6}, plain(formulas.gradcampp)),
    Variant("xgradcam", {}, plain(formulas.xgradcam)),
    Variant("xgradcam", {"eps": 1e-3}, plain(formulas.xgradcam)),
    Variant("layercam", {}, plain(formulas.layercam)),
    Variant("hirescam", {}, plain(formulas.hirescam), size=plain(terms)),
    Variant("gradcamelementwise", {}, plain(formulas.gradcamelementwise)),
    Variant("eigencam", {}, plain(formulas.eigencam), "never"),
    Variant("eigencam", {"centered": True}, plain(formulas.eigencam), "never"),
    Variant("eigengradcam", {}, plain(formulas.eigengradcam)),
    Variant("eigengradcam", {"centered": False}, plain(formulas.eigengradcam)),
    Variant("scorecam", {}, plain(formulas_scores.scorecam)),
    Variant("scorecam", {"variant": "official"}, plain(formulas_scores.scorecam), "after"),
    *(
        Variant("sscam", {"type": kind, "variant": variant, "samples": 3}, sscam, clip)
        for kind in ("activation", "input")
        for variant, clip in (("paper", "before"), ("official", "after"))
    ),
    Variant("iscam", {"schedule": "cumulative", "samples": 4}, plain(formulas_scores.iscam)),
    Variant("iscam", {"schedule": "linear", "samples": 4}, plain(formulas_scores.iscam)),
    *(
        Variant("ablationcam", {"divide": divide}, plain(formulas_scores.ablationcam))
        for divide in ("score", "magnitude", "none")
    ),
    *(
        Variant("reciprocam", {"kernel": kernel, "score": score}, reciprocam, "never")
        for kernel in ("point", "gaussian", "neighbors")
        for score in ("probability", "logit")
    ),
    Variant("liftcam", {}, liftcam),
    *(
        Variant("smoothgradcampp", {"mode": mode, "variant": variant, "samples": 3}, smooth)
        for mode, variant in (("derivatives", "paper"), ("derivatives", "corrected"), ("maps", "paper"))
    ),
    Variant("smoothgradcampp", {"samples": 2, "spread": 0.5}, smooth),
    Variant("smoothgradcampp", {"samples": 2, "std": 0.3, "eps": 1e-3}, smooth),
    *(
        Variant("integratedgradcam", {"rule": rule, "samples": 4}, integrated)
        for rule in ("left", "right", "trapezoid", "midpoint")
    ),
    Variant("integratedgradcam", {"variant": "official", "samples": 3}, integrated),
    Variant("integratedgradcam", {"samples": 3, "baseline": torch.tensor([0.3, -0.2, 0.5])}, integrated),
    Variant("integratedgradcam", {"samples": 3, "baseline": images(1, seed=3)[0] * 0.2}, integrated),
]


def assert_maps(exp, raw: Tensor, clip: str, sizes: Tensor) -> None:
    """The raw maps within NEAR of the largest term, the finished ones within what that becomes."""
    for got, want, size in zip(exp.raw.double(), raw, sizes, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=NEAR * float(size))
    kept = raw if clip == "never" else raw.relu()
    spread = kept.amax((1, 2)) - kept.amin((1, 2))
    for got, want, size, range_ in zip(exp.maps.double(), formulas.finish(raw, SIZE, clip), sizes, spread, strict=True):
        grown = float(size / range_) if range_ > 0 else 1.0
        torch.testing.assert_close(got, want, rtol=0, atol=4 * NEAR * grown)


POOLED = ("linear", "signed", "twice", "one_channel")  # a mean and one Linear right after the layer
CHAINS = [name for name in TOYS if shared(name).tail is not None]
WHERE = {"cam": POOLED, "liftcam": CHAINS}
CASES = [
    pytest.param(variant, name, id=f"{variant}-{name}")
    for variant in VARIANTS
    for name in WHERE.get(variant.method, TOYS)
]


@pytest.mark.parametrize(("variant", "name"), CASES)
def test_formula(variant: Variant, name: str) -> None:
    toy, x = shared(name), images()
    raw = variant.expected(toy, x, variant.options)
    cam = CAM(toy.module, variant.method, toy.layer, **variant.options)
    exp = cam.explain(x, target=torch.tensor(TARGET))
    sizes = (raw if variant.size is None else variant.size(toy, x, variant.options)).abs().amax((1, 2))
    assert_maps(exp, raw, variant.clip, sizes)
    torch.testing.assert_close(exp.logits, toy.module(x))
    assert exp.logits.shape == (2, CLASSES)
    assert exp.target.tolist() == TARGET
    assert exp.layer == [toy.layer]
    assert exp.method == variant.method


@pytest.mark.parametrize("name", [name for name in TOYS if name not in POOLED])
def test_cam_says_where_it_does_not_exist(name: str) -> None:
    toy = shared(name)
    with pytest.raises(ValueError, match=r"cam needs .*global average pooling and one linear layer"):
        CAM(toy.module, "cam", toy.layer).explain(images())


NONLINEAR = [
    nn.ReLU(inplace=True), nn.ReLU6(inplace=True), nn.LeakyReLU(0.2), nn.PReLU(init=0.3), nn.ELU(), nn.SELU(),
    nn.CELU(), nn.SiLU(inplace=True), nn.GELU(), nn.GELU("tanh"), nn.Mish(), nn.Hardswish(), nn.Hardtanh(),
    nn.Hardsigmoid(), nn.Sigmoid(), nn.Tanh(), nn.Softplus(), nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
]  # fmt: skip


@pytest.mark.parametrize("layer", NONLINEAR, ids=str)
def test_liftcam_knows_each_nonlinearity(layer: nn.Module) -> None:
    middle = list(layer) if isinstance(layer, nn.Sequential) else [layer]
    tail = (nn.Conv2d(6, 8, 3), *middle, nn.Conv2d(8, 8, 3), *pool(), nn.Linear(8, CLASSES))
    toy = chain("nonlinear", stem(6, nn.SiLU(), stride=2), *tail, seed=18)
    raw = liftcam(toy, images(), {})
    exp = CAM(toy.module, "liftcam", toy.layer).explain(images(), target=torch.tensor(TARGET))
    assert_maps(exp, raw, "before", raw.abs().amax((1, 2)))


def weights_in(toy: Toy, x: Tensor, raw: Tensor) -> Tensor:
    """The weights w with raw = Σ_k w_k A_k, for one image whose channels are independent (or dead)."""
    a = toy.halves.head(x.double())[0].detach().flatten(1)
    columns = a[a.abs().amax(1) > 0].T
    weights = torch.linalg.lstsq(columns, raw.double().flatten()[:, None]).solution[:, 0]
    torch.testing.assert_close(columns @ weights, raw.double().flatten(), rtol=0, atol=1e-4)
    return weights


@pytest.mark.parametrize("name", ["residual", "residual_branch", "linear", "norm_relu_pooled"])
def test_liftcam_contributions_add_up(name: str) -> None:
    """Σ_k w_k = y(A) - y(0), also around a skip (Shrikumar et al. 2017, eq. 1)."""
    toy, x = shared(name), images(1)
    a = toy.halves.head(x.double())
    rise = toy.halves.tail(a, x.double()) - toy.halves.tail(torch.zeros_like(a), x.double())
    for c in range(CLASSES):
        weights = weights_in(toy, x, CAM(toy.module, "liftcam", toy.layer).explain(x, target=c).raw[0])
        torch.testing.assert_close(weights.sum(), rise[0, c].detach(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["linear", "deep"])
def test_random_weights(name: str) -> None:
    """The weights that solve the raw map lie in (-1, 1), the same for a seed and others for another."""
    toy, x = shared(name), images()
    found = []
    for seed in (0, 0, 1):
        raw = CAM(toy.module, "randomcam", toy.layer, seed=seed).explain(x, target=0).raw
        found.append(weights_in(toy, x, raw[0]))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-6)
    assert (found[0] - found[2]).abs().max() > 0.1
    assert found[0].abs().max() < 1
    assert found[0].unique().numel() == found[0].numel()
