"""Small fixed networks, one for each kind of tail a layer can have, with their halves in float64.

`TOYS[name]` builds a `Toy`: the float32 module in eval mode, the name of the layer to explain, and `Halves`
for the formulas. Images are 3 x 20 x 28, maps 5 x 7 (10 x 14 before a max-pool), at most 12 channels.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tests.formulas import Halves
from tests.networks_modules import CLASSES, Inplace, Residual, Swin, Twice, Vit, stem

SIZE = (20, 28)


class Toy(NamedTuple):
    name: str
    module: nn.Module
    layer: str
    halves: Halves
    tail: list[nn.Module] | None = None  # the tail as simple layers, where it is a plain chain: for DeepLIFT


def images(batch: int = 2, seed: int = 7) -> Tensor:
    return torch.randn(batch, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def settle(module: nn.Module, seed: int) -> nn.Module:
    """Seeded weights of useful size and batch statistics that are not trivial; eval mode."""
    g = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if not value.is_floating_point():
            continue
        draw = torch.randn(value.shape, generator=g)
        if name.endswith("running_var"):
            draw = 0.5 + draw.abs()
        elif name.endswith("weight") and value.ndim == 1:
            draw = 1.0 + 0.3 * draw
        elif name.endswith("weight"):
            draw = draw * 1.4 / value[0].numel() ** 0.5
        else:
            draw = 0.3 * draw
        value.copy_(draw)
    return module.eval()


class Chain(nn.Module):
    """features, then a list of layers."""

    def __init__(self, features: nn.Module, *tail: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.tail = nn.Sequential(*tail)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.features(x))


def chain(
    name: str,
    features: nn.Sequential,
    *tail: nn.Module,
    seed: int,
    rescale: bool = True,
    constant: dict[int, float] | None = None,
) -> Toy:
    """`constant`: channels whose normalized features are this value everywhere."""
    module = settle(Chain(features, *tail), seed)
    for k, value in (constant or {}).items():
        features[3].weight.data[k], features[3].bias.data[k] = 0.0, value
    double = copy.deepcopy(module).double()
    assert isinstance(double, Chain)
    learned = [layer for layer in double.tail if isinstance(layer, (nn.Linear, nn.Conv2d))]
    classifier = learned[0].weight.detach() if isinstance(learned[0], nn.Linear) and len(learned) == 1 else None
    halves = Halves(double.features, lambda a, x: double.tail(a), classifier)
    return Toy(name, module, "features", halves, list(double.tail) if rescale else None)


def pool() -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]


def linear() -> Toy:
    """ResNet: ReLU'd features, two of them dead, mean, Linear."""
    dead = {2: -1.0, 7: -1.0}
    return chain("linear", stem(12, nn.ReLU()), *pool(), nn.Linear(12, CLASSES), seed=1, constant=dead)


def signed() -> Toy:
    """EfficientNet: SiLU features, so of both signs, one of them the same everywhere, mean, Linear."""
    flat = {4: 0.7}
    return chain("signed", stem(12, nn.SiLU()), *pool(), nn.Linear(12, CLASSES), seed=2, constant=flat)


def relu_pooled() -> Toy:
    """A ReLU module between the layer and the mean."""
    return chain("relu_pooled", stem(12, nn.Identity()), nn.ReLU(), *pool(), nn.Linear(12, CLASSES), seed=3)


def norm_relu_pooled() -> Toy:
    """BatchNorm and ReLU after the layer: a cell of zeros does not stay zero."""
    tail = (nn.BatchNorm2d(12), nn.ReLU(), *pool(), nn.Linear(12, CLASSES))
    return chain("norm_relu_pooled", stem(12, nn.Identity()), *tail, seed=4)


def conv_classifier() -> Toy:
    """SqueezeNet: the classifier is a 1x1 convolution, then ReLU, then the mean."""
    tail = (nn.Conv2d(12, CLASSES, 1), nn.ReLU(), *pool())
    return chain("conv_classifier", stem(12, nn.ReLU()), *tail, seed=5)


def mlp_head() -> Toy:
    """ConvNeXt-like: mean, LayerNorm, Linear, GELU, Linear."""
    tail = (*pool(), nn.LayerNorm(12), nn.Linear(12, 10), nn.GELU(), nn.Linear(10, CLASSES))
    return chain("mlp_head", stem(12, nn.SiLU()), *tail, seed=6, rescale=False)


def vgg() -> Toy:
    """Max-pool, pool to 3 x 3, and two Linear layers over the flattened map."""
    tail = (nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, 16), nn.ReLU())
    return chain("vgg", stem(8, nn.ReLU(), stride=2), *tail, nn.Linear(16, CLASSES), seed=7)


def deep() -> Toy:
    """A layer in the middle: convolutions, a max-pool and a smooth nonlinearity follow it."""
    # ReLU before the max-pool: the zero reference ties exactly in each window, and the first cell wins.
    tail = (nn.Conv2d(10, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 12, 3))
    more = (nn.BatchNorm2d(12), nn.SiLU(), *pool(), nn.Linear(12, CLASSES))
    return chain("deep", stem(10, nn.ReLU(), stride=2), *tail, *more, seed=8)


def one_channel() -> Toy:
    """A single channel."""
    return chain("one_channel", stem(1, nn.SiLU()), *pool(), nn.Linear(1, CLASSES), seed=16)


def one_row() -> Toy:
    """A map of 1 x 7 cells, ReLU, mean."""
    features = stem(6, nn.SiLU()).append(nn.AdaptiveAvgPool2d((1, 7)))
    return chain("one_row", features, nn.ReLU(), *pool(), nn.Linear(6, CLASSES), seed=17)


def cut(name: str, module: nn.Module, layer: str, head: str, tail: str, seed: int, weight: str = "") -> Toy:
    """A Toy whose halves are two methods of the module; `tail` may overwrite the copy of A it gets."""
    settle(module, seed)
    double = copy.deepcopy(module).double()
    after = getattr(double, tail)
    classifier = getattr(double, weight).weight.detach() if weight else None
    return Toy(name, module, layer, Halves(getattr(double, head), lambda a, x: after(a.clone(), x), classifier))


def inplace() -> Toy:
    toy = cut("inplace", Inplace(), "features", "head", "after", 9, "classifier")
    classifier = copy.deepcopy(toy.module.get_submodule("classifier")).double()
    return toy._replace(tail=[nn.ReLU(), *pool(), classifier])


def residual() -> Toy:
    return cut("residual", Residual(), "stem", "stem", "after_stem", 10)


def residual_branch() -> Toy:
    return cut("residual_branch", Residual(), "conv1", "to_branch", "after_branch", 11)


def swin() -> Toy:
    return cut("swin", Swin(), "block", "to_block", "after", 12)


def vit() -> Toy:
    return cut("vit", Vit(), "blocks.0", "grid", "after", 13)


def twice() -> Toy:
    toy = cut("twice", Twice(), "relu", "last", "after", 14, "fc")
    return toy._replace(tail=[*pool(), copy.deepcopy(toy.module.get_submodule("fc")).double()])


BUILDERS: list[Callable[[], Toy]] = [
    linear, signed, relu_pooled, norm_relu_pooled, conv_classifier, mlp_head, vgg, deep,
    inplace, residual, residual_branch, swin, vit, twice, one_channel, one_row,
]  # fmt: skip
TOYS: dict[str, Callable[[], Toy]] = {builder.__name__: builder for builder in BUILDERS}


@functools.cache
def shared(name: str) -> Toy:
    """One Toy for all tests that leave it as it is."""
    return TOYS[name]()
