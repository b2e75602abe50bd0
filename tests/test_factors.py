"""Deep Feature Factorization against loops, scikit-learn and pytorch-grad-cam; its scale, its order and its errors."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from pytorch_grad_cam.feature_factorization.deep_feature_factorization import dff
from sklearn.decomposition import NMF
from torch import Tensor, nn

from fastcam import factorize
from fastcam.nmf import factor, singular
from tests.formulas import resize
from tests.formulas_factors import hals
from tests.networks import CLASSES, SIZE, TOYS, images, shared

pytestmark = pytest.mark.usefixtures("one_thread")


def cells(name: str, batch: int = 2) -> Tensor:
    """The activations as rows of channels, in float64. (B*h*w, C)"""
    with torch.no_grad():
        return shared(name).halves.head(images(batch).double()).flatten(2).mT.flatten(0, 1)


@pytest.mark.parametrize(("name", "components", "steps"), [("linear", 4, 5), ("signed", 3, 4), ("swin", 1, 2)])
def test_against_the_loops(name: str, components: int, steps: int) -> None:
    toy, v = shared(name), cells(name)
    low = v.amin(0).clamp_max(0)
    w, h, error = hals((v - low).tolist(), components, steps)
    w, h = torch.tensor(w, dtype=torch.float64), torch.tensor(h, dtype=torch.float64)
    size = (5, 7)
    got = factorize(
        copy.deepcopy(toy.module).double(), images().double(), components, toy.layer, steps=steps, tolerance=0
    )
    raw = w.view(components, 2, *size).transpose(0, 1)
    torch.testing.assert_close(got.raw, raw, rtol=0, atol=1e-8)
    torch.testing.assert_close(got.concepts, h + low, rtol=1e-8, atol=1e-8)
    assert got.error == pytest.approx(error, abs=1e-8)
    assert got.steps == steps
    single = factorize(toy.module, images(), components, toy.layer, steps=steps, tolerance=0)
    torch.testing.assert_close(single.raw.double(), raw, rtol=0, atol=1e-3)
    shown = [[resize(grid, *SIZE) for grid in image] for image in raw.tolist()]
    torch.testing.assert_close(single.maps.double(), torch.tensor(shown, dtype=torch.float64), rtol=0, atol=1e-3)


def test_the_loops_tell_components_and_steps_apart() -> None:
    v = cells("linear").tolist()
    errors = [hals(v, *how)[2] for how in ((2, 2), (4, 2), (4, 6))]
    assert errors[0] > 1.05 * errors[1] > 1.05 * errors[2]


@pytest.mark.parametrize("name", ["linear", "twice", "inplace"])
@pytest.mark.parametrize("components", [2, 5])
def test_not_worse_than_scikit_learn(name: str, components: int) -> None:
    """From the same start, and from its random ones as pytorch-grad-cam takes them."""
    toy = shared(name)
    v = cells(name, 3)
    low = v.amin(0).clamp_max(0)
    v = v - low
    got = factorize(toy.module, images(3), components, toy.layer, steps=1000, tolerance=1e-7)
    mine = got.raw.double().flatten(2).mT.flatten(0, 1) @ (got.concepts.double() - low)
    error = float((v - mine).norm() / v.norm())
    assert got.error == pytest.approx(error, abs=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = NMF(components, init="nndsvd", tol=1e-7, max_iter=1000)
        theirs = v.numpy() - model.fit_transform(v.numpy()) @ model.components_
    assert error <= 1.001 * float(torch.tensor(theirs).norm() / v.norm())
    assert error >= float(torch.linalg.svdvals(v)[components:].norm() / v.norm()) - 1e-6  # no factors do better


def test_pytorch_grad_cam_stands_where_it_stops_too_early() -> None:
    """The same problem from a random start: its error is never lower by more than the local minimum makes."""
    a = cells("linear", 3).view(3, 35, -1).mT.unflatten(2, (5, 7))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        concepts, maps = dff(a.numpy().copy(), 4)
    v, theirs = cells("linear", 3), torch.from_numpy(maps).flatten(2).mT.flatten(0, 1) @ torch.from_numpy(concepts).T
    error = float((v - theirs).norm() / v.norm())
    assert factorize(shared("linear").module, images(3), 4, "features").error <= 1.02 * error


def test_exact_parts_are_found_again() -> None:
    """Three concepts, each in cells of its own: the factors are these, in the order of their size."""
    h = torch.tensor([[3.0, 0, 1, 0, 0], [0, 2.0, 0, 0, 1], [0, 0, 0, 1.0, 0]])
    w = torch.eye(3).repeat_interleave(torch.tensor([6, 5, 4]), 0) * torch.linspace(0.5, 1, 15)[:, None]
    got_w, got_h, error, _ = factor(w @ h, 3, 100, 0.0)
    peaks = w.amax(0)
    torch.testing.assert_close(got_w, w / peaks, rtol=0, atol=1e-5)
    torch.testing.assert_close(got_h, h * peaks[:, None], rtol=0, atol=1e-5)
    assert error < 1e-5


def test_the_singular_values_are_the_largest() -> None:
    v = torch.randn(300, 80, generator=torch.Generator().manual_seed(1), dtype=torch.float64).abs()
    u, s, t = singular(v, 6)
    torch.testing.assert_close(s, torch.linalg.svdvals(v)[:6], rtol=1e-2, atol=0)
    torch.testing.assert_close(u.T @ u, torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close(t @ t.T, torch.eye(6, dtype=torch.float64))


def test_one_scale_for_the_batch_and_runs_that_agree() -> None:
    toy, before = shared("linear"), torch.random.get_rng_state()
    one, two = (factorize(toy.module, images(3), 4, toy.layer) for _ in range(2))
    assert torch.equal(one.raw, two.raw)
    assert torch.equal(one.concepts, two.concepts)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.testing.assert_close(one.raw.amax((0, 2, 3)), torch.ones(4))
    assert (one.maps >= 0).all()
    assert (one.maps <= 1).all()
    sizes = one.raw.square().sum((0, 2, 3)).sqrt() * one.concepts.norm(dim=1)
    assert (sizes.diff() <= 0).all()
    assert one.cost.forwards == 3
    assert one.layer == toy.layer


@pytest.mark.parametrize("name", ["linear", "norm_relu_pooled", "mlp_head", "swin"])
def test_scores_are_those_of_a_map_of_the_concept(name: str) -> None:
    toy = shared(name)
    got = factorize(toy.module, images(), 3, toy.layer)
    maps = got.concepts.double()[..., None, None].expand(-1, -1, 5, 7)
    want = toy.halves.tail(maps, images()[:1].double().expand(3, -1, -1, -1))
    assert got.scores.shape == (3, CLASSES)
    torch.testing.assert_close(got.scores.double(), want, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(got.logits, toy.module(images()), rtol=1e-4, atol=1e-5)
    assert factorize(shared("deep").module, images(), 3, "features").scores is None


def test_dead_activations_are_no_nan() -> None:
    module = TOYS["linear"]().module
    module.features[3].weight.data.zero_()
    module.features[3].bias.data.fill_(-1.0)
    got = factorize(module, images(), 3, "features")
    assert not got.maps.any()
    assert not got.concepts.any()
    assert got.error == 0
    assert got.steps == 0


def test_fewer_parts_than_asked_for() -> None:
    """Activations of rank 1: what is left over stays zero."""
    v = torch.outer(torch.linspace(1, 2, 20), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    w, h, error, _ = factor(v, 3, 50, 1e-6)
    assert w.isfinite().all()
    assert h.isfinite().all()
    assert error < 1e-5


def test_half_precision_and_training_mode() -> None:
    module = TOYS["linear"]().module.train()
    got = factorize(module, images(), 3, "features", precision="bfloat16")
    assert module.training
    assert not any(m._forward_hooks for m in module.modules())
    module.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ambient = factorize(module, images(), 3, "features")
    assert got.raw.dtype == torch.float32
    torch.testing.assert_close(ambient.raw, got.raw)
    assert got.error == pytest.approx(factorize(module, images(), 3, "features").error, abs=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"components": 0}, "components must be"),
        ({"components": 13}, "70 cells and 12 channels"),
        ({"steps": True}, "steps must be"),
        ({"tolerance": -1.0}, "tolerance must be"),
        ({"tolerance": float("nan")}, "tolerance must be"),
        ({"layer": ["features", "tail"]}, "one layer"),
        ({"layer": "feature"}, "nearest"),
        ({"images": images()[0]}, "shape"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_errors(change: dict, message: str) -> None:
    given = {"images": images(), "components": 3, "layer": "features", **change}
    with pytest.raises(ValueError, match=message):
        factorize(shared("linear").module, **given)


@pytest.mark.parametrize("axes", [1, 3])
def test_signals_and_volumes(axes: int) -> None:
    torch.manual_seed(3)
    convolution, pool = ((nn.Conv1d, nn.AdaptiveAvgPool1d), (nn.Conv3d, nn.AdaptiveAvgPool3d))[axes == 3]
    net = nn.Sequential(convolution(2, 16, 3), nn.ReLU(), pool(1), nn.Flatten(), nn.Linear(16, 4)).eval()
    x = torch.randn(2, 2, *(9, 8, 7)[:axes])
    got, a = factorize(net, x, 8), net[:2](x).detach()
    assert got.maps.shape == (2, 8, *x.shape[2:])
    assert got.raw.shape == (2, 8, *a.shape[2:])
    assert got.scores.shape == (8, 4)
    rebuilt = torch.einsum("bk...,kc->bc...", got.raw, got.concepts)
    assert float((rebuilt - a).norm() / a.norm()) == pytest.approx(got.error, abs=1e-5)
