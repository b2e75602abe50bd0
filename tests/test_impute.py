"""ROAD's imputation: hand-made values, a sparse direct solver, the promised error, and the peers' imputers."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest
import torch

from fastcam import ops
from fastcam.ops import impute_pixels, native

sparse = pytest.importorskip("scipy.sparse")
linalg = pytest.importorskip("scipy.sparse.linalg")

SIZE = 96


def exact(image, removed):
    """Float64 values (C, H, W) of one image by SciPy's sparse LU, from the definition: A u = b over pixel pairs."""
    height, width = removed.shape
    rows, columns, weights = [], [], []
    index = np.arange(height * width).reshape(height, width)
    for dy, dx, weight in ((0, 1, 2), (1, 0, 2), (1, 1, 1), (1, -1, 1)):
        a = index[: height - dy, max(0, -dx) : width - max(0, dx)].ravel()
        b = index[dy:, max(0, dx) : width - max(0, -dx)].ravel()
        rows += [a, b]
        columns += [b, a]
        weights += [np.full(2 * len(a), float(weight))]
    graph = sparse.csr_array(
        (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))), (index.size, index.size)
    )
    laplacian = sparse.diags_array(graph.sum(1)) - graph
    hole = removed.numpy().ravel()
    values = image.double().flatten(1).numpy().copy()
    inside = linalg.splu(laplacian[hole][:, hole].tocsc())
    values[:, hole] = inside.solve(graph[hole][:, ~hole] @ values[:, ~hole].T).T
    return torch.from_numpy(values).view(image.shape)


def smooth(seed, size=SIZE, cells=7):
    """A map as methods make them: (size, size), bilinear from few cells."""
    coarse = torch.rand((1, 1, cells, cells), generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")[0, 0]


def picture(seed, size=SIZE, colors=3):
    return torch.randn((colors, size, size), generator=torch.Generator().manual_seed(seed))


def holes(size=SIZE):
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    noise = torch.rand((size, size), generator=torch.Generator().manual_seed(5))
    snake = torch.ones(size, size, dtype=torch.bool)
    snake[1::4, :-1] = False
    snake[3::4, 1:] = False
    return {
        **{f"map_{p}": smooth(p, size) > smooth(p, size).quantile(p / 100) for p in (10, 50, 90)},
        **{f"noise_{p}": noise < p for p in (0.1, 0.5, 0.99)},
        "kept_corner": (y > 0) | (x > 0),
        "kept_center": (y != size // 2) | (x != size // 2),
        "kept_row": y < size - 1,
        "sparse": (y % 20 > 0) | (x % 20 > 0),
        "stripes": x % 3 > 0,
        "snake": snake,
    }


def test_removed_pixels_at_each_place_by_hand():
    x = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 10]], dtype=torch.float64)
    for place, value in {
        (1, 1): (2 * (2 + 4 + 6 + 8) + (1 + 3 + 7 + 10)) / 12,
        (0, 0): (2 * (2 + 4) + 5) / 5,
        (2, 2): (2 * (6 + 8) + 5) / 5,
        (0, 1): (2 * (1 + 3 + 5) + (4 + 6)) / 8,
        (1, 0): (2 * (1 + 5 + 7) + (2 + 8)) / 8,
    }.items():
        removed = torch.zeros(1, 3, 3, dtype=torch.bool)
        removed[0][place] = True
        for dtype, tolerance in ((torch.float64, 1e-14), (torch.float32, 1e-6)):
            out = impute_pixels(x.to(dtype)[None, None], removed)[0, 0]
            assert out[place] == pytest.approx(value, rel=tolerance)
            out[place] = x[place]
            assert torch.equal(out, x.to(dtype))


def test_two_removed_pixels_depend_on_each_other():
    """(0 a b 12): a = b / 2 and b = (a + 12) / 2, so a = 4 and b = 8."""
    x, removed = torch.tensor([0.0, -7, 99, 12]), torch.tensor([False, True, True, False])
    for shape in ((1, 1, 1, 4), (1, 1, 4, 1)):
        out = impute_pixels(x.view(shape), removed.view(1, *shape[2:]))
        assert out.flatten().tolist() == pytest.approx([0, 4, 8, 12], abs=1e-5)


def test_a_ramp_and_a_constant_come_back():
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(30.0), indexing="ij")
    ramp = (3 * x - 2 * y + 5).expand(1, 2, -1, -1)
    removed = torch.zeros(1, 40, 30, dtype=torch.bool)
    removed[0, 3:-2, 4:-1] = True
    damaged = torch.where(removed[:, None], -1000.0, ramp)
    assert (impute_pixels(damaged, removed) - ramp).abs().max() < 2**-20 * 200 + 1e-5
    flat = torch.full((1, 2, 40, 30), 0.3)
    assert torch.equal(impute_pixels(torch.where(removed[:, None], -1000.0, flat), removed), flat)


@pytest.mark.parametrize("name", holes())
def test_the_error_is_within_the_promise(name):
    removed = holes()[name]
    for image in (picture(0), picture(1) * 1e-20 + 3e-20, picture(2, colors=4) / 8 + 64, picture(3) * 1e30):
        kept = image.double()[:, ~removed]
        low, high = kept.amin(1)[:, None], kept.amax(1)[:, None]
        allowed = 2**-20 * (high - low) + 2**-24 * torch.maximum(low.abs(), high.abs())
        want, got = exact(image, removed)[:, removed], impute_pixels(image[None], removed[None])[0, :, removed]
        assert ((got.double() - want).abs() <= allowed).all()
        assert ((got >= low.float()) & (got <= high.float())).all()


