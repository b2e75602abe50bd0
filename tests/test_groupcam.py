"""Group-CAM against its loops on every kind of tail; its blur, its cost and its errors."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fastcam import CAM, TopK
from fastcam.methods.groups import blurred, gaussian
from tests import formulas, formulas_perturbed
from tests.networks import CLASSES, SIZE, TOYS, images, shared

pytestmark = pytest.mark.usefixtures("one_thread")
NEAR = 1e-4  # of the sum of the terms, float32 against float64: weights are differences of scores
BLUR = {"kernel": 9, "sigma": 3.0}
HIDDEN = {"image": torch.stack([formulas_perturbed.blur(image, **BLUR) for image in images()])}


def expected(name: str, **options) -> Tensor:
    """Of every class, since where no group raises a class's score its map is zero. (2, CLASSES, h, w)"""
    net = shared(name).halves
    maps = [
        [formulas_perturbed.groupcam(net, x, c, hidden, **options) for c in range(CLASSES)]
        for x, hidden in zip(images().double(), HIDDEN["image"], strict=True)
    ]
    return torch.tensor(maps, dtype=torch.float64)


def check(name: str, raw: Tensor, **options) -> None:
    toy, every = shared(name), torch.arange(CLASSES).expand(2, -1)
    exp = CAM(toy.module, "groupcam", toy.layer, **BLUR, **options).explain(images(), target=every)
    sizes = raw.abs().amax((2, 3))
    assert int((sizes > 1e-6).sum()) >= 2
    for index in torch.cartesian_prod(torch.arange(2), torch.arange(CLASSES)).tolist():
        got, want, size = exp.raw[tuple(index)].double(), raw[tuple(index)], float(sizes[tuple(index)])
        torch.testing.assert_close(got, want, rtol=0, atol=NEAR * size + 1e-9)
        if size > 1e-6:
            shown = formulas.finish(want[None], SIZE)[0]
            torch.testing.assert_close(exp.maps[tuple(index)].double(), shown, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", list(TOYS))
def test_groupcam(name: str) -> None:
    raw = expected(name, groups=3)
    check(name, raw, groups=3)


@pytest.mark.parametrize("name", ["deep", "signed"])
@pytest.mark.parametrize(
    "options", [{"groups": 5}, {"groups": 40}, {"groups": 4, "denoise": 70.0}, {"groups": 1}], ids=str
)
def test_groups_and_denoising(name: str, options: dict) -> None:
    check(name, expected(name, **options), **options)


def test_logits() -> None:
    check("deep", expected("deep", groups=4, probability=False), groups=4, score="logit")


def test_the_toys_tell_groups_apart() -> None:
    """Every option changes the map, so the tests above can fail."""
    maps = [expected("deep", groups=4), expected("deep", groups=2), expected("deep", groups=4, denoise=70.0)]
    maps.append(expected("deep", groups=4, probability=False))
    for i, one in enumerate(maps):
        assert all((one / one.max() - other / other.max()).abs().max() > 1e-3 for other in maps[:i])


@pytest.mark.parametrize(("kernel", "sigma"), [(51, 50.0), (9, 3.0), (1, 2.0)])
def test_the_blur_is_a_convolution_of_the_padded_image(kernel: int, sigma: float) -> None:
    x = torch.randn(2, 3, 40, 70, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    taps = torch.exp(-0.5 * ((torch.arange(kernel, dtype=torch.float64) - kernel // 2) / sigma) ** 2)
    taps /= taps.sum()
    padded = functional.pad(x, [kernel // 2] * 4, mode="reflect")
    theirs = functional.conv2d(padded.flatten(0, 1)[:, None], torch.outer(taps, taps)[None, None]).view_as(x)
    torch.testing.assert_close(blurred(x, {"kernel": kernel, "sigma": sigma}), theirs)


def test_a_blur_wider_than_the_image() -> None:
    """The mirror goes on as often as it takes; torch's own padding refuses."""
    torch.testing.assert_close(gaussian(3, 11, 4.0).sum(1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(gaussian(1, 51, 50.0), torch.ones(1, 1, dtype=torch.float64))
    hidden = torch.stack([formulas_perturbed.blur(image, 61, 20.0) for image in images()[:1, :, :7, :6]])
    torch.testing.assert_close(blurred(images()[:1, :, :7, :6].double(), {"kernel": 61, "sigma": 20.0}), hidden)


@pytest.mark.parametrize(("name", "backwards"), [("linear", 0), ("deep", 4)])
def test_the_cost_is_forwards(name: str, backwards: int) -> None:
    module = copy.deepcopy(shared(name).module)
    cam = CAM(module, "groupcam", "features", groups=3)
    cam(images())
    seen = []
    module.features[0].register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    cost = cam.explain(images(), target=TopK(2)).cost
    groups = {"linear": 3, "deep": 3}[name]
    assert sum(seen) == cost.forwards == 2 + 2 * (1 + 2 * groups)
    assert cost.backwards == backwards


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"groups": 0}, "groups=0 must be a positive int"),
        ({"denoise": 100}, "denoise=100 must be percent"),
        ({"denoise": -1.0}, "denoise=-1.0 must be percent"),
        ({"kernel": 4}, "kernel=4 must be an odd positive int"),
        ({"sigma": 0}, "sigma=0 must be a positive number of pixels"),
        ({"score": "loss"}, "'probability', 'logit'"),
    ],
)
def test_options_that_cannot_be(options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CAM(shared("deep").module, "groupcam", **options)


def test_all_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"masks of its own for every class, groupcam shares none.*TopK\(k\)"):
        CAM(shared("linear").module, "groupcam", "features")(images(), target="all")
