"""Occlusion and RISE against their loops, captum and scikit-image; their cost, their errors, other runtimes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from fastcam import CAM
from fastcam.methods.random_masks import RandomMasks
from tests import formulas, formulas_perturbed
from tests.networks import SIZE, Toy, images, settle, shared

pytestmark = pytest.mark.usefixtures("one_thread")
TARGET = [1, 2]
NEAR = 2e-5  # of the largest value, float32 against float64


def double(toy: Toy) -> formulas_perturbed.Net:
    return copy.deepcopy(toy.module).double()


def near(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=NEAR * float(expected.abs().max()))


OCCLUSIONS = [
    {"size": 8, "stride": 4},
    {"size": (5, 9), "stride": (3, 4)},
    {"size": 20, "stride": 7, "value": 0.4},
    {"size": 6, "stride": 6, "value": torch.tensor([0.2, -0.1, 0.7]), "score": "probability"},
    {"size": 7, "stride": 5, "value": images(1, seed=9)[0]},
]


@pytest.mark.parametrize("record", ["drop", "position"])
@pytest.mark.parametrize("options", OCCLUSIONS, ids=lambda o: f"{o['size']}-{o['stride']}")
@pytest.mark.parametrize("name", ["deep", "vit"])
def test_occlusion(name: str, options: dict, record: str) -> None:
    toy, x, net = shared(name), images(), double(shared(name))
    pairs = [o if isinstance(o, tuple) else (o, o) for o in (options["size"], options["stride"])]
    value = options.get("value", 0.0)
    if isinstance(value, Tensor):
        value = (value[:, None, None] if value.dim() == 1 else value).double().expand(3, *SIZE)
    aggregate = formulas_perturbed.mean_of_covering if record == "drop" else formulas_perturbed.at_centers
    expected = []
    for image, c in zip(x, TARGET, strict=True):
        probability = options.get("score") == "probability"
        drops, tops, lefts = formulas_perturbed.occlusion(net, image, c, *pairs, value, probability)
        expected.append(aggregate(drops, tops, lefts, pairs[0], *SIZE))
    raw = torch.tensor(expected, dtype=torch.float64)
    exp = CAM(toy.module, "occlusion", record=record, **options).explain(x, target=torch.tensor(TARGET))
    near(exp.raw, raw)
    near(exp.maps, formulas.finish(raw, SIZE))
    torch.testing.assert_close(exp.logits, toy.module(x))


@pytest.mark.parametrize(("size", "stride"), [((6, 6), (4, 4)), ((5, 9), (3, 4)), ((20, 28), (1, 1))])
def test_occlusion_is_captums(size: tuple[int, int], stride: tuple[int, int]) -> None:
    captum = pytest.importorskip("captum.attr")
    toy, x, target = shared("deep"), images(), torch.tensor(TARGET)
    theirs = captum.Occlusion(toy.module).attribute(x, (3, *size), strides=(3, *stride), target=target, baselines=0.1)
    ours = CAM(toy.module, "occlusion", size=size, stride=stride, value=0.1).explain(x, target=target).raw
    near(ours, theirs[:, 0].double())


@pytest.mark.parametrize(("cells", "p"), [(7, 0.5), (3, 0.1), (2, 0.7), (30, 0.4)])
def test_rise(cells: int, p: float) -> None:
    toy, x, net = shared("deep"), images(), double(shared("deep"))
    masks = formulas_perturbed.rise_masks(*SIZE, samples=9, cells=cells, p=p, seed=3)
    raw = [formulas_perturbed.rise(net, image, c, masks, p) for image, c in zip(x, TARGET, strict=True)]
    raw = torch.tensor(raw, dtype=torch.float64)
    cam = CAM(toy.module, "rise", samples=9, cells=cells, p=p, seed=3)
    exp = cam.explain(x, target=torch.tensor(TARGET))
    near(exp.raw, raw)
    spread = float((raw.amax((1, 2)) - raw.amin((1, 2))).min())
    expected = formulas.finish(raw, SIZE, "never")
    torch.testing.assert_close(exp.maps.double(), expected, rtol=0, atol=NEAR * float(raw.max()) / spread)


def test_rise_with_logits_and_functions() -> None:
    toy, x, net = shared("vgg"), images(), double(shared("vgg"))
    masks = formulas_perturbed.rise_masks(*SIZE, samples=6, cells=4, p=0.5)
    raw = torch.tensor([formulas_perturbed.rise(net, image, 2, masks, 0.5, False) for image in x], dtype=torch.float64)
    options = {"samples": 6, "cells": 4}
    near(CAM(toy.module, "rise", score="logit", **options).explain(x, target=2).raw, raw)
    near(CAM(toy.module, "rise", **options).explain(x, target=lambda logits: logits[:, 2]).raw, raw)


SPACES = [((224, 224), 7), ((30, 47), 8), ((9, 5), 2), ((64, 64), 3), ((50,), 7), ((9, 12, 10), 4)]


@pytest.mark.parametrize(("size", "cells"), SPACES)
def test_masks_are_scikit_images(size: tuple[int, ...], cells: int) -> None:
    """The published code's own formula: skimage.transform.resize of order 1, mirrored, then the crop."""
    transform = pytest.importorskip("skimage.transform")
    x = torch.zeros(1, 3, *size, dtype=torch.float64)
    found = RandomMasks.make({"cells": cells, "samples": 5, "p": 0.5, "seed": 1}, x)
    up = [(cells + 1) * -(-pixels // cells) for pixels in size]
    masks = found.masks(0, 5)
    for k, mask in enumerate(masks):
        theirs = transform.resize(found.grids[k].numpy(), up, order=1, mode="reflect", anti_aliasing=False)
        first = [int(offsets[k]) for offsets in found.offsets]
        crop = theirs[tuple(slice(at, at + pixels) for at, pixels in zip(first, size, strict=True))]
        torch.testing.assert_close(mask, torch.from_numpy(crop.copy()), rtol=0, atol=1e-12)
    s = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    whole = torch.tensordot(s, masks, 1)
    torch.testing.assert_close(found.total(s), whole, rtol=0, atol=1e-11)


def of_rank(rank: int) -> tuple[nn.Module, Tensor]:
    """A small network of signals or volumes, and two of them."""
    convolution, pool = {1: (nn.Conv1d, nn.AdaptiveAvgPool1d), 3: (nn.Conv3d, nn.AdaptiveAvgPool3d)}[rank]
    module = nn.Sequential(convolution(2, 6, 3), nn.ReLU(), pool(1), nn.Flatten(), nn.Linear(6, 4))
    size = {1: (41,), 3: (7, 9, 8)}[rank]
    return settle(module, 5), torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("rank", "size", "stride"), [(1, 8, 5), (3, 4, 3), (3, (2, 5, 4), (2, 3, 1))])
def test_occlusion_of_signals_and_volumes_is_captums(rank: int, size, stride) -> None:
    captum = pytest.importorskip("captum.attr")
    (module, x), target = of_rank(rank), torch.tensor(TARGET)
    window, steps = ((2, *([v] * rank if isinstance(v, int) else v)) for v in (size, stride))
    theirs = captum.Occlusion(module).attribute(x, window, strides=steps, target=target, baselines=0.3)
    exp = CAM(module, "occlusion", size=size, stride=stride, value=0.3).explain(x, target=target)
    near(exp.raw, theirs[:, 0].double())
    assert exp.maps.shape == (2, *x.shape[2:])
    position = CAM(module, "occlusion", size=size, stride=stride, record="position").explain(x, target=target)
    assert position.raw.shape == exp.raw.shape


@pytest.mark.parametrize("rank", [1, 3])
def test_rise_of_signals_and_volumes(rank: int) -> None:
    module, x = of_rank(rank)
    exp = CAM(module, "rise", samples=20, cells=3).explain(x, target=torch.tensor([[1, 2], [0, 3]]))
    masks = RandomMasks.make({"cells": 3, "samples": 20, "p": 0.5, "seed": 0}, x).masks(0, 20)
    with torch.no_grad():
        s = torch.stack([module(image * masks[:, None]).softmax(1) for image in x])
    s = torch.stack([s[0][:, [1, 2]], s[1][:, [0, 3]]]).double()
    near(exp.raw, torch.tensordot(s.transpose(1, 2), masks.double(), 1) / 10)


def test_the_crops_are_all_used() -> None:
    found = RandomMasks.make({"cells": 7, "samples": 4000, "p": 0.25, "seed": 0}, torch.zeros(1, 3, 224, 112))
    assert found.offsets[0].unique().tolist() == list(range(32))
    assert found.offsets[1].unique().tolist() == list(range(16))
    assert float(found.grids.mean()) == pytest.approx(0.25, abs=0.005)


@pytest.mark.parametrize(("method", "versions"), [("occlusion", 3 * 5), ("rise", 40)])
@pytest.mark.parametrize("batch_size", ["auto", 7])
def test_the_cost_is_forwards(method: str, versions: int, batch_size) -> None:
    """One forward an image and one a version of it; images that are scored together share the stream."""
    options = {"samples": 40} if method == "rise" else {"size": 8, "stride": 6}
    module = copy.deepcopy(shared("deep").module)
    cam = CAM(module, method, batch_size=batch_size, **options)
    cam(images(3))  # what is measured once is measured
    seen = []
    module.features[0].register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    cost = cam.explain(images(3), target=torch.tensor([[0, 1], [1, 2], [3, 0]])).cost
    assert sum(seen) == cost.forwards == 3 + 3 * versions
    assert (cost.tails, cost.backwards) == (0, 0)
    assert batch_size == "auto" or len(seen) == 1 + -(-3 * versions // 7)


def test_no_mask_is_kept() -> None:
    """Of the masks there are grids and offsets; a chunk holds as many as it has rows."""
    found = RandomMasks.make({"cells": 7, "samples": 1000, "p": 0.5, "seed": 0}, torch.zeros(1, 3, 224, 224))
    held = sum(t.numel() for t in (found.grids, *found.offsets, *found.weights))
    assert held < 4 * 224 * 224


@pytest.mark.parametrize("method", ["occlusion", "rise"])
def test_other_runtimes(method: str) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    toy, x = shared("deep"), images()
    options = {"samples": 12} if method == "rise" else {"size": 10, "stride": 6}
    here = CAM(toy.module, method, **options).explain(x, target=1)
    there = CAM(toy.module, method, runtime="onnxruntime", **options).explain(x, target=1)
    torch.testing.assert_close(there.raw, here.raw, rtol=0, atol=1e-4 * float(here.raw.abs().max()))


def test_a_black_box() -> None:
    """A model of no layer that anyone could name, whose answer is no class: a length of text."""

    class Box(nn.Module):
        def forward(self, x: Tensor) -> list[str]:
            return ["x" * int(10 * image[:, 4:8, 4:8].abs().sum()) for image in x]

    def length(texts: list[str]) -> Tensor:
        return torch.tensor([float(len(text)) for text in texts])

    x = images(2).abs()
    occluded = CAM(Box(), "occlusion", size=4, stride=4).explain(x, target=length)
    for image in occluded.raw:
        assert (image[4:8, 4:8] > 0).all()
        assert image.sum() == image[4:8, 4:8].sum()
    random = CAM(Box(), "rise", samples=300).explain(x, target=length)
    assert (random.maps[:, 4:8, 4:8].mean((1, 2)) > random.maps.mean((1, 2))).all()


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("occlusion", {"size": 0}, "size=0 must be a positive int"),
        ("occlusion", {"size": (4, 2.5)}, "must be a positive int"),
        ("occlusion", {"stride": 0}, "stride=0 must be a positive int"),
        ("occlusion", {"size": 4, "stride": 5}, "would never be covered; give a stride up to the size"),
        ("occlusion", {"record": "mean"}, "'drop', 'position'"),
        ("rise", {"p": 0.0}, "between 0 and 1"),
        ("rise", {"p": 1}, "between 0 and 1"),
        ("rise", {"p": "half"}, "between 0 and 1"),
        ("rise", {"cells": 1}, "cells=1 must be an int of 2 or more"),
        ("rise", {"samples": 0}, "samples=0 must be a positive int"),
    ],
)
def test_options_that_cannot_be(method: str, options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CAM(shared("deep").module, method, **options)


def test_patches_that_do_not_fit() -> None:
    module, x = shared("deep").module, images()
    with pytest.raises(ValueError, match=r"size=21 is larger than the image of 20x28 pixels; give a smaller patch"):
        CAM(module, "occlusion", size=21)(x)
    with pytest.raises(ValueError, match=r"size=\(4, 4, 4\) must be .*, or \(vertical, horizontal\)"):
        CAM(module, "occlusion", size=(4, 4, 4), stride=2)(x)
    with pytest.raises(ValueError, match=r"value has shape .* give one number, \(C,\), or \(C, H, W\)"):
        CAM(module, "occlusion", value=[1.0, 2.0])(x)
    with pytest.raises(ValueError, match="explains the image itself, at no layer"):
        CAM(module, "rise", "features")
