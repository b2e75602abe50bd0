"""Small fixed networks of signals and of volumes, with their halves as the formulas of pictures want them.

A signal of l samples is a picture of 1 x l, a volume one of d*h x w, for every formula that only sums over cells.
"""

from __future__ import annotations

import copy
import functools
import math

import torch
from torch import Tensor, nn

from tests.formulas import Halves
from tests.networks import Chain, Toy, settle

SIZES = {1: (40,), 3: (6, 8, 10)}  # of the images; a layer has half of each
CLASSES = 5


def images(rank: int, batch: int = 2, seed: int = 7) -> Tensor:
    return torch.randn(batch, 3, *SIZES[rank], generator=torch.Generator().manual_seed(seed))


def folded(x: Tensor) -> Tensor:
    """(n, C, *space) as pictures."""
    return x.reshape(*x.shape[:2], -1, x.shape[-1])


def spread(x: Tensor, like: tuple[int, ...]) -> Tensor:
    return x.reshape(*x.shape[:2], *like)


def cells(rank: int) -> tuple[int, ...]:
    return tuple(n // 2 for n in SIZES[rank])


def kinds(rank: int) -> dict[str, type[nn.Module]]:
    """Conv1d or Conv3d and so on, by their names without the rank."""
    names = ("Conv", "BatchNorm", "AdaptiveAvgPool", "MaxPool")
    return {name: getattr(nn, f"{name}{rank}d") for name in names}


def stem(rank: int, channels: int, last: nn.Module) -> nn.Sequential:
    k = kinds(rank)
    first, second = k["Conv"](3, 6, 2, 2), k["Conv"](6, channels, 3, padding=1, bias=False)
    return nn.Sequential(first, nn.ReLU(), second, k["BatchNorm"](channels), last)


def tails(rank: int) -> dict[str, tuple[nn.Module, list[nn.Module]]]:
    """What follows the layer: the layer's own activation, and the tail."""
    k = kinds(rank)
    pool = [k["AdaptiveAvgPool"](1), nn.Flatten()]
    deep = [k["Conv"](8, 6, 3, padding=1), nn.ReLU(), k["MaxPool"](2), k["Conv"](6, 6, 1), k["BatchNorm"](6), nn.SiLU()]
    return {
        "linear": (nn.ReLU(), [*pool, nn.Linear(8, CLASSES)]),
        "norm_relu": (nn.Identity(), [k["BatchNorm"](8), nn.ReLU(), *pool, nn.Linear(8, CLASSES)]),
        "conv_classifier": (nn.ReLU(), [k["Conv"](8, CLASSES, 1), nn.ReLU(), *pool]),
        "conv_head": (nn.SiLU(), [k["AdaptiveAvgPool"](1), k["Conv"](8, CLASSES, 1), nn.Flatten()]),
        "deep": (nn.ReLU(), [*deep, *pool, nn.Linear(6, CLASSES)]),
    }


TAILS = tuple(tails(1))


@functools.cache
def shared(rank: int, name: str) -> Toy:
    last, tail = tails(rank)[name]
    module = settle(Chain(stem(rank, 8, last), *tail), seed=rank)
    module.features[3].weight.data[2], module.features[3].bias.data[2] = 0.0, -1.0  # dead behind a ReLU, else constant
    double = copy.deepcopy(module).double()
    learned = [layer for layer in double.tail if isinstance(layer, nn.Linear)]
    halves = Halves(
        lambda x: folded(double.features(spread(x, SIZES[rank]))),
        lambda a, x: double.tail(spread(a, cells(rank))),
        learned[0].weight.detach() if name == "linear" else None,
    )
    return Toy(name, module, "features", halves)


def as_picture_network(module: nn.Module, rank: int) -> nn.Module:
    """The same network for pictures: of signals of height 1, or of slices where the volume's depth is 1."""
    twin = copy.deepcopy(module)
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, (nn.Conv1d, nn.Conv3d)):
                setattr(parent, name, _picture_convolution(child, rank))
            elif isinstance(child, (nn.BatchNorm1d, nn.BatchNorm3d)):
                norm = nn.BatchNorm2d(child.num_features)
                norm.load_state_dict(child.state_dict())
                setattr(parent, name, norm)
            elif isinstance(child, (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool3d)):
                setattr(parent, name, nn.AdaptiveAvgPool2d(1))
            elif isinstance(child, (nn.MaxPool1d, nn.MaxPool3d)):
                setattr(parent, name, nn.MaxPool2d((1, 2) if rank == 1 else 2))
    return twin.eval()


def _picture_convolution(conv: nn.Module, rank: int) -> nn.Conv2d:
    def two(values: tuple[int, ...], missing: int) -> tuple[int, int]:
        return (missing, values[0]) if rank == 1 else (values[1], values[2])

    assert isinstance(conv, (nn.Conv1d, nn.Conv3d))
    size, stride, padding = two(conv.kernel_size, 1), two(conv.stride, 1), two(tuple(map(int, conv.padding)), 0)
    new = nn.Conv2d(conv.in_channels, conv.out_channels, size, stride, padding, bias=conv.bias is not None)
    weight = conv.weight.detach()
    new.weight.data.copy_(weight.unsqueeze(2) if rank == 1 else weight[:, :, weight.shape[2] // 2])
    if conv.bias is not None and new.bias is not None:
        new.bias.data.copy_(conv.bias.detach())
    return new


def count(rank: int) -> int:
    return math.prod(SIZES[rank])
