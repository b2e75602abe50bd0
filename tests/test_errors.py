"""What the public object says of bad input: what was given, what was expected, the mend."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastcam import CAM, AugSmooth, TopK
from tests.networks import settle
from tests.networks_modules import Joined
from tests.small import images, network

BAD = [
    (lambda: CAM(network(), "gradcamm"), ValueError, "nearest: gradcam"),
    (lambda: CAM(network(), "gradcam", "0.9"), ValueError, "nearest: 0"),
    (lambda: CAM(network(), "gradcam", nn.ReLU()), ValueError, "not inside"),
    (lambda: CAM(network(), "gradcam", 3), TypeError, "layer must be"),
    (lambda: CAM(network(), "gradcam", []), ValueError, "empty list"),
    (lambda: CAM(network(), "gradcam", "2")(images()), ValueError, "no spatial map"),
    (lambda: CAM(print, "gradcam"), TypeError, "torch.nn.Module"),
    (lambda: CAM(network(), "gradcam", std=1), TypeError, "no option 'std'"),
    (lambda: CAM(network(), "scorecam", variant="mine"), ValueError, "'paper', 'official'"),
    (lambda: CAM(network(), "sscam", samples=0), ValueError, "positive int"),
    (lambda: CAM(network(), batch_size=0), ValueError, "batch_size"),
    (lambda: CAM(network(), max_memory=0), ValueError, "max_memory"),
    (lambda: CAM(network(), precision="int8"), ValueError, "precision"),
    (lambda: CAM(network(), fusion="sum"), ValueError, "fusion"),
    (lambda: CAM(network())(images(), target=5), ValueError, "classes 0 to 4"),
    (lambda: CAM(network())(images(), target=-1), ValueError, "out of range"),
    (lambda: CAM(network())(images(), target=[1]), ValueError, "batch of 2"),
    (lambda: CAM(network())(images(), target=[1, 2, 3]), ValueError, "batch of 2"),
    (lambda: CAM(network())(images(), target=[0.5, 1.5]), TypeError, "integers"),
    (lambda: CAM(network())(images(), target="cat"), ValueError, "only word is 'all'"),
    (lambda: CAM(network())(images(), target=TopK(9)), ValueError, "1 to 5"),
    (lambda: CAM(network())(images(), target=lambda y: y.sum()), ValueError, "one score per row"),
    (lambda: CAM(network())(images(), target=[lambda y: y[:, 0]]), ValueError, "batch of 2"),
    (lambda: CAM(network())(images()[0]), ValueError, "batch axis"),
    (lambda: CAM(network())(images()[:0]), ValueError, "at least one image"),
    (lambda: CAM(network())(images().byte()), TypeError, "floating-point"),
    (lambda: CAM(network())(images().double()), TypeError, "weights torch.float32"),
    (lambda: CAM(network())([1, 2]), TypeError, "floating-point"),
    (lambda: CAM(network())(images()[:, :1]), ValueError, "1 channels"),
    (lambda: CAM(network())(torch.rand(1, 4, 24, 24)), ValueError, "4 channels"),
    (lambda: CAM(network())(images() / 0), ValueError, "NaN or infinite"),
    (lambda: CAM(network())(images().to("meta")), ValueError, "on meta, the model is on cpu"),
    (lambda: CAM(broken(), "gradcam")(images()), ValueError, "check its weights"),
    (lambda: CAM(network(), "cam", "0.1")(images()), ValueError, "use gradcam"),
    (lambda: CAM(network(), "gradcam", "0.1")(images(), target="all"), ValueError, "TopK"),
    (lambda: CAM(network(), output="scores")(images()), ValueError, "output='scores'"),
    (lambda: CAM(network(), "integratedgradcam", baseline=torch.zeros(2))(images()), ValueError, "baseline"),
]


def broken():
    model = network()
    with torch.no_grad():
        model[3].weight[0, 0] = float("nan")
    return model


@pytest.mark.parametrize(("call", "error", "words"), BAD, ids=[words for *_, words in BAD])
def test_bad_input_is_named_and_mended(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_layer_off_the_path():
    model = network()
    model.add_module("unused", nn.Conv2d(3, 3, 3))
    used = nn.Sequential(*list(model.children())[:4])
    model.forward = used.__call__
    with pytest.raises(ValueError, match="'unused' was not reached"):
        CAM(model, "gradcam", "unused")(images())


@pytest.mark.parametrize("method", ["gradcam", AugSmooth("gradcam")])
def test_what_joins_other_inputs_may_have_other_channels(method):
    """The check of channels is for models of one input: here the first convolution sees two, one beside the other."""
    model, x = settle(Joined(), 3), torch.rand(2, 4, 20, 28)
    maps = CAM(model, method, "conv")(x[:, :3], x[:, 3:], target=lambda scores: scores[:, 0, 0])
    assert maps.max() == 1
    with pytest.raises(ValueError, match="3 channels"):
        CAM(model, method, "conv")(x[:, :3], target=lambda scores: scores[:, 0, 0])
