"""What the command line says of wrong arguments, and what it takes: targets, class names, weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fastcam.cli import classes, models, weights
from tests.cli_calls import CHELSEA, NAMES, TINY, app, fails, place, testing, tiny  # noqa: F401


@pytest.mark.parametrize(
    ("arguments", "reasons"),
    [
        (("--method", "gradcamp"), ["unknown method 'gradcamp'", "gradcam,", "fastcam methods"]),
        (("--method", "gradcam", "-O", "samples=3"), ["samples=3", "name=value"]),
        (("--target", "tabbi"), ["no class is named 'tabbi'", "tabby (1)"]),
        (("--target", "cat"), ["no class is named 'cat'", "tiger cat (0)"]),
        (("--target", "4"), ["4"]),
        (("--layer", "7x"), ["no layer named '7x'"]),
        (("--colors", "hot"), ["'hot'", "turbo, jet"]),
        (("--precision", "int8"), ["int8", "float32"]),
        (("--device", "tpu"), ["'tpu'", "--device cpu"]),
        (("--crop", "64", "--size", "32"), ["larger than size"]),
        (("--model", "timm:resnet5O"), ["timm has no model 'resnet5O'", "resnet50"]),
        (("--model", "timm:resnet50.nothing"), ["no pretrained 'resnet50.nothing'", "--weights random"]),
        (("--model", "torchvision:resnet"), ["torchvision has no classifier 'resnet'", "resnet18"]),
        (("--model", "resnet50"), ["timm:NAME", "FILE.pt2"]),
        (("--model", "no_such_module:make"), ["no module named 'no_such_module'"]),
        (("--model", "test_cli_model:tinny"), ["no 'tinny'", "tiny"]),
        (("--model", "test_cli_model:number"), ["gives a int", "nn.Module"]),
        (("--model", "missing.pt2"), ["no such file", "torch.export.save"]),
        (("--model", "names.pt2"), ["not a torch.export program"]),
        (("--mean", "0.5,half,0.5"), ["'0.5,half,0.5' is not three numbers"]),
        (("--out", "names.txt"), ["--out names.txt is a file"]),
        (("--weights", "none.pt"), ["no weights file 'none.pt'"]),
        (("--weights", "names.txt"), ["names.txt"]),
    ],
)
def test_wrong_arguments_are_one_line(arguments, reasons):
    Path("names.pt2").write_text("not an archive")
    line = fails("explain", CHELSEA, *TINY, "--classes", "names.txt", *arguments)
    for reason in reasons:
        assert reason in line


def test_classes_must_fit_the_model():
    Path("three.txt").write_text("a\nb\nc\n")
    assert "3 class names for a model with 4" in fails("explain", CHELSEA, *TINY, "--classes", "three.txt")
    assert "1000 class names for a model with 4" in fails("explain", CHELSEA, *TINY, "--target", "tench")


def test_traceback_on_request(monkeypatch):
    result = testing.CliRunner().invoke(app, ["--traceback", "methods", "nothing*"])
    assert isinstance(result.exception, ValueError)
    monkeypatch.setenv("FASTCAM_TRACEBACK", "1")
    result = testing.CliRunner().invoke(app, ["methods", "nothing*"])
    assert isinstance(result.exception, ValueError)


@pytest.mark.parametrize(
    ("target", "names", "expected"),
    [
        (None, NAMES, None),
        ("7", NAMES, 7),
        ("Tabby", NAMES, 1),
        ("TIGER_cat", NAMES, 0),
        ("crane", None, 517),
    ],
)
def test_targets(target, names, expected):
    assert classes.parse_target(target, names or classes.imagenet()) == expected


def test_class_names():
    names = classes.imagenet()
    assert len(set(names)) == 1000
    assert (names[281], names[967], names[0], names[999]) == ("tabby", "espresso", "tench", "toilet tissue")
    assert classes.fit(None, 3) == ["class 0", "class 1", "class 2"]
    with pytest.raises(ValueError, match=r"names the classes 0, 1"):
        classes.parse_target("cat", ["cat", "Cat"])


@pytest.mark.parametrize("kind", ["pt", "npz", "safetensors", "nested", "wrapped"])
def test_weights_of_every_kind(kind):
    state = {name: tensor + 1 for name, tensor in tiny().state_dict().items()}
    path = Path(f"weights.{'pt' if kind in ('nested', 'wrapped') else kind}")
    if kind == "npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in state.items()})
    elif kind == "safetensors":
        pytest.importorskip("safetensors.torch").save_file(state, path)
    else:
        wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
        torch.save({"pt": state, "nested": {"epoch": 3, "state_dict": state}, "wrapped": wrapped}[kind], path)
    loaded = models.load("test_cli_model:tiny", str(path), "cpu")
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, state[name])
    assert not loaded.model.training


def test_weights_that_do_not_fit():
    state = tiny().state_dict()
    state["extra"] = state.pop("0.weight")
    state["6.bias"] = torch.zeros(9)
    with pytest.raises(ValueError, match=r"1 missing: 0\.weight; 1 unknown: extra; 1 of another shape: 6\.bias \(9,\)"):
        weights.fill(tiny(), state, "x.pt")
    torch.save(tiny(), "whole.pt")
    with pytest.raises(ValueError, match="plain tensors"):
        weights.read_weights(Path("whole.pt"))
    torch.save({"epoch": 3}, "none.pt")
    with pytest.raises(ValueError, match="no tensors"):
        weights.read_weights(Path("none.pt"))


@pytest.mark.parametrize(
    ("package", "reason"), [("typer", "needs typer"), ("rich", "needs rich"), ("PIL", "need Pillow")]
)
def test_missing_extra_says_what_to_install(package, reason):
    program = f"import sys; sys.modules[{package!r}] = None; import fastcam.cli; fastcam.cli.main()"
    command = [sys.executable, "-c", program, "explain", CHELSEA, *TINY]
    found = subprocess.run(command, capture_output=True, check=False, text=True)
    assert found.returncode == 2
    assert reason in found.stderr
    assert "pip install 'fastcam[cli]'" in found.stderr
    assert "Traceback" not in found.stderr