@pytest.mark.parametrize("percentile", [10, 90])
def test_full_size_equals_the_sparse_solver(percentile):
    image, saliency = picture(4, 224), smooth(9, 224)
    removed = saliency >= saliency.flatten().kthvalue(percentile * 224 * 224 // 100).values
    want = exact(image, removed)
    span = image[:, ~removed].max() - image[:, ~removed].min()
    assert (impute_pixels(image[None], removed[None])[0] - want).abs().max() <= 2**-20 * span


def test_the_reference_equals_the_sparse_solver_along_both_axes():
    image, removed = picture(5, 48)[:, :33], (smooth(5, 48) > 0.4)[:33]
    want = exact(image, removed)
    for x, hole, expected in ((image, removed, want), (image.mT, removed.mT, want.mT)):
        out = impute_pixels.reference(x[None].double(), hole[None])[0]
        assert out.is_contiguous()
        assert (out - expected).abs().max() < 1e-12


def test_what_stands_on_removed_pixels_does_not_matter():
    image, removed = picture(6)[None], holes()["map_50"][None]
    out = impute_pixels(image, removed)
    assert torch.equal(out[:, :, ~removed[0]], image[:, :, ~removed[0]])
    for value in (0.0, -1e30, math.nan, math.inf):
        damaged = torch.where(removed[:, None], value, image)
        assert torch.equal(impute_pixels(damaged, removed), out)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_kept_pixel_that_is_not_finite_spoils_its_channel_only(value, backend):
    image, removed = picture(7, 20)[None].repeat(2, 1, 1, 1), (smooth(7, 20) > 0.5).repeat(2, 1, 1)
    with ops.use(backend):
        whole = impute_pixels(image, removed)
        spoiled = image.clone()
        place = tuple((~removed[0]).nonzero()[0])
        spoiled[(1, 2, *place)] = value
        out = impute_pixels(spoiled, removed)
    assert out[1, 2][removed[1]].isnan().all()
    assert torch.equal(out[1, 2][~removed[1]].nan_to_num(), spoiled[1, 2][~removed[1]].nan_to_num())
    assert torch.equal(out[0], whole[0])
    assert torch.equal(out[1, :2], whole[1, :2])


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_nothing_and_everything_removed(backend):
    image = picture(8, 10)[None]
    with ops.use(backend):
        out = impute_pixels(image, torch.zeros(1, 10, 10, dtype=torch.bool))
        assert torch.equal(out, image)
        assert out.data_ptr() != image.data_ptr()
        out = impute_pixels(image, torch.ones(1, 10, 10, dtype=torch.bool))
        mean = image.double().mean((2, 3), keepdim=True).expand_as(out)
        assert (out - mean).abs().max() < 1e-7
        one = torch.tensor([[[[5.0]]]])
        assert impute_pixels(one, torch.ones(1, 1, 1, dtype=torch.bool)).item() == 5


def test_images_that_miss_the_tolerance_go_to_the_reference(monkeypatch):
    image, removed = picture(9, 30).repeat(3, 1, 1, 1), torch.stack([smooth(k, 30) > 0.5 for k in (1, 2, 3)])
    removed[1] = False  # nothing to solve: cannot miss
    called = []
    whole = impute_pixels.reference

    def reference(images, mask):
        called.append(len(images))
        return whole(images, mask)

    monkeypatch.setattr(impute_pixels, "reference", reference)
    fast = impute_pixels(image, removed)
    assert called == []
    monkeypatch.setattr(importlib.import_module("fastcam.ops.impute_pixels"), "TOLERANCE", 0.0)
    slow = impute_pixels(image, removed)
    assert called == [2]
    assert torch.equal(slow, whole(image, removed))
    assert (fast - slow).abs().max() < 1e-5


def test_a_batch_is_its_images_on_any_number_of_threads():
    masks = torch.stack(list(holes(64).values()))
    image = picture(10, 64)
    alone = torch.cat([impute_pixels(image[None], mask[None]) for mask in masks])
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            for images in (image.expand(len(masks), -1, -1, -1), image.repeat(len(masks), 1, 1, 1)):
                assert torch.equal(impute_pixels(images, masks), alone)
    finally:
        torch.set_num_threads(before)
    for isa in ("plain", native.build_info()["isa"]):
        with native.use_isa(isa):
            assert torch.equal(impute_pixels(image.expand(len(masks), -1, -1, -1), masks), alone)


@pytest.mark.filterwarnings("ignore")
def test_pytorch_grad_cams_imputer_without_noise():
    road = pytest.importorskip("pytorch_grad_cam.metrics.road")
    image, removed = picture(11, 40), holes(40)["map_50"]
    want = road.NoisyLinearImputer(noise=0)(image, (~removed).float())
    assert (impute_pixels(image[None], removed[None])[0] - want).abs().max() < 1e-5


@pytest.mark.filterwarnings("ignore")
def test_quantus_imputer_without_noise():
    perturb = pytest.importorskip("quantus.functions.perturb_func")
    image, removed = picture(12, 40), holes(40)["map_50"]
    want = perturb.noisy_linear_imputation(image.numpy(), np.flatnonzero(removed.numpy()), noise=0.0)
    assert (impute_pixels(image[None], removed[None])[0] - torch.from_numpy(want)).abs().max() < 1e-5
