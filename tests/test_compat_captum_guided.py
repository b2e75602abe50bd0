"""captum's GuidedGradCam, against captum itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

captum = pytest.importorskip("captum.attr")
from fastcam.compat.captum import attr as ours  # noqa: E402 - captum is asked for above
from tests.networks import images, settle, shared  # noqa: E402
from tests.networks_modules import Joined  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:(Setting|Input Tensor):UserWarning"),  # captum's own
]

CLOSE = 2e-6  # of the largest value


def close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    top = float(expected.detach().abs().max())
    assert top > 1e-8
    assert float((found - expected).detach().abs().max()) <= CLOSE * top


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("target", [1, [0, 2]])
def test_guided_grad_cam(mode, target):
    module = shared("vgg").module
    found, expected = (
        one.GuidedGradCam(module, module.features).attribute(images(), target, interpolate_mode=mode)
        for one in (ours, captum)
    )
    close(found, expected)


def test_guided_grad_cam_of_several_inputs():
    given, joined = (images(), images(2, 1)[:, :1]), settle(Joined(), 3)
    found, expected = (one.GuidedGradCam(joined, joined.conv).attribute(given, (0, 1)) for one in (ours, captum))
    assert isinstance(found, tuple)
    for a, b in zip(found, expected, strict=True):
        close(a, b)


def test_guided_grad_cam_follows_functions_too():
    """captum changes modules only, and says so; the paper's rule is one of all ReLUs."""

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.tail = shared("vgg").module.features, shared("vgg").module.tail

        def forward(self, x: Tensor) -> Tensor:
            for part in [*self.features, *self.tail]:
                x = functional.relu(x) if isinstance(part, nn.ReLU) else part(x)
            return x

    net, module = Functional().eval(), shared("vgg").module
    found, expected = (
        one.GuidedGradCam(m, m.tail[0]).attribute(images(), 1) for one, m in ((ours, net), (captum, module))
    )
    close(found, expected)
    theirs = captum.GuidedGradCam(net, net.tail[0]).attribute(images(), 1)
    assert not torch.allclose(found, theirs, rtol=0.1)


def test_an_input_without_a_map_is_empty():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 4, 3), nn.ReLU()

        def forward(self, x: Tensor, bias: Tensor) -> Tensor:
            return self.relu(self.conv(x)).mean((2, 3)) + bias

    net = Net().eval()
    given = (images(), torch.zeros(2, 4))
    with pytest.warns(UserWarning, match="input 1 of shape"):
        found = ours.GuidedGradCam(net, net.conv).attribute(given, 1)
    assert [tuple(one.shape) for one in found] == [(2, 3, 20, 28), (0,)]


def test_a_model_in_training_mode_is_explained_in_evaluation_mode():
    """captum runs the two factors in training mode, each with a dropout of its own."""
    plain = shared("vgg").module
    module = nn.Sequential(plain.features, *plain.tail[:3], nn.Dropout(0.5), *plain.tail[3:])
    expected = ours.GuidedGradCam(module, plain.features).attribute(images(), 1)
    module[4].train()
    close(ours.GuidedGradCam(module, plain.features).attribute(images(), 1), expected)
    assert module[4].training
    theirs = captum.GuidedGradCam(module, plain.features).attribute(images(), 1)
    assert not torch.allclose(theirs, expected, rtol=0.1)


def test_bad_input():
    module = shared("linear").module
    with pytest.raises(TypeError, match=r"model must be an nn\.Module"):
        ours.GuidedGradCam(module.forward, module.features)
