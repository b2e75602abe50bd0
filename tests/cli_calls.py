"""Call the command line in a folder of its own, with a small model in it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from torch import nn

from fastcam import image

pytest.importorskip("typer")
pytest.importorskip("timm")
testing = pytest.importorskip("typer.testing")

from fastcam.cli.app import app  # noqa: E402

DATA = Path(image.__file__).parent / "data"
CHELSEA, COFFEE = str(DATA / "chelsea.jpg"), str(DATA / "coffee.jpg")
TINY = ("--model", "test_cli_model:tiny", "--crop", "32")
MODULE = """
import torch
from torch import nn

def tiny():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 6, 3, 1, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    )

def number():
    return 3
"""
NAMES = ["tiger cat", "tabby", "espresso", "tripod"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Each test has its own working folder, with a small model in it."""
    (tmp_path / "test_cli_model.py").write_text(MODULE)
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.delitem(sys.modules, "test_cli_model", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def run(*arguments: str, code: int = 0):
    result = testing.CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


def fails(*arguments: str) -> str:
    """The one line that a wrong call prints."""
    result = run(*arguments, code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def tiny() -> nn.Module:
    scope: dict = {}
    exec(MODULE, scope)
    return scope["tiny"]().eval()
