"""Pictures, scaled maps and projections of the pytorch-grad-cam drop-in, against pytorch-grad-cam itself."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

for package in ("pytorch_grad_cam", "cv2", "torchvision"):
    pytest.importorskip(package)
import cv2  # noqa: E402
import pytorch_grad_cam.utils.image as their_image  # noqa: E402
import pytorch_grad_cam.utils.svd_on_activations as their_svd  # noqa: E402

from fastcam.compat.pytorch_grad_cam.utils import colormaps, concepts, image, svd_on_activations  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]
DRAW = np.random.default_rng(0)
PICTURE = np.float32(DRAW.random((23, 31, 3)))
MASK = np.float32(DRAW.random((23, 31)))


@pytest.mark.parametrize("number", range(22))
def test_tables_are_opencvs(number):
    levels = np.arange(256, dtype=np.uint8)[:, None]
    assert np.array_equal(colormaps.table(number), cv2.applyColorMap(levels, number)[:, 0, ::-1])


def test_twelve_tables_need_no_opencv():
    code = """
import sys
sys.modules["cv2"] = None
from fastcam.compat.pytorch_grad_cam.utils.colormaps import table  # noqa: E402
assert all(table(number).shape == (256, 3) for number in range(12))
try:
    table(16)
except ValueError as error:
    assert "OpenCV is not installed" in str(error)
else:
    raise AssertionError
loaded = [name for name in ("torchvision", "scipy", "sklearn", "matplotlib", "ttach") if name in sys.modules]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("bad", [99, -1])
def test_a_number_that_is_no_color_map(bad):
    with pytest.raises(ValueError, match="is not a color map of OpenCV"):
        colormaps.table(bad)
    with pytest.raises(TypeError, match="number of an OpenCV color map"):
        colormaps.table("jet")


@pytest.mark.parametrize("weight", [0, 0.3, 0.5, 1])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_overlay_is_the_same_in_every_byte(weight, kind):
    for number in range(12):
        for rgb in (False, True):
            args = (PICTURE.astype(kind), MASK.astype(kind), rgb, number, weight)
            assert np.array_equal(image.show_cam_on_image(*args), their_image.show_cam_on_image(*args))


def test_overlay_takes_what_scripts_have():
    swapped, writeless = PICTURE[:, :, ::-1], MASK.copy()
    writeless.flags.writeable = False
    theirs = their_image.show_cam_on_image(swapped, writeless)
    assert np.array_equal(image.show_cam_on_image(swapped, writeless), theirs)
    assert np.array_equal(image.show_cam_on_image(swapped, writeless[..., None]), theirs)
    on_tensors = image.show_cam_on_image(torch.from_numpy(swapped.copy()), torch.from_numpy(MASK), colormap=2)
    assert isinstance(on_tensors, torch.Tensor)
    assert np.array_equal(on_tensors.numpy(), theirs)
    of_a_tensor = image.show_cam_on_image(swapped, torch.from_numpy(MASK))  # as the peer gives it
    assert isinstance(of_a_tensor, np.ndarray)
    assert np.array_equal(of_a_tensor, theirs)


def test_overlay_refuses_what_would_wrap_around():
    with pytest.raises(ValueError, match="go up to 2"):
        image.show_cam_on_image(PICTURE * 0 + 2, MASK)
    with pytest.raises(ValueError, match=r"image_weight is 1\.5"):
        image.show_cam_on_image(PICTURE, MASK, image_weight=1.5)
    for wrong in (MASK + 0.5, MASK - 1, MASK * np.nan):
        with pytest.raises(ValueError, match="the mask's values"):
            image.show_cam_on_image(PICTURE, wrong)
    with pytest.raises(ValueError, match="of the same size"):
        image.show_cam_on_image(PICTURE, MASK[:-1])


def test_black_under_black_is_black():
    black = image.show_cam_on_image(np.zeros((2, 2, 3), np.float32), np.zeros((2, 2), np.float32), colormap=11)
    assert np.array_equal(black, np.zeros((2, 2, 3), np.uint8))


@pytest.mark.parametrize("kind", ["float32", "float64", "uint8"])
def test_preprocess_and_deprocess(kind):
    picture = (PICTURE * 255).astype(np.uint8) if kind == "uint8" else PICTURE.astype(kind)
    args = ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    ours, theirs = image.preprocess_image(picture, *args), their_image.preprocess_image(picture, *args)
    assert ours.dtype == theirs.dtype
    assert ours.stride() == theirs.stride()
    assert torch.equal(ours, theirs)
    assert torch.equal(image.preprocess_image(picture), their_image.preprocess_image(picture))
    gray = image.preprocess_image(picture[..., 0], mean=[0.5], std=[0.5])
    assert torch.equal(gray, their_image.preprocess_image(picture[..., 0], mean=[0.5], std=[0.5]))
    assert np.array_equal(image.deprocess_image(picture), their_image.deprocess_image(picture))
    as_tensor = image.deprocess_image(torch.from_numpy(picture)).numpy().astype(int)
    assert np.abs(as_tensor - their_image.deprocess_image(picture)).max() <= 1


def test_preprocess_refuses():
    with pytest.raises(TypeError, match=r"torch\.int64"):
        image.preprocess_image(PICTURE.astype(np.int64))
    with pytest.raises(ValueError, match="2 values of mean for 3 channels"):
        image.preprocess_image(PICTURE, [0.5, 0.5], [0.5])
    with pytest.raises(ValueError, match="holds a 0"):
        image.preprocess_image(PICTURE, std=[1, 0, 1])


