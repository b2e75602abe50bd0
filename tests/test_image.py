"""Pictures in and out: every kind of file, the transforms of torchvision and timm, colors, panels."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastcam import image
from fastcam.image import Preprocess

DATA = Path(image.__file__).parent / "data"
COLORS = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)


def stored(picture: Image.Image, path: Path, **options) -> torch.Tensor:
    picture.save(path, **options)
    return image.read(path)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("chelsea.jpg", (300, 451, 3)), ("coffee.jpg", (400, 600, 3)), ("camera.jpg", (512, 512, 3))],
)
def test_bundled_pictures(name, shape):
    picture = image.read(DATA / name)
    assert picture.shape == shape
    assert picture.dtype == torch.uint8
    gray = (picture[..., 0] == picture[..., 2]).all()
    assert gray == (name == "camera.jpg")


@pytest.mark.parametrize(
    ("mode", "suffix"), [("RGB", "png"), ("RGB", "webp"), ("RGBA", "png"), ("CMYK", "tif"), ("RGB", "bmp")]
)
def test_colors_survive(mode, suffix, tmp_path):
    options = {"lossless": True} if suffix == "webp" else {}
    found = stored(Image.fromarray(COLORS).convert(mode), tmp_path / f"a.{suffix}", **options)
    assert torch.equal(found, torch.from_numpy(COLORS))


@pytest.mark.parametrize(("mode", "suffix"), [("L", "png"), ("L", "gif"), ("LA", "png"), ("P", "png")])
def test_gray_becomes_three_equal_channels(mode, suffix, tmp_path):
    gray = COLORS[..., 0]
    found = stored(Image.fromarray(gray).convert(mode), tmp_path / f"a.{suffix}")
    assert torch.equal(found, torch.from_numpy(gray)[..., None].expand(-1, -1, 3))


def test_black_and_white(tmp_path):
    bits = COLORS[..., 0] > 127
    found = stored(Image.fromarray(bits), tmp_path / "a.png")
    assert torch.equal(found[..., 0], torch.from_numpy(bits) * torch.tensor(255, dtype=torch.uint8))


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    found = stored(Image.fromarray(values), tmp_path / "a.png")
    assert found[0, :, 0].tolist() == [0, 1, 128, 255]


def test_float_pictures(tmp_path):
    found = stored(Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)), tmp_path / "a.tif")
    assert found[0, :, 0].tolist() == [0, 128, 255]
    found = stored(Image.fromarray(np.array([[0.0, 100.0, 255.0]], np.float32)), tmp_path / "b.tif")
    assert found[0, :, 0].tolist() == [0, 100, 255]
    with pytest.raises(ValueError, match=r"c\.tif.*-1 to 2"):
        stored(Image.fromarray(np.array([[-1.0, 2.0]], np.float32)), tmp_path / "c.tif")


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_transparent_pixels_are_white(mode, tmp_path):
    picture = Image.fromarray(np.zeros((2, 2, 4), np.uint8), "RGBA" if mode == "RGBA" else None)
    picture.putpixel((0, 0), (10, 20, 30, 255))
    found = stored(picture.convert(mode), tmp_path / "a.png")
    assert found[0, 0].tolist() == [10, 20, 30]
    assert found[1, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (3, 7)), (6, (0, 3)), (8, (7, 0))])
def test_exif_turns_the_picture_upright(orientation, corner, tmp_path):
    values = np.zeros((4, 8, 3), np.uint8)
    values[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = stored(Image.fromarray(values), tmp_path / "a.png", exif=exif)
    assert [tuple(place) for place in (found[..., 0] == 255).nonzero().tolist()] == [corner]


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    found = stored(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert found[0, 0].tolist() == [255, 0, 0]


def png(width: int, height: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, body) for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("text.png", b"hello", "not a picture .*b'hello'.*convert"),
        ("empty.png", b"", "empty"),
        ("cut.jpg", (DATA / "chelsea.jpg").read_bytes()[:9000], "damaged.*truncated"),
        ("header.jpg", (DATA / "chelsea.jpg").read_bytes()[:200], "damaged"),
        ("short.png", png(100, 100, b"\0" * 50), "damaged"),
        ("bomb.png", png(50_000, 50_000, b"\0" * 50), "2500000000 pixels.*[Ss]hrink"),
    ],
)
def test_bad_files_say_what_was_found(name, content, reason, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"(?s){name}.*{reason}"):
        image.read(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ValueError, match=r"none\.png.*no such file"):
        image.read(tmp_path / "none.png")
    with pytest.raises(ValueError, match="a folder"):
        image.read(tmp_path)


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_b0", "inception_v3", "vit_h_14"])
@pytest.mark.parametrize("picture", ["chelsea.jpg", "portrait"])
def test_preprocess_is_torchvisions(name, picture):
    weights = pytest.importorskip("torchvision").models.get_model_weights(name).DEFAULT
    pixels = image.read(DATA / "chelsea.jpg")
    pixels = pixels.transpose(0, 1).contiguous() if picture == "portrait" else pixels
    found, view = image.preprocess(pixels, Preprocess.from_torchvision(weights))
    assert torch.equal(found, weights.transforms()(Image.fromarray(pixels.numpy())))
    check_view(found, view, weights.transforms().mean, weights.transforms().std)


@pytest.mark.parametrize(
    "changes",
    [{}, {"crop_pct": 0.9, "interpolation": "bilinear"}, {"crop_mode": "squash", "input_size": (3, 96, 64)}],
)
def test_preprocess_is_timms(changes):
    timm = pytest.importorskip("timm")
    config = timm.get_pretrained_cfg("resnet50.a1_in1k").to_dict() | changes
    transform = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=config))
    pixels = image.read(DATA / "coffee.jpg")
    found, view = image.preprocess(pixels, Preprocess.from_timm(config))
    assert torch.equal(found, transform(Image.fromarray(pixels.numpy())))
    check_view(found, view, config["mean"], config["std"])


def check_view(found, view, mean, std):
    """The picture under the map is the very one that the model sees."""
    mean, std = torch.tensor(mean), torch.tensor(std)
    seen = (found.permute(1, 2, 0) * std + mean) * 255
    assert view.dtype == torch.uint8
    torch.testing.assert_close(seen, view.float(), atol=1e-3, rtol=0)


def test_preprocess_of_odd_settings():
    pixels = torch.from_numpy(COLORS)
    same = Preprocess(None, None, mean=(0, 0, 0), std=(1, 1, 1))
    assert torch.equal(image.preprocess(pixels, same)[1], pixels)
    cropped = image.preprocess(pixels, Preprocess(None, (3, 5)))[1]
    assert torch.equal(cropped, pixels[8:11, 12:17])
    with pytest.raises(ValueError, match=r"20 x 30.*smaller than the crop"):
        image.preprocess(pixels, Preprocess(None, 25))
    with pytest.raises(ValueError, match="less extreme"):
        image.preprocess(torch.zeros(1, 300_000, 3, dtype=torch.uint8))
    with pytest.raises(TypeError, match=r"float32.*uint8"):
        image.preprocess(pixels.float())
    with pytest.raises(ValueError, match="channels last"):
        image.preprocess(pixels.permute(2, 0, 1))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"crop": 300}, "larger than size"),
        ({"size": 0}, "above 0"),
        ({"interpolation": "cubic"}, "choose one of nearest"),
        ({"std": (1.0, 0.0, 1.0)}, "std above 0"),
        ({"mean": (0.5,)}, "three numbers"),
    ],
)
def test_wrong_settings(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        Preprocess(**arguments)


def test_timm_settings_that_cannot_be_met():
    config = {"input_size": (1, 28, 28), "mean": (0.5,), "std": (0.5,)}
    with pytest.raises(ValueError, match=r"1 x 28 x 28.*3 channels"):
        Preprocess.from_timm(config)


@pytest.mark.parametrize("name", ["turbo", "viridis", "inferno"])
def test_colormaps_are_the_published_ones(name):
    published = pytest.importorskip("matplotlib").colormaps[name](np.arange(256), bytes=True)[:, :3]
    difference = np.abs(image.colormap(name).numpy().astype(int) - published)
    assert difference.max() <= 4  # straight lines between 17 colors


def test_jet_is_opencvs():
    cv2 = pytest.importorskip("cv2")
    published = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_JET)
    blue_first = published.reshape(256, 3).astype(int)
    assert np.abs(image.colormap("jet").numpy()[:, ::-1] - blue_first).max() <= 4


def test_gray_is_the_value_itself():
    assert torch.equal(image.colormap("gray"), torch.arange(256, dtype=torch.uint8)[:, None].expand(-1, 3))


def test_colorize():
    ramp = torch.linspace(0, 1, 256)
    assert torch.equal(image.colorize(ramp[None], "jet")[0], image.colormap("jet"))
    assert image.colorize(ramp.view(1, 2, 16, 8)).shape == (1, 2, 16, 8, 3)
    with pytest.raises(ValueError, match=r"'hot'.*turbo, jet"):
        image.colorize(ramp[None], "hot")
    with pytest.raises(ValueError, match="-1 to 1"):
        image.colorize(torch.tensor([[-1.0, 1.0]]))
    with pytest.raises(ValueError, match="nan"):
        image.colorize(torch.tensor([[float("nan"), 1.0]]))


def test_overlay_mixes_picture_and_colors():
    pixels, maps = torch.from_numpy(COLORS), torch.rand(20, 30, generator=torch.manual_seed(0))
    colors = image.colormap("turbo")[(maps * 255).round().long()].double()
    expected = (0.75 * pixels.double() + 0.25 * colors).round()
    found = image.overlay(pixels, maps, alpha=0.25)
    assert found.dtype == torch.uint8
    assert (found.double() - expected).abs().max() <= 1
    assert torch.equal(image.overlay(pixels, maps, alpha=0.0), pixels)
    assert torch.equal(image.overlay(pixels, maps, alpha=1.0), image.colorize(maps))


def test_overlay_of_batches_and_targets():
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (2, 6, 7, 3), generator=generator, dtype=torch.uint8)
    maps = torch.rand(2, 3, 6, 7, generator=generator)
    found = image.overlay(pixels, maps)
    for b in range(2):
        assert torch.equal(image.overlay(pixels[b], maps[b]), found[b])
        for t in range(3):
            assert torch.equal(image.overlay(pixels[b], maps[b, t]), found[b, t])
    with pytest.raises(ValueError, match="to fit"):
        image.overlay(pixels, maps[:1])
    with pytest.raises(ValueError, match="to fit"):
        image.overlay(pixels[0], maps)


def test_panel_keeps_every_pixel_and_writes_every_title():
    pictures = [torch.full((60, 100, 3), 40 * n, dtype=torch.uint8) for n in range(5)]
    plain = image.panel(pictures, columns=3)
    for value in (40, 80, 120, 160):
        assert (plain == value).all(-1).sum() == 60 * 100
    titled = image.panel(pictures, ["cat", "", "", "", ""], 3)
    assert titled.shape[1] == plain.shape[1]
    bar = titled.shape[0] - plain.shape[0]
    assert 10 < bar < 40
    above = titled[: bar + 8]
    assert (above[:, :108].float().mean(-1) < 128).sum() > 20  # ink over the first picture
    assert (above[:, 116:] == 255).all()  # and none over the others
    long = image.panel(pictures[:1], ["a very long title that cannot fit in one hundred pixels"])
    assert long.shape[1] == 116
    assert (long[:, :7] == 255).all()


def test_panel_wants_as_many_titles():
    picture = torch.zeros(4, 4, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match="2 pictures, 1 titles"):
        image.panel([picture, picture], ["a"])
    with pytest.raises(ValueError, match="0 pictures"):
        image.panel([])


def test_save(tmp_path):
    path = image.save(torch.from_numpy(COLORS), tmp_path / "new" / "a.png")
    assert torch.equal(image.read(path), torch.from_numpy(COLORS))
    with pytest.raises(ValueError, match=r"unknown suffix '\.xyz'"):
        image.save(torch.from_numpy(COLORS), tmp_path / "a.xyz")
    with pytest.raises(ValueError, match="unknown suffix ''"):
        image.save(torch.from_numpy(COLORS), tmp_path / "a")
