"""Signals (B, C, L) and volumes (B, C, D, H, W): every formula again, on each kind of tail, at the true shape."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fastcam import CAM
from fastcam.ops.spaces import trilinear
from tests import formulas, formulas_ranks, formulas_samples, formulas_scores
from tests.networks_ranks import SIZES, TAILS, as_picture_network, cells, folded, images, shared
from tests.test_methods import NEAR, TARGET, VARIANTS, Variant

pytestmark = pytest.mark.usefixtures("one_thread")
OWN = ("reciprocam", "liftcam")  # their formulas look at neighbors, or at the layers of pictures
CHOSEN = [
    v
    for v in VARIANTS
    if v.method not in OWN and not isinstance(v.options.get("baseline"), Tensor) and "eps" not in v.options
]
MANY = ("gradcam", "ablationcam", "scorecam")  # a closed form, masked activations and masked images: on every tail
CASES = [
    (v, name)
    for v in CHOSEN
    for name in (["linear"] if v.method == "cam" else TAILS if v.method in MANY else ["norm_relu", "deep"])
]


@pytest.fixture
def by_slices(monkeypatch):
    """The formulas resize volumes slice by slice, and then between slices."""
    resize = formulas_ranks.folded_trilinear(cells(3), SIZES[3])
    for module in (formulas, formulas_scores, formulas_samples):
        if hasattr(module, "resize"):
            monkeypatch.setattr(module, "resize", resize)


def check(rank: int, variant: Variant, name: str) -> None:
    toy, x = shared(rank, name), images(rank)
    raw = variant.expected(toy, folded(x), variant.options)
    exp = CAM(toy.module, variant.method, toy.layer, **variant.options).explain(x, target=torch.tensor(TARGET))
    assert exp.raw.shape == (2, *cells(rank))
    assert exp.maps.shape == (2, *SIZES[rank])
    size = float((raw if variant.size is None else variant.size(toy, folded(x), variant.options)).abs().amax())
    torch.testing.assert_close(exp.raw.double().view_as(raw), raw, rtol=0, atol=2 * NEAR * size)
    shown = formulas.finish(raw, (folded(x).shape[-2], folded(x).shape[-1]), variant.clip)
    kept = raw if variant.clip == "never" else raw.relu()
    least = float((kept.amax((1, 2)) - kept.amin((1, 2))).min())
    torch.testing.assert_close(
        exp.maps.double().view_as(shown), shown, rtol=0, atol=8 * NEAR * max(1.0, size / least if least else 1.0)
    )
    torch.testing.assert_close(exp.logits, toy.module(x))


@pytest.mark.parametrize(("variant", "name"), CASES, ids=[f"{v}-{name}" for v, name in CASES])
def test_formula_of_signals(variant: Variant, name: str) -> None:
    check(1, variant, name)


@pytest.mark.parametrize(("variant", "name"), CASES, ids=[f"{v}-{name}" for v, name in CASES])
@pytest.mark.usefixtures("by_slices")
def test_formula_of_volumes(variant: Variant, name: str) -> None:
    check(3, variant, name)


@pytest.mark.parametrize("score", ["probability", "logit"])
@pytest.mark.parametrize("kernel", ["point", "gaussian", "neighbors"])
@pytest.mark.parametrize("name", TAILS)
@pytest.mark.parametrize("rank", SIZES)
def test_reciprocam(rank: int, name: str, kernel: str, score: str) -> None:
    toy, x = shared(rank, name), images(rank)
    exp = CAM(toy.module, "reciprocam", toy.layer, kernel=kernel, score=score).explain(x, target=torch.tensor(TARGET))
    if kernel == "point":
        want = formulas.explain(formulas_scores.reciprocam, toy.halves, folded(x), TARGET, answer=score)
    else:
        options = {"shape": cells(rank), "kernel": kernel, "answer": score}
        want = formulas.explain(formulas_ranks.reciprocam, toy.halves, folded(x), TARGET, **options)
    torch.testing.assert_close(exp.raw.double().view_as(want), want, rtol=0, atol=NEAR * float(want.abs().max()))


@pytest.mark.parametrize("method", ["liftcam", "scorecam"])
@pytest.mark.parametrize("name", TAILS)
@pytest.mark.parametrize("rank", SIZES)
def test_a_flat_volume_and_a_signal_are_pictures(rank: int, name: str, method: str) -> None:
    """The same weights as a network of pictures give the same maps: also where max pooling is under DeepLIFT's rule."""
    toy, x = shared(rank, name), images(rank)
    module = toy.module
    if rank == 3:
        x = images(rank)[:, :, :1]
        module = _flat(module)
    pictures = x.unsqueeze(2) if rank == 1 else x.squeeze(2)
    target = torch.tensor(TARGET)
    own = CAM(module, method, "features").explain(x, target=target)
    twin = CAM(as_picture_network(module, rank), method, "features").explain(pictures, target=target)
    torch.testing.assert_close(own.logits, twin.logits)
    torch.testing.assert_close(own.raw.view_as(twin.raw), twin.raw, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(own.maps.view_as(twin.maps), twin.maps, rtol=1e-3, atol=1e-4)


def _flat(module: torch.nn.Module) -> torch.nn.Module:
    """A network of volumes with kernels of depth 1, the middle slices."""
    flat = copy.deepcopy(module)
    for m in flat.modules():
        if isinstance(m, torch.nn.Conv3d):
            middle = m.kernel_size[0] // 2
            m.weight.data = m.weight.data[:, :, middle : middle + 1].clone()
            m.kernel_size = (1, *m.kernel_size[1:])
            m.stride, m.padding = (1, *m.stride[1:]), (0, *m.padding[1:])
        if isinstance(m, torch.nn.MaxPool3d):
            m.kernel_size = m.stride = (1, 2, 2)
    return flat


@pytest.mark.parametrize(("rank", "mode"), [(1, "linear"), (3, "trilinear")])
def test_maps_are_resized_as_torch_does(rank: int, mode: str) -> None:
    toy, x = shared(rank, "deep"), images(rank)
    exp = CAM(toy.module, "layercam", toy.layer).explain(x)
    up = interpolate(exp.raw.relu()[:, None], SIZES[rank], mode=mode)[:, 0].flatten(1)
    low, high = up.amin(1, keepdim=True), up.amax(1, keepdim=True)
    torch.testing.assert_close(exp.maps.flatten(1), (up - low) / (high - low), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("shape", "size"),
    [((3, 4, 5), (6, 8, 10)), ((5, 7, 3), (4, 9, 8)), ((1, 2, 3), (7, 7, 7)), ((4, 1, 4), (4, 1, 4))],
)
def test_trilinear_as_torch_does(shape, size, kind) -> None:
    """Also where depth shrinks, where there is one slice, and under autocast."""
    maps = torch.randn(2, 3, *shape, dtype=kind, generator=torch.Generator().manual_seed(0))
    want = interpolate(maps, size, mode="trilinear")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = trilinear(maps.flatten(2, 3), shape, size)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6 if kind is torch.float32 else 1e-14)
