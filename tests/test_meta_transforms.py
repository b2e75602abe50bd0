"""Transformations: inverses put an impulse back, intensities are OpenCV's, scikit-image's, SciPy's, torchvision's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import scipy.ndimage
import skimage
import torch
from torch import Tensor
from torchvision.transforms import functional

from fastcam.meta.evet import GEOMETRIC, INTENSITY
from fastcam.meta.geometry import Flip, Identity, Rotate, Scale, Translate
from fastcam.meta.intensity import Bilateral, Brightness, Clahe, Contrast, Equalize, Gamma, Median, luma

pytestmark = pytest.mark.usefixtures("one_thread")


def pictures(batch: int = 2, size: tuple[int, int] = (37, 50), seed: int = 3) -> Tensor:
    """Smooth and noisy, in [0, 1]."""
    g = torch.Generator().manual_seed(seed)
    smooth = torch.nn.functional.interpolate(torch.rand(batch, 3, 5, 6, generator=g), size, mode="bicubic")
    return (smooth + 0.05 * torch.randn(batch, 3, *size, generator=g)).clamp(0, 1)


def arrays(x: Tensor) -> list[np.ndarray]:
    return [one.permute(1, 2, 0).numpy().copy() for one in x]


def check(got: Tensor, want: list[np.ndarray], tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(
        got, torch.stack([torch.from_numpy(w).permute(2, 0, 1) for w in want]).to(got), rtol=0, atol=tolerance
    )


@pytest.mark.parametrize(
    "transform",
    [Identity(), Flip(), Flip(vertical=True), Translate(0.2, -0.3), Rotate(15), Rotate(-70), Scale(0.8), Scale(1.25)],
    ids=repr,
)
@pytest.mark.parametrize("size", [(21, 21), (24, 33)])
def test_an_impulse_comes_back_to_its_place(transform, size) -> None:
    exact = isinstance(transform, (Identity, Flip, Translate))
    height, width = size
    for i, j in ((height // 2, width // 2), (height // 2 + 3, width // 2 - 2)):
        spot = torch.zeros(1, 1, *size)
        spot[0, 0, i, j] = 1
        there, back = transform.apply(spot), transform.invert(transform.apply(spot))
        assert divmod(int(back.argmax()), width) == (i, j)
        if exact:
            assert torch.equal(back, spot)
        elif not isinstance(transform, Scale) or transform.factor > 1:
            y, x = (float((back[0, 0] * axis).sum() / back.sum()) for axis in grid(size))
            assert (y, x) == pytest.approx((i, j), abs=0.3)
        if not isinstance(transform, Identity) and (i, j) != (height // 2, width // 2):
            assert divmod(int(there.argmax()), width) != (i, j)


def grid(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    y, x = torch.meshgrid(torch.arange(size[0]).float(), torch.arange(size[1]).float(), indexing="ij")
    return y, x


@pytest.mark.parametrize("transform", [t for group in GEOMETRIC.values() for t in group], ids=repr)
def test_a_ramp_comes_back_where_it_was_seen(transform) -> None:
    """Bilinear interpolation leaves planes as they are, away from the mirrored edge."""
    for ramp in grid((31, 40)):
        back = transform.invert(transform.apply(ramp[None, None]))[0, 0]
        seen = transform.invert(torch.ones(1, 1, 31, 40))[0, 0]
        inside = scipy.ndimage.binary_erosion((seen > 0.999).numpy(), iterations=2)
        assert inside.mean() > 0.4
        torch.testing.assert_close(back[inside], ramp[inside], rtol=0, atol=2e-4)


def test_what_is_not_shown_is_zero() -> None:
    ones = torch.ones(1, 1, 20, 30)
    assert int(Translate(right=0.1).invert(ones).sum()) == 20 * 27
    assert int(Translate(down=-0.5).invert(ones).sum()) == 10 * 30
    assert float(Scale(2.0).invert(ones).sum()) == pytest.approx(10 * 15, rel=0.1)
    assert float(Scale(0.5).invert(ones).min()) == 1
    assert float(Rotate(15).invert(ones)[0, 0, 0, 0]) == 0


def test_rotation_is_torchvisions() -> None:
    x = pictures(1, (31, 41))
    ours = Rotate(20).apply(x)
    theirs = functional.rotate(x, 20, interpolation=functional.InterpolationMode.BILINEAR)
    torch.testing.assert_close(ours[..., 10:21, 12:29], theirs[..., 10:21, 12:29], rtol=0, atol=2e-3)


def test_contrast_and_brightness_are_torchvisions() -> None:
    for factor in (0.75, 1.25):
        torch.testing.assert_close(
            Contrast(factor).apply(pictures()), functional.adjust_contrast(pictures(), factor), rtol=0, atol=2e-4
        )  # whose weights of the channels have four digits
        torch.testing.assert_close(
            Brightness(factor).apply(pictures()), functional.adjust_brightness(pictures(), factor)
        )


def test_gamma_is_scikit_images() -> None:
    check(Gamma(1.25).apply(pictures()), [skimage.exposure.adjust_gamma(x, 1.25) for x in arrays(pictures())])


def test_equalization_is_scikit_images() -> None:
    """Of the luma; what it adds, every channel gets."""
    x = pictures().double()
    y = luma(x)
    flat = [skimage.exposure.equalize_hist(one[0].numpy(), nbins=256)[..., None] for one in y]
    want = [np.clip(a + f - b, 0, 1) for a, f, b in zip(arrays(x), flat, arrays(y), strict=True)]
    check(Equalize().apply(x), want, 1e-6)
    assert torch.equal(Equalize().apply(torch.full((1, 3, 4, 4), 0.25)), torch.full((1, 3, 4, 4), 0.25))


@pytest.mark.parametrize("size", [(64, 48), (37, 50), (9, 70)])
@pytest.mark.parametrize("options", [{}, {"clip": 0.5}, {"clip": 40.0, "tiles": 3}])
def test_clahe_is_opencvs(size: tuple[int, int], options: dict) -> None:
    gray = (pictures(2, size)[:, :1] * 255).round() / 255
    made = Clahe(**options)
    theirs = cv2.createCLAHE(made.clip, (made.tiles, made.tiles))
    want = [theirs.apply((one[0] * 255).round().byte().numpy())[..., None] / 255 for one in gray]
    got = made.apply(gray)
    assert (got - torch.stack([torch.from_numpy(w) for w in want]).permute(0, 3, 1, 2)).abs().max() <= 1.01 / 255
    assert float((got - gray).abs().max()) > 0.02


@pytest.mark.parametrize("options", [{}, {"radius": 2, "color": 0.05, "space": 1.0}])
def test_bilateral_filter_is_opencvs(options: dict) -> None:
    made = Bilateral(**options)
    want = [cv2.bilateralFilter(x, 2 * made.radius + 1, made.color, made.space) for x in arrays(pictures())]
    check(made.apply(pictures()), want, 2e-4)  # whose exponentials are tabulated
    assert (made.apply(pictures()) - pictures()).abs().max() > 0.02


@pytest.mark.parametrize("size", [3, 5])
def test_median_is_scipys(size: int) -> None:
    want = [scipy.ndimage.median_filter(x, (size, size, 1), mode="nearest") for x in arrays(pictures())]
    check(Median(size).apply(pictures()), want, 0)


@pytest.mark.parametrize("transform", [t for group in INTENSITY.values() for t in group], ids=repr)
def test_intensities_stay_in_range_one_image_like_many(transform) -> None:
    x = pictures(3)
    found = transform.apply(x)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert found.shape == x.shape
    assert (found - x).abs().max() > 0.005
    torch.testing.assert_close(torch.cat([transform.apply(one[None]) for one in x]), found)
    gray = transform.apply(x[:, :1])
    assert gray.shape == (3, 1, 37, 50)
    assert torch.equal(transform.invert(x), x)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Scale(0), "positive"),
        (lambda: Translate(right=1.0), "between -1 and 1"),
        (lambda: Contrast(-1), "at least 0"),
        (lambda: Brightness(float("nan")), "at least 0"),
        (lambda: Gamma(-0.1), "at least 0"),
        (lambda: Median(4), "odd"),
        (lambda: Clahe(clip=0), "above 0"),
        (lambda: Bilateral(radius=0), "positive int"),
    ],
)
def test_values_that_cannot_be(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
