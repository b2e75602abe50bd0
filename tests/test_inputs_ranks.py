"""Attributions of signals and volumes: a signal is a picture of one row, a picture a volume of depth one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fastcam import CAM
from tests.networks import settle
from tests.networks_modules import CLASSES

pytestmark = pytest.mark.usefixtures("one_thread")
METHODS = [
    ("saliency", {}),
    ("inputxgradient", {}),
    ("smoothgrad", {"samples": 2}),
    ("integratedgradients", {"samples": 2, "baseline": torch.tensor([0.1, -0.2])}),
    ("deconvnet", {}),
    ("guidedbackprop", {}),
    ("guidedgradcam", {"layer": "3"}),
    ("deeplift", {"baseline": torch.tensor([0.1, -0.2])}),
    ("fullgrad", {}),
    ("fullgrad", {"scale": "channel"}),
    ("fgvis", {"steps": 2}),
]


def network(rank: int, used: int) -> nn.Module:
    """A network for `rank` spatial axes whose kernels reach along the last `used` of them."""
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[rank - 1]
    pool = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[rank - 1]
    mean = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[rank - 1]

    def kernel(size: int) -> tuple[int, ...]:
        return (1,) * (rank - used) + (size,) * used

    layers = [conv(2, 6, kernel(3)), norm(6), nn.ReLU(), pool(kernel(2))]
    layers += [conv(6, 8, kernel(3)), nn.ReLU(), mean(1), nn.Flatten(), nn.Linear(8, CLASSES)]
    return settle(nn.Sequential(*layers), 6)


@pytest.mark.parametrize(("method", "options"), METHODS, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize(("rank", "size"), [(1, (40,)), (3, (14, 18))], ids=["signals", "volumes"])
def test_an_axis_of_one_changes_nothing(rank: int, size: tuple[int, ...], method: str, options: dict) -> None:
    used = len(size)
    x = torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(4))
    flat, seen = (x, x.unsqueeze(2)) if rank == 1 else (x.unsqueeze(2), x)  # of the odd rank, and as pictures
    target = torch.tensor([1, 2])
    one = CAM(network(rank, used), method, **options).explain(flat, target=target)
    two = CAM(network(2, used), method, **options).explain(seen, target=target)
    assert one.attributions is not None
    assert two.attributions is not None
    assert one.attributions.shape == flat.shape
    assert one.maps.shape == (2, *flat.shape[2:])
    pairs: list[tuple[Tensor, Tensor]] = [(one.attributions, two.attributions), (one.maps, two.maps)]
    for found, expected in pairs:
        limit = 1e-5 * float(expected.abs().max())
        torch.testing.assert_close(found.flatten(), expected.flatten(), rtol=0, atol=limit)


@pytest.mark.parametrize(("method", "options"), [METHODS[6], METHODS[8]], ids=["guidedgradcam", "fullgrad"])
def test_volumes_are_resized_along_depth_too(method: str, options: dict) -> None:
    """A volume and the same one seen along another axis have the same map."""
    net = network(3, 3)
    turned = network(3, 3)
    for one, other in zip(net.modules(), turned.modules(), strict=True):
        if isinstance(one, nn.Conv3d) and isinstance(other, nn.Conv3d):
            other.weight.data = one.weight.data.transpose(2, 4)
    x = torch.randn(2, 2, 10, 12, 16, generator=torch.Generator().manual_seed(4))
    one = CAM(net, method, **options).explain(x, target=1).maps
    two = CAM(turned, method, **options).explain(x.transpose(2, 4), target=1).maps
    torch.testing.assert_close(one, two.transpose(1, 3), rtol=0, atol=1e-4)
