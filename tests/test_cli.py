"""The command line as a user meets it: what it prints and which files it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import fastcam
from fastcam import CAM, image
from fastcam.ops import BACKENDS, OPS
from tests.cli_calls import CHELSEA, NAMES, TINY, fails, place, run, tiny  # noqa: F401


def test_embedded_model_sees_the_cat():
    found = run("explain", CHELSEA, "--target", "top3", "--json", "--method", "gradcam,eigencam")
    record = json.loads(found.stdout)
    assert record["height"], record["width"] == (300, 451)
    assert record["predictions"][0]["name"] in ("tabby", "tiger cat", "Egyptian cat")
    assert record["targets"] == record["predictions"][:3]
    for method in ("gradcam", "eigencam"):
        entry = record["methods"][method]
        assert len(entry["overlays"]) == 3
        with np.load(entry["maps"]) as stored:
            assert stored["maps"].shape == (3, 224, 224)
            assert stored["raw"].shape == (3, 7, 7)
            assert stored["logits"].shape == (1000,)
            assert stored["target"].tolist() == [row["class"] for row in record["targets"]]
    panel = image.read(record["panel"])
    assert panel.shape[0] > 3 * 224
    assert panel.shape[1] > 3 * 224


def test_explain_is_the_library():
    """What the command writes is what the same calls in Python give."""
    arguments = (
        "explain",
        CHELSEA,
        *TINY,
        "--method",
        "gradcampp",
        "-O",
        "variant=official",
        "--target",
        "2",
    )
    record = json.loads(run(*arguments, "--json", "--colors", "jet", "--alpha", "0.3").stdout)
    images, view = image.preprocess(image.read(CHELSEA), image.Preprocess(37, 32))
    expected = CAM(tiny(), "gradcampp", variant="official").explain(images[None], target=2)
    with np.load(record["methods"]["gradcampp"]["maps"]) as stored:
        torch.testing.assert_close(torch.from_numpy(stored["raw"]), expected.raw[0].float())
        torch.testing.assert_close(torch.from_numpy(stored["maps"]), expected.maps[0])
        torch.testing.assert_close(torch.from_numpy(stored["logits"]), expected.logits[0])
    (overlay,) = record["methods"]["gradcampp"]["overlays"]
    difference = image.read(overlay).int() - image.overlay(view, expected.maps[0], "jet", 0.3).int()
    assert difference.abs().max() <= 1
    assert record["targets"][0]["class"] == 2
    probabilities = expected.logits[0].softmax(0)
    assert record["targets"][0]["probability"] == pytest.approx(float(probabilities[2]), abs=1e-5)
    assert json.loads(Path("fastcam-out/results.jsonl").read_text()) == record


def test_layer_names_and_fusion():
    def maps(layer: str, method: str = "gradcam") -> torch.Tensor:
        record = json.loads(run("explain", CHELSEA, *TINY, "--layer", layer, "--json", "--method", method).stdout)
        assert record["methods"][method]["layer"] == layer.split(",")
        with np.load(record["methods"][method]["maps"]) as stored:
            assert ("raw" in stored) == ("raw_1" not in stored) == ("," not in layer)
            return torch.from_numpy(stored["maps"])

    images, _ = image.preprocess(image.read(CHELSEA), image.Preprocess(37, 32))
    torch.testing.assert_close(maps("1"), CAM(tiny(), "gradcam", "1")(images[None])[0])
    torch.testing.assert_close(maps("1,3"), CAM(tiny(), "gradcam", ["1", "3"])(images[None])[0])


def test_one_bad_picture_does_not_stop_the_others():
    pictures = Path("pictures")
    pictures.mkdir()
    Image.open(CHELSEA).resize((60, 40)).save(pictures / "a.png")
    Image.open(CHELSEA).resize((40, 60)).convert("L").save(pictures / "c.png")
    (pictures / "b.png").write_text("not a picture")
    (pictures / "notes.txt").write_text("left alone: not a picture's suffix")
    Image.new("L", (300_000, 1)).save(pictures / "d.png")
    found = run("explain", pictures, "missing.jpg", *TINY, "--json", code=1)
    records = [json.loads(line) for line in found.stdout.splitlines()]
    assert [Path(record["image"]).name for record in records] == [*(f"{c}.png" for c in "abcd"), "missing.jpg"]
    assert ["error" in record for record in records] == [False, True, False, True, True]
    for number, reason in ((1, "not a picture"), (3, "less extreme"), (4, "no such file")):
        assert records[number]["image"] in records[number]["error"]
        assert reason in records[number]["error"]
    assert [line for line in found.stderr.splitlines() if line.startswith("error: ")] == [
        f"error: {record['error']}" for record in records if "error" in record
    ]
    assert Path(records[2]["panel"]).is_file()


def test_globs_and_equal_names():
    for folder in ("x", "y"):
        Path(folder).mkdir()
        Image.open(CHELSEA).resize((40, 40)).save(f"{folder}/cat.png")
    found = run("explain", "*/cat.png", "x/cat.png", *TINY, "--out", "o", "--classes", "names.txt")
    assert "2 of 2 pictures" in found.stdout
    assert {path.name for path in Path("o").glob("*.panel.png")} == {"cat.panel.png", "cat-2.panel.png"}
    assert any(name in found.stdout for name in NAMES)


def test_text_has_no_color_codes_in_a_pipe():
    for command in (("methods",), ("env",), ("explain", CHELSEA, *TINY)):
        assert "\x1b" not in run(*command).output


@pytest.mark.filterwarnings("ignore:UnflattenedModule cannot be cut")  # what the library says of such a module
@pytest.mark.parametrize("dynamic", [False, True])
def test_exported_program(dynamic):
    """With a batch of exactly one, too, by methods that score many masks."""
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    program = torch.export.export(tiny(), (torch.zeros(1 + dynamic, 3, 32, 32),), dynamic_shapes=shapes)
    torch.export.save(program, "tiny.pt2")

    def raw(method: str, *arguments: str) -> np.ndarray:
        record = json.loads(run("explain", CHELSEA, *arguments, "--method", method, "--json").stdout)
        with np.load(record["methods"][method]["maps"]) as stored:
            return stored["raw"].copy()

    for method in ("gradcam", "scorecam", "ablationcam"):
        expected = raw(method, *TINY)
        np.testing.assert_allclose(raw(method, "--model", "tiny.pt2"), expected, rtol=1e-4, atol=1e-6)


def test_exported_program_of_other_inputs():
    program = torch.export.export(nn.Flatten(), (torch.zeros(2, 3, 32, 32),))
    torch.export.save(program, "two.pt2")
    assert "the input of two.pt2 is 2 x 3 x 32 x 32" in fails("explain", CHELSEA, "--model", "two.pt2")


def test_timm_and_torchvision_models():
    pytest.importorskip("torchvision")
    for name, size in (("timm:test_resnet", 160), ("torchvision:squeezenet1_1", 224)):
        record = json.loads(run("explain", CHELSEA, "--model", name, "--weights", "random", "--json").stdout)
        assert record["model"] == name
        with np.load(record["methods"]["gradcam"]["maps"]) as stored:
            assert stored["maps"].shape == (size, size)


def test_methods_are_those_of_the_registry():
    listed = json.loads(run("methods", "--json").stdout)
    metas = [f"{name}(METHOD)" for name in fastcam.list_meta_methods()]
    assert [row["name"] for row in listed] == [*fastcam.list_methods(), *metas]
    for row in listed:
        assert row["formula"]
        assert row["paper"]
    assert [row["name"] for row in json.loads(run("methods", "*score*", "--json").stdout)] == fastcam.list_methods(
        "*score*"
    )
    text = run("methods").stdout
    for name in fastcam.list_methods():
        assert name in text
    assert "gradcam" in fails("methods", "nothing*")


def test_layers_marks_the_default():
    listed = json.loads(run("layers", *TINY, "--json").stdout)
    assert [(row["name"], row["shape"]) for row in listed][:2] == [
        ("0", [1, 8, 16, 16]),
        ("1", [1, 8, 16, 16]),
    ]
    assert [row["name"] for row in listed if row["default"]] == ["3"]
    assert "default" in run("layers", *TINY).stdout


def test_env():
    found = json.loads(run("env", "--json").stdout)
    assert found["runtimes"]["torch"] == []
    assert found["torch"] == torch.__version__
    assert {(row["op"], row["backend"]) for row in found["ops"]} == {(op, b) for op in OPS for b in BACKENDS}
    text = run("env").stdout
    for word in (*OPS, *BACKENDS, torch.__version__):
        assert word in text


def test_demo():
    found = run("demo", "--methods", "gradcam", "--out", "d")
    panel = image.read("d/demo.png")
    assert panel.shape[0] > 3 * 224
    assert panel.shape[1] == 8 + 2 * (224 + 8)
    for word in ("chelsea", "espresso", "gradcam", "bare forward", "d/demo.png"):
        assert word in found.stdout


def test_demo_names_the_methods_that_its_network_does_not_suit():
    found = run("demo", "--methods", "legrad,gradcam", "--out", "d")
    assert "left out: legrad: this network has no attention" in " ".join(found.stdout.split())
    assert "3 pictures by 1 methods" in " ".join(found.stdout.split())
    found = run("demo", "--methods", "legrad", "--out", "d", code=2)
    assert "no attention" in " ".join(found.stderr.split())


def test_process(tmp_path):
    """As a process of its own: exit codes, standard output, a narrow terminal that knows only ASCII."""
    command = [sys.executable, "-m", "fastcam"]
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "60"}
    methods = subprocess.run([*command, "methods"], capture_output=True, env=ascii_only, check=True)
    assert b"gradcam" in methods.stdout
    assert max(len(line) for line in methods.stdout.splitlines()) <= 60
    wrong = subprocess.run([*command, "methods", "nothing*"], capture_output=True, check=False, text=True)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: no method matches 'nothing*'")


def test_help_does_not_import_torch():
    program = (
        "import sys, fastcam.cli\n"
        "sys.argv = ['fastcam', 'explain', '--help']\n"
        "try: fastcam.cli.main()\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert found.stdout.endswith("0 False\n")
    assert "--target" in found.stdout
