"""Drop-ins with further inputs, classes as tensors, and targets handed to subclasses and hooks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastcam.compat.pytorch_grad_cam import SESS, AblationCAM, FinerCAM, GradCAM
from fastcam.compat.torchcam.methods import SmoothGradCAMpp
from fastcam.compat.torchcam.methods.activation import CAM
from tests.networks import images, shared

pytestmark = pytest.mark.usefixtures("one_thread")


class Weighed(nn.Module):
    """A network whose logits a second input weighs."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x, weight=None):
        y = self.module(x)
        return y if weight is None else y * weight


class Asking(GradCAM):
    """A subclass that scores the targets itself."""

    def get_cam_weights(self, input_tensor, target_layers, targets, activations, grads):
        self.scores = [float(target(output).detach()) for target, output in zip(targets, self.outputs, strict=True)]
        return grads.mean((2, 3))


def toy():
    toy = shared("linear")
    return toy, toy.module.get_submodule(toy.layer)


def test_inputs_that_masked_forwards_would_drop_are_refused():
    one, layer = toy()
    model, x = Weighed(one.module), images()
    weight = torch.linspace(-3, 3, model(x).shape[1])
    with pytest.raises(ValueError, match="further inputs"):
        AblationCAM(model, [layer], strict_compat=True)(x, 1, model_args=(weight,))
    with pytest.raises(TypeError, match="images alone"):
        SESS(model, [layer], num_scales=2)((x, weight))


def test_finercam_hands_targets_to_subclasses_and_to_who_reads_afterwards():
    one, layer = toy()
    x = images()
    cam = FinerCAM(one.module, [layer], base_method=Asking)
    cam(x)
    assert len(cam.base_cam.scores) == len(x)
    versions = FinerCAM(one.module, [layer])(x, aug_smooth=True)
    assert versions.shape == (len(x), *x.shape[2:])


def test_torchcam_takes_a_list_of_class_tensors():
    one, _ = toy()
    extractor = CAM(one.module, one.layer, input_shape=tuple(images().shape[1:]))
    scores = one.module(images())
    classes = scores.argmax(1)
    (found,), (wanted,) = extractor(list(classes), scores), extractor(classes.tolist(), scores)
    assert torch.equal(found, wanted)


def test_a_forward_without_hooks_leaves_the_input_of_smoothgradcampp():
    one, _ = toy()
    x, other = images(), images(seed=8)
    with SmoothGradCAMpp(one.module, one.layer, std=1e-6, input_shape=tuple(x.shape[1:])) as extractor:
        scores = one.module(x)
        (wanted,) = extractor([1, 2], scores, normalized=False)
        scores = one.module(x)
        extractor.disable_hooks()
        one.module(other)
        extractor.enable_hooks()
        (found,) = extractor([1, 2], scores, normalized=False)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-6)
