"""The networks and the pictures of the benchmarks."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import interpolate

import fastcam
from fastcam import image
from fastcam.cli.models import load as load_demo
from fastcam.image import Preprocess
from fastcam.model.layers import list_layers

PICTURES = sorted((Path(fastcam.__file__).parent / "data").glob("*.jpg"), reverse=True)


@dataclass(frozen=True)
class Subject:
    """A network, real pictures as its input, and the layer it is asked about.

    Attributes:
        name: of the network.
        model: in evaluation mode.
        images: (B, 3, H, W), 224 x 224 where nothing else is asked for.
        layer: dotted name.
        weights: "real" or "random".
    """

    name: str
    model: nn.Module
    images: Tensor
    layer: str
    weights: str

    @property
    def module(self) -> nn.Module:
        return self.model.get_submodule(self.layer)


def subject(
    name: str, layer: str | None, batch: int, device: str, weights: Path | None = None, side: int | None = None
) -> Subject:
    """A network on a device with a batch of the bundled pictures, seen at a layer; None is the last spatial map.

    Args:
        name: "efficientnet_lite0", or a network of torchvision.
        layer: dotted name.
        batch: how many, the bundled ones over and over.
        device: such as "cpu".
        weights: a folder with a `load_weights.py` that has `load(name)`; where it has no weights for this
            network, and without a folder, weights are random.
        side: of the images, in pixels; None is 224.
    """
    model, preprocess, real = network(name, weights)
    pictures = [image.preprocess(image.read(path), preprocess)[0] for path in PICTURES]
    images = torch.stack([pictures[i % len(pictures)] for i in range(batch)]).to(device)
    if side is not None:
        images = interpolate(images, (side, side), mode="bicubic")
    model = model.to(device)
    found = layer or next(info.name for info in list_layers(model, images[:1]) if info.default)
    return Subject(name, model, images, found, "real" if real else "random")


@functools.lru_cache(maxsize=2)
def network(name: str, weights: Path | None) -> tuple[nn.Module, Preprocess, bool]:
    """A network in evaluation mode, how its pictures are prepared, and whether its weights are real."""
    if name == "efficientnet_lite0":
        demo = load_demo(None, None, "cpu")
        return demo.model, demo.preprocess, True
    preprocess = Preprocess()
    real = None if weights is None else from_folder(name, weights)
    if real is not None:
        return real, preprocess, True
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    for module in model.modules():
        if isinstance(module, nn.Linear) and not bool(module.weight.any()):  # a ViT's head starts at zero
            nn.init.normal_(module.weight, std=0.02)
    return model, preprocess, False


def from_folder(name: str, folder: Path) -> nn.Module | None:
    """A network with the weights of a folder; None where the folder has none for it.

    Raises:
        ValueError: there is no `load_weights.py` in the folder.
    """
    loader = _loader(folder)
    return loader.load(name).eval() if name in loader.FILES else None


def weights_file(name: str, folder: Path) -> str | None:
    """The file of a network's weights in a folder, which its `load_weights.py` names in `FILES`.

    Raises:
        ValueError: there is no such script.
    """
    return _loader(folder).FILES.get(name)


@functools.cache
def _loader(folder: Path) -> Any:
    script = folder / "load_weights.py"
    if not script.is_file():
        raise ValueError(f"--weights {folder}: no load_weights.py in it; give the folder that has one")
    spec = importlib.util.spec_from_file_location("load_weights", script)
    assert spec is not None
    assert spec.loader is not None
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    return loader


def halves(subject: Subject) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Head and tail of a torchvision network, put together by hand: what an inner layer's floor is timed on."""
    model, layer = subject.model, subject.layer
    children = dict(model.named_children())
    if "features" in children:
        index = int(layer.removeprefix("features.")) + 1
        features = children.pop("features")
        assert isinstance(features, nn.Sequential)
        rest = [features[index:], children["avgpool"], nn.Flatten(), children["classifier"]]
        return features[:index], nn.Sequential(*rest)
    names = list(children)
    stages = [children[name] for name in names]
    at = names.index(layer) + 1
    return nn.Sequential(*stages[:at]), nn.Sequential(*stages[at:-1], nn.Flatten(), stages[-1])
