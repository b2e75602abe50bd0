"""Real architectures with random weights, at the smallest images they take."""

from __future__ import annotations

import functools
import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Entry(NamedTuple):
    """A network, its image size, its default layer, and how its tail is pooled there ("" where it is not)."""

    name: str
    size: int
    default: str
    tail: str
    inner: str

    def __str__(self) -> str:
        return self.name


ZOO = [
    Entry("torchvision:resnet18", 64, "layer4", "linear", "layer3"),
    Entry("torchvision:resnet50", 64, "layer4", "linear", "layer3.2.conv2"),
    Entry("torchvision:vgg11", 64, "features.19", "", "features.14"),
    Entry("torchvision:densenet121", 64, "features", "relu", "features.denseblock3"),
    Entry("torchvision:squeezenet1_1", 96, "features", "conv", "features.9"),
    Entry("torchvision:mobilenet_v3_small", 96, "features", "general", "features.10"),
    Entry("torchvision:efficientnet_b0", 64, "features", "linear", "features.6"),
    Entry("torchvision:convnext_tiny", 64, "features", "general", "features.6"),
    Entry("torchvision:inception_v3", 128, "Mixed_7c", "linear", "Mixed_7b"),
    Entry("torchvision:googlenet", 96, "inception5b", "linear", "inception5a"),
    Entry("torchvision:regnet_y_400mf", 64, "trunk_output", "linear", "trunk_output.block3"),
    Entry("timm:vit_tiny_patch16_224", 224, "blocks.11.norm1", "", "blocks.10"),
    Entry("timm:swin_tiny_patch4_window7_224", 224, "norm", "linear", "layers.2"),
    Entry("timm:tf_efficientnet_lite0", 96, "bn2", "linear", "conv_head"),
]


@functools.lru_cache(maxsize=2)
def build(entry: Entry) -> nn.Module:
    """The network in evaluation mode, with seeded weights and batch norms that are not the identity."""
    torch.manual_seed(0)
    library, name = entry.name.split(":")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if library == "timm":
            import timm

            model = timm.create_model(name)
        else:
            import torchvision

            options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
            model = getattr(torchvision.models, name)(weights=None, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.uniform_(module.bias, -0.1, 0.2)
    return model.eval()


def images(entry: Entry, batch: int = 2) -> Tensor:
    """Seeded noise. (batch, 3, size, size)"""
    return torch.randn(batch, 3, entry.size, entry.size, generator=torch.Generator().manual_seed(1))