@pytest.mark.parametrize("size", [None, (40, 30), (5, 4), (11, 9)])
def test_scaled_maps(size):
    maps = np.float32(DRAW.standard_normal((3, 9, 11)))
    maps[1] = 7  # the same everywhere: zero
    ours, theirs = image.scale_cam_image(maps, size), their_image.scale_cam_image(maps, size)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    tensor = image.scale_cam_image(torch.from_numpy(maps), size)
    assert np.array_equal(tensor.numpy(), ours)
    several = [maps[0], maps[0, :5]] if size else [maps[0], maps[0]]
    np.testing.assert_allclose(
        image.scale_cam_image(several, size), their_image.scale_cam_image(several, size), rtol=0, atol=1e-6
    )


def test_scaled_volumes_stay_in_range():
    volumes = np.float32(DRAW.standard_normal((2, 4, 5, 6)))
    theirs, ours = (who.scale_cam_image(volumes, (12, 10, 8)) for who in (their_image, image))
    assert ours.shape == theirs.shape == (2, 8, 10, 12)
    assert theirs.min() < -0.01
    assert ours.min() >= 0
    assert np.array_equal(image.scale_cam_image(volumes, (12, 10, 8), strict_compat=True), theirs)
    ours, theirs = (who.scale_accross_batch_and_channels(volumes, (12, 10)) for who in (image, their_image))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_concepts_on_a_picture_within_one_level():
    for count in (1, 3, 9):
        maps = np.float32(DRAW.random((count, *MASK.shape)))
        before, colors = maps.copy(), [DRAW.random(3) for _ in range(count)]
        for labels in (None, ["a\nb"] * count):
            theirs = their_image.show_factorization_on_image(PICTURE, maps.copy(), colors, 0.3, labels)
            ours = image.show_factorization_on_image(PICTURE, maps, colors, 0.3, labels)
            assert np.abs(ours.astype(int) - theirs).max() <= 1
            assert np.array_equal(ours[:, MASK.shape[1] :], theirs[:, MASK.shape[1] :])  # the legend
        assert np.array_equal(maps, before)
    import matplotlib as mpl

    theirs = [mpl.colormaps["gist_rainbow"](share)[:3] for share in np.arange(0, 1, 1 / 7)]
    np.testing.assert_allclose(concepts.rainbow(7), theirs, atol=1e-12)
    tensors = image.show_factorization_on_image(torch.from_numpy(PICTURE), torch.from_numpy(maps))
    assert np.array_equal(tensors.numpy(), image.show_factorization_on_image(PICTURE, maps))


def test_hues_are_opencvs_and_colors_its_rounded_ones():
    colors = np.uint8(DRAW.integers(0, 256, (1, 4096, 3)))
    hsv = cv2.cvtColor(colors, cv2.COLOR_RGB2HSV)[0]
    hue, saturation = concepts.hue_and_saturation(torch.from_numpy(colors[0]))
    assert np.array_equal(np.stack([hue, saturation], 1), hsv[:, :2])
    # A row of one pixel is not vectorized, and then OpenCV rounds as well.
    theirs = cv2.cvtColor(hsv[:, None], cv2.COLOR_HSV2RGB)[:, 0].astype(int)
    ours = concepts.from_hsv(hue, saturation, torch.from_numpy(hsv[:, 2])).numpy()
    assert np.abs(ours - theirs).max() <= 1
    assert (ours != theirs).mean() < 1e-3


def test_legend_texts():
    scores, names = DRAW.random((3, 4)), ["one, first, 1, I", "two", "three", "four"]
    for top in (1, 2, 4):
        assert image.create_labels_legend(scores, names, top) == their_image.create_labels_legend(scores, names, top)
    assert image.create_labels_legend(torch.from_numpy(scores), dict(enumerate(names))) == (
        their_image.create_labels_legend(scores, names)
    )
    with pytest.raises(ValueError, match="2 concept_labels for 3 explanations"):
        image.show_factorization_on_image(PICTURE, np.stack([MASK] * 3), concept_labels=["a", "b"])


@pytest.mark.parametrize("shape", [(3, 6, 7, 9), (2, 40, 5, 5)])
def test_projections(shape):
    a = np.float32(DRAW.standard_normal(shape))
    a[0, 0, 0, 0] = np.nan
    before = a.copy()
    theirs, ours = (who.get_2d_projection(a) for who in (their_svd, svd_on_activations))
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), rtol=0, atol=2e-6)
    total = np.nan_to_num(a).sum(1)
    assert ((ours * total).sum((1, 2)) >= 0).all()  # the sign is that of the channels' sum, on every machine
    assert np.array_equal(svd_on_activations.get_2d_projection(a, strict_compat=True), theirs)
    for name in ("get_2d_projection_with_sign_correction", "get_2d_projection_kernel"):
        theirs, ours = (getattr(who, name)(a) for who in (their_svd, svd_on_activations))
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=5e-6)
        assert np.array_equal(getattr(svd_on_activations, name)(torch.from_numpy(a)).numpy(), ours)
    assert np.array_equal(a, before, equal_nan=True)


@pytest.mark.parametrize("kernel", ["rbf", "poly", "cosine", "linear"])
def test_kernels(kernel):
    a = np.float32(DRAW.standard_normal((2, 6, 8, 9)))
    theirs, ours = (who.get_2d_projection_kernel(a, kernel, 0.2) for who in (their_svd, svd_on_activations))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="kernel='tent'"):
        svd_on_activations.get_2d_projection_kernel(a, "tent")
