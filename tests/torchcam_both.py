"""Networks on which torchcam's extractors and ours are asked the same."""

from __future__ import annotations

import copy
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from tests.networks import settle

CLASSES = 5
SEED = 3


def pictures() -> nn.Module:
    """Two layers of 10 x 14 and 5 x 7 cells, then 5 x 7 again, 2 x 2 pooled, linear."""
    layers = [nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.SiLU()]
    layers += [nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, CLASSES)]
    return settle(nn.Sequential(*layers), 1)


def volumes() -> nn.Module:
    """Two layers of 3 x 6 x 8 cells."""
    layers = [nn.Conv3d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv3d(6, 8, 3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool3d(2)]
    return settle(nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, CLASSES)), 1)


def signals() -> nn.Module:
    """Two layers of 20 and 10 samples."""
    layers = [nn.Conv1d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv1d(6, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool1d(2)]
    return settle(nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, CLASSES)), 1)


def pooled() -> nn.Module:
    """One layer, its mean, linear."""
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)]
    return settle(nn.Sequential(*layers), 2)


def inputs(network: str, batch: int = 2) -> Tensor:
    size = {"pictures": (20, 28), "volumes": (6, 12, 16), "signals": (40,), "pooled": (20, 28)}[network]
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(7))


NETWORKS = {make.__name__: make for make in (pictures, volumes, signals, pooled)}
LAYERS = {"pictures": ["2", "4", "6"], "volumes": ["1", "3"], "signals": ["1", "3"], "pooled": "1"}


def ask(
    library: ModuleType,
    name: str,
    network: str | nn.Module,
    x: Tensor,
    layer: Any = None,
    call: dict[str, Any] | None = None,
    **options: Any,
) -> list[Tensor]:
    """The maps of one extractor of a library for one forward, on a copy of the network; `call` is how it is called."""
    module = NETWORKS[network]() if isinstance(network, str) else copy.deepcopy(network)
    layer = LAYERS[network] if layer is None and isinstance(network, str) else layer
    call = {"class_idx": 1} if call is None else call
    with getattr(library, name)(module, layer, input_shape=tuple(x.shape[1:]), **options) as extractor:
        scores = module(x.clone().requires_grad_())
        torch.manual_seed(SEED)
        return extractor(scores=scores, **call)


def distance(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest difference of any value, of maps of the same shapes."""
    assert [cam.shape for cam in ours] == [cam.shape for cam in theirs]
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
