"""Targets, reshape transforms and found layers of the pytorch-grad-cam drop-in, against pytorch-grad-cam itself."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

for package in ("pytorch_grad_cam", "torchvision"):
    pytest.importorskip(package)
import pytorch_grad_cam.utils.find_layers as their_layers  # noqa: E402
import pytorch_grad_cam.utils.model_targets as theirs  # noqa: E402
import pytorch_grad_cam.utils.reshape_transforms as their_reshapes  # noqa: E402

from fastcam.compat.pytorch_grad_cam.utils import find_layers, reshape_transforms  # noqa: E402
from fastcam.compat.pytorch_grad_cam.utils import model_targets as ours  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]
DRAW = torch.Generator().manual_seed(3)
LOGITS = 3 * torch.randn(4, 6, generator=DRAW)

CLASSIFIERS = [
    ("ClassifierOutputTarget", (2,)),
    ("ClassifierOutputSoftmaxTarget", (2,)),
    ("ClassifierOutputReST", (2,)),
    ("BinaryClassifierOutputTarget", (1,)),
    ("BinaryClassifierOutputTarget", (0,)),
    ("SoftmaxOutputTarget", ()),
    ("RawScoresOutputTarget", ()),
    ("FinerWeightedTarget", (2, [1, 4, 5], 0.7)),
]


def score_and_gradient(target, x):
    x = x.clone().requires_grad_()
    score = target(x)
    score.sum().backward()
    return score.detach(), x.grad


@pytest.mark.parametrize(("name", "args"), CLASSIFIERS)
@pytest.mark.parametrize("one", [True, False])
def test_classifier_targets(name, args, one):
    x = LOGITS[0] if one else LOGITS
    for got, expected in zip(
        score_and_gradient(getattr(ours, name)(*args), x),
        score_and_gradient(getattr(theirs, name)(*args), x),
        strict=True,
    ):
        assert got.shape == expected.shape
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_finer_target_in_half_precision():
    x = LOGITS[0] * 8  # the classes compared with have probabilities that float16 calls zero
    exact = ours.FinerWeightedTarget(2, [1, 4], 1)(x.double())
    torch.testing.assert_close(ours.FinerWeightedTarget(2, [1, 4], 1)(x.half()).double(), exact, rtol=2e-3, atol=1e-2)
    with pytest.raises(ValueError, match="comparison_categories is empty"):
        ours.FinerWeightedTarget(2, [], 1)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.float32, np.float64])
def test_segmentation_target(kind):
    output = torch.randn(5, 8, 9, generator=DRAW)
    mask = (np.random.default_rng(0).random((8, 9)) > 0.5).astype(kind)
    got = score_and_gradient(ours.SemanticSegmentationTarget(3, mask), output)
    expected = score_and_gradient(theirs.SemanticSegmentationTarget(3, mask), output)
    torch.testing.assert_close(got[0].double(), expected[0].double(), rtol=1e-6, atol=1e-6)
    assert torch.equal(got[1], expected[1])
    assert torch.equal(ours.SemanticSegmentationTarget(3, torch.from_numpy(mask))(output), got[0])
    # Half precision ends at 65504.
    wide = torch.full((2, 200, 200), 5.0, dtype=torch.float16)
    assert ours.SemanticSegmentationTarget(1, np.ones((200, 200), np.float32))(wide) == 200_000
    with pytest.raises(ValueError, match=r"expected \(classes, H, W\)"):
        ours.SemanticSegmentationTarget(1, mask)(output[None])


def detections(count=7, kind=torch.float32):
    corners = 40 * torch.rand(count, 2, generator=DRAW)
    sides = 5 + 20 * torch.rand(count, 2, generator=DRAW)
    return {
        "boxes": torch.cat([corners, corners + sides], 1).to(kind),
        "labels": torch.arange(count) % 3,
        "scores": torch.rand(count, generator=DRAW).to(kind),
    }


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_detection_target(kind):
    found = detections(kind=kind)
    given = [box.numpy() + shift for box, shift in zip(found["boxes"], (0, 1, 2, 0, 30), strict=False)]
    labels = np.array([0, 1, 2, 5, 1])  # the fourth is another class than the detection's
    results = []
    for who in (ours, theirs):
        now = {name: value.clone() for name, value in found.items()}
        now["boxes"].requires_grad_()
        now["scores"].requires_grad_()
        score = who.FasterRCNNBoxScoreTarget(labels, given)(now)
        score.sum().backward()
        results.append((score.detach(), now["boxes"].grad, now["scores"].grad))
    assert results[0][0] > 2  # several boxes count
    for got, expected in zip(*results, strict=True):
        assert got.shape == expected.shape
        assert got.dtype == expected.dtype == kind
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    as_tensors = ours.FasterRCNNBoxScoreTarget(torch.from_numpy(labels), torch.from_numpy(np.stack(given)))(found)
    torch.testing.assert_close(as_tensors, results[0][0])


def test_detection_target_without_detections_has_a_gradient_of_zero():
    boxes, scores = torch.zeros(0, 4, requires_grad=True), torch.zeros(0)
    score = ours.FasterRCNNBoxScoreTarget([1], [np.zeros(4)])(
        {"boxes": boxes, "labels": torch.zeros(0).long(), "scores": scores}
    )
    assert score.shape == (1,)
    score.backward()
    assert score.item() == 0
    assert boxes.grad is not None


def test_a_box_without_area_hides_no_detection():
    found = detections(2)
    found["boxes"][1] = 0.0
    flat, whole = torch.zeros(4), found["boxes"][0]
    both = [flat.numpy(), whole.numpy()]
    score = ours.FasterRCNNBoxScoreTarget([1, 0], both)(found)
    torch.testing.assert_close(score, 1 + found["scores"][:1])
    with pytest.raises(ValueError, match="1 labels for 2 boxes"):
        ours.FasterRCNNBoxScoreTarget([1], both)


def test_reshape_transforms():
    levels = {"0": torch.randn(2, 3, 8, 8, generator=DRAW), "pool": torch.randn(2, 3, 4, 4, generator=DRAW)}
    assert torch.equal(
        reshape_transforms.fasterrcnn_reshape_transform(levels), their_reshapes.fasterrcnn_reshape_transform(levels)
    )
    vit, swin = torch.randn(2, 1 + 12, 5, generator=DRAW), torch.randn(2, 12, 5, generator=DRAW)
    for name, tokens in (("vit", vit), ("swinT", swin)):
        transform = getattr(reshape_transforms, f"{name}_reshape_transform")
        expected = getattr(their_reshapes, f"{name}_reshape_transform")(tokens, height=3, width=4)
        assert torch.equal(transform(tokens, height=3, width=4), expected)
        with pytest.raises(ValueError, match="height=16, width=16"):
            transform(tokens)
    assert torch.equal(reshape_transforms.swinT_reshape_transform(swin.view(2, 3, 4, 5)), expected)
    with pytest.raises(ValueError, match="one of them 'pool'"):
        reshape_transforms.fasterrcnn_reshape_transform({"0": vit})


def tower():
    shared = nn.ReLU()
    model = nn.Sequential(nn.Conv2d(3, 4, 3), shared, nn.Sequential(nn.Conv2d(4, 4, 1), shared, nn.ReLU6()))
    model.register_module("nothing", None)
    return model


def test_layers_are_found_and_replaced():
    model = tower()
    assert find_layers.find_layer_types_recursive(model, [nn.ReLU]) == [model[1], model[2][1]]
    found = find_layers.find_layer_predicate_recursive(model, lambda layer: isinstance(layer, nn.Conv2d))
    assert found == [model[0], model[2][0]]
    other = copy.deepcopy(model)
    del other._modules["nothing"]  # where the peer falls over
    for who, net in ((find_layers, model), (their_layers, other)):
        old = net[2][0]
        assert who.replace_layer_recursive(net, old, nn.Identity())
        assert not who.replace_layer_recursive(net, old, nn.Identity())
        who.replace_all_layer_type_recursive(net, nn.ReLU, nn.Tanh())
    assert str(model).replace("  (nothing): None\n", "") == str(other)
