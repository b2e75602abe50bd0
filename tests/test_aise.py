"""AISE against its loops; its search against SciPy's and against loops of its own; rounds, cost and errors."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from fastcam import CAM, TopK
from fastcam.methods.direct import Direct
from tests import formulas, formulas_searched
from tests.networks import SIZE, images, shared

pytestmark = pytest.mark.usefixtures("one_thread")
TARGET = [1, 2]


@pytest.mark.parametrize(
    "options",
    [
        {"samples": 17, "widths": 2},
        {"samples": 17, "widths": 2, "estimate": "sum"},
        {"samples": 1, "widths": 1, "estimate": "sum"},
        {"samples": 12, "widths": 3, "objective": "remove", "estimate": "sum"},
        {"samples": 12, "widths": 1, "narrow": 0.3, "wide": 0.3, "objective": "keep", "eps": 0.0},
        {"samples": 12, "widths": 3, "objective": "remove", "score": "logit"},
    ],
    ids=lambda o: "-".join(map(str, o.values())),
)
@pytest.mark.parametrize("name", ["deep", "vit"])
def test_aise(name: str, options: dict) -> None:
    """In float64 on both sides, for a search may turn elsewhere on a difference of rounding."""
    net, x = copy.deepcopy(shared(name).module).double(), images().double()
    narrow, wide, count = options.get("narrow", 0.1), options.get("wide", 0.25), options["widths"]
    widths = [narrow + k * (wide - narrow) / max(1, count - 1) for k in range(count)]
    kept = {k: v for k, v in options.items() if k in ("samples", "eps", "objective", "estimate")}
    probability = options.get("score") != "logit"
    raw = [
        formulas_searched.aise(net, image, c, widths=widths, probability=probability, **kept)
        for image, c in zip(x, TARGET, strict=True)
    ]
    raw = torch.tensor(raw, dtype=torch.float64)
    exp = CAM(net, "aise", **options).explain(x, target=torch.tensor(TARGET))
    torch.testing.assert_close(exp.raw, raw, rtol=0, atol=1e-8 * float(raw.abs().max()))
    torch.testing.assert_close(exp.maps.double(), formulas.finish(raw, SIZE, "never"), rtol=0, atol=1e-6)


def hills(seed: int):
    g = torch.Generator().manual_seed(seed)
    x, y = torch.rand(2, 4, generator=g, dtype=torch.float64).tolist()
    depth = (2 * torch.rand(4, generator=g, dtype=torch.float64) - 1).tolist()
    spread = (0.1 + 0.3 * torch.rand(4, generator=g, dtype=torch.float64)).tolist()

    def function(u: float, v: float) -> float:
        each = zip(x, y, depth, spread, strict=True)
        return -math.fsum(d * math.exp(-((u - a) ** 2 + (v - b) ** 2) / (2 * s * s)) for a, b, d, s in each)

    return function


def search(function, count: int, eps: float) -> list[tuple[float, float]]:
    direct = Direct(count, eps)
    while not direct.done:
        points = direct.ask()
        direct.tell(points, [function(*point) for point in points])
    assert [function(*point) for point in direct.points] == direct.values
    return direct.points


@pytest.mark.parametrize("eps", [0.0, 1e-4, 0.1])
@pytest.mark.parametrize("seed", range(6))
def test_direct(seed: int, eps: float) -> None:
    function = hills(seed)
    expected = formulas_searched.direct(function, 90, eps)
    found = search(function, 90, eps)
    assert len(found) == 90
    for (x, y), (u, v, _) in zip(found, expected, strict=True):
        assert (x, y) == pytest.approx((u, v), abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_direct_is_scipys(seed: int) -> None:
    """The same points at first. Later SciPy also divides rectangles above the hull, which the paper does not."""
    optimize = pytest.importorskip("scipy.optimize")
    function, theirs = hills(seed), []

    def kept(point) -> float:
        theirs.append(tuple(point))
        return function(*point)

    best = optimize.direct(kept, [(0, 1), (0, 1)], eps=0.1, maxfun=90, locally_biased=False, vol_tol=0, len_tol=0).fun
    ours = search(function, 90, 0.1)
    for one, other in zip(ours[:19], theirs[:19], strict=True):
        assert one == pytest.approx(other, abs=1e-9)
    assert min(function(*point) for point in ours) <= best + 0.01


def test_a_flat_function_is_searched_evenly() -> None:
    points = search(lambda u, v: 0.0, 81, 0.1)
    assert len(set(points)) == 81
    thirds = sorted({(round(9 * x - 0.5), round(9 * y - 0.5)) for x, y in points})
    assert thirds == [(x, y) for x in range(9) for y in range(9)]


def test_windows_that_are_all_alike_give_a_zero_map() -> None:
    class Same(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 0 * x.mean((2, 3)) + torch.tensor([0.3, 0.1, 0.7])

    for options in ({}, {"objective": "keep"}, {"samples": 1}):
        assert torch.equal(CAM(Same(), "aise", **options)(images()), torch.zeros(2, *SIZE))


def test_it_finds_the_place() -> None:
    """A model that looks at one corner."""

    class Corner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen = x[:, 0, 20:28, 4:12].mean((1, 2))
            return torch.stack([seen, -seen], 1)

    maps = CAM(Corner(), "aise")(torch.ones(1, 3, 32, 32), target=0)
    top, left = divmod(int(maps[0].argmax()), 32)
    assert 18 <= top <= 29
    assert 2 <= left <= 13


@pytest.mark.parametrize(("objective", "versions"), [("both", 2), ("keep", 1), ("remove", 1)])
def test_the_cost_is_forwards_in_few_rounds(objective: str, versions: int) -> None:
    module = copy.deepcopy(shared("deep").module)
    cam = CAM(module, "aise", samples=15, objective=objective, batch_size=200)
    cam(images())
    seen = []
    module.features[0].register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    cost = cam.explain(images(), target=TopK(2)).cost
    assert sum(seen) == cost.forwards == 2 + 2 * 2 * 3 * 15 * versions
    assert len(seen) <= 1 + 7  # of each width alone it would be 15 rounds, and twelve times as many in all


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"samples": 0}, "samples=0 must be a positive int"),
        ({"widths": 0}, "widths=0 must be a positive int"),
        ({"narrow": 0.0}, "must be positive shares of the image's sides, in order"),
        ({"narrow": 0.3, "wide": 0.2}, "must be positive shares of the image's sides, in order"),
        ({"eps": -0.1}, "eps=-0.1 must be 0 or more"),
        ({"objective": "hide"}, "'both', 'keep', 'remove'"),
    ],
)
def test_options_that_cannot_be(options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CAM(shared("deep").module, "aise", **options)


def test_all_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a search of its own for every class.*TopK\(k\)"):
        CAM(shared("deep").module, "aise")(images(), target="all")
