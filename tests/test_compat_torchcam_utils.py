"""torchcam's overlay_mask: the same picture, with and without matplotlib."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from fastcam.compat.torchcam.utils import overlay_mask
from fastcam.image import COLORMAPS

pytest.importorskip("PIL")
peer = pytest.importorskip("torchcam.utils")
from PIL import Image  # noqa: E402 - asked for above

SIZES = {"L": (7, 9), "RGB": (7, 9, 3), "HSV": (7, 9, 3), "P": (7, 9)}


def picture(mode: str) -> Image.Image:
    shape = SIZES[mode]
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return Image.frombytes(mode, (shape[1], shape[0]), values.tobytes())


def mask(mode: str) -> Image.Image:
    values = np.random.default_rng(1).random((4, 5), dtype=np.float32)
    return Image.fromarray(values if mode == "F" else (255 * values).astype(np.uint8))


@pytest.mark.parametrize("mode", SIZES)
@pytest.mark.parametrize("of", ["F", "L"])
@pytest.mark.parametrize("colors", ["jet", "gray", "viridis", "jet_r"])
def test_the_peers_picture(mode, of, colors):
    ours, theirs = (f(picture(mode), mask(of), colors, alpha=0.35) for f in (overlay_mask, peer.overlay_mask))
    assert ours.mode == theirs.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def test_defaults_are_the_peers():
    ours, theirs = (f(picture("RGB"), mask("F")) for f in (overlay_mask, peer.overlay_mask))
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
    other = overlay_mask(picture("RGB"), mask("F"), alpha=0.69)
    assert np.any(np.asarray(ours) != np.asarray(other))


def test_edges_of_the_colors():
    """0, 1, what lies outside, what is no number, and integers beyond the map."""
    values = np.array([[0.0, 1.0, -3.0, 2.0, np.nan, 0.999]], dtype=np.float32)
    counts = np.array([[0, 1, 15, 16, 100, 5]], dtype=np.int32)
    for one in (values, counts):
        given = Image.fromarray(one)
        back = Image.new("RGB", given.size, (9, 99, 200))
        # Of the peer the colors alone: NaN cannot be resized into other cells, for the sizes are the same.
        ours, theirs = (np.asarray(f(back, given, alpha=0.0)) for f in (overlay_mask, peer.overlay_mask))
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("colors", COLORMAPS)
def test_without_matplotlib(colors, monkeypatch):
    expected = np.asarray(overlay_mask(picture("RGB"), mask("F"), colors, 0.0)).astype(int)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    found = np.asarray(overlay_mask(picture("RGB"), mask("F"), colors, 0.0)).astype(int)
    assert np.abs(found - expected).max() <= (0 if colors in ("jet", "gray") else 5)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        overlay_mask(picture("RGB"), mask("F"), "magma")


def test_jet_loads_no_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert overlay_mask(picture("RGB"), mask("F")).size == (9, 7)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"img": np.zeros((4, 4, 3))}, TypeError, r"PIL\.Image, got ndarray"),
        ({"mask": np.zeros((4, 4))}, TypeError, r"and ndarray"),
        ({"img": Image.new("RGBA", (4, 4))}, ValueError, "'RGBA'"),
        ({"mask": Image.new("RGB", (4, 4))}, ValueError, "one channel"),
        ({"colormap": "missing"}, ValueError, "missing"),
        ({"alpha": 1.0}, ValueError, "1 excluded"),
        ({"alpha": 1}, ValueError, "float"),
        ({"alpha": -0.1}, ValueError, "-0.1"),
    ],
)
def test_bad_input(change, error, says):
    with pytest.raises(error, match=says):
        overlay_mask(**{"img": Image.new("RGB", (4, 4)), "mask": Image.new("L", (4, 4)), **change})
