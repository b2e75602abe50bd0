"""Metrics of the pytorch-grad-cam drop-in, against pytorch-grad-cam itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

for package in ("pytorch_grad_cam", "cv2"):
    pytest.importorskip(package)
import cv2  # noqa: E402
import pytorch_grad_cam as peer  # noqa: E402
from pytorch_grad_cam.metrics import arcc as their_arcc  # noqa: E402
from pytorch_grad_cam.metrics import cam_mult_image as their_products  # noqa: E402
from pytorch_grad_cam.metrics import road as their_road  # noqa: E402

from fastcam import compat  # noqa: E402
from fastcam.compat.pytorch_grad_cam.metrics import arcc, cam_mult_image, otsu, road  # noqa: E402
from fastcam.compat.pytorch_grad_cam.metrics import perturbation_confidence as confidence  # noqa: E402
from fastcam.compat.pytorch_grad_cam.utils.model_targets import (  # noqa: E402
    ClassifierOutputSoftmaxTarget,
    ClassifierOutputTarget,
    RawScoresOutputTarget,
)
from tests.networks import images, shared  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]
TOY = shared("deep")
X = images(3)
DRAW = np.random.default_rng(1)
CAMS = np.float32(DRAW.random((3, *X.shape[2:])))
CAMS[1] = np.round(CAMS[1] * 4) / 4  # many ties
TARGETS = [ClassifierOutputSoftmaxTarget(1), ClassifierOutputTarget(0), lambda output: output[2] - output[1]]
ARGS = (X, CAMS, TARGETS, TOY.module)


@pytest.fixture
def strict():
    """Under the peer's own values, so that its noise is drawn alike."""
    compat.strict_compat(True)
    torch.manual_seed(0)
    yield
    compat.strict_compat(False)


@pytest.mark.parametrize("name", ["CamMultImageConfidenceChange", "DropInConfidence", "IncreaseInConfidence"])
@pytest.mark.parametrize("diff", [True, False])
def test_products(name, diff):
    ours, changed = getattr(cam_mult_image, name)()(*ARGS, return_visualization=True, return_diff=diff)
    theirs = getattr(their_products, name)()(*ARGS, return_diff=diff)
    assert ours.dtype == theirs.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    assert torch.equal(changed, X * torch.from_numpy(CAMS)[:, None])
    as_tensor = getattr(cam_mult_image, name)()(X, torch.from_numpy(CAMS), TARGETS, TOY.module, return_diff=diff)
    assert np.array_equal(as_tensor.numpy(), ours)


@pytest.mark.parametrize("percentile", [15, 50, 80, 100, "auto"])
@pytest.mark.parametrize("name", ["ROADMostRelevantFirst", "ROADLeastRelevantFirst"])
def test_road_with_the_same_noise(name, percentile, strict):
    ours, changed = getattr(road, name)(percentile)(*ARGS, return_visualization=True)
    torch.manual_seed(0)
    theirs, expected = getattr(their_road, name)(percentile)(*ARGS, return_visualization=True)
    torch.testing.assert_close(changed, expected, rtol=0, atol=5e-6)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=5e-6)
    assert ours.dtype == theirs.dtype == np.float32


@pytest.mark.parametrize("name", ["ROADMostRelevantFirstAverage", "ROADLeastRelevantFirstAverage", "ROADCombined"])
def test_road_over_percentiles(name, strict):
    ours = getattr(road, name)([20, 60, 90])
    got = ours(*ARGS)
    torch.manual_seed(0)
    expected = getattr(their_road, name)([20, 60, 90])(*ARGS)
    assert got.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=0, atol=5e-6)
    torch.manual_seed(0)
    np.testing.assert_allclose(ours(X, torch.from_numpy(CAMS), TARGETS, TOY.module).numpy(), got, atol=1e-6)


def test_noise_repeats_and_does_not_depend_on_the_batch():
    first, second = road.ROADCombined([30, 70])(*ARGS), road.ROADCombined([30, 70])(*ARGS)
    assert np.array_equal(first, second)
    alone = [
        road.ROADCombined([30, 70])(X[b : b + 1], CAMS[b : b + 1], [TARGETS[b]], TOY.module)[0] for b in range(len(X))
    ]
    np.testing.assert_allclose(alone, first, rtol=0, atol=1e-6)
    state = torch.get_rng_state()
    changed = [road.ROADMostRelevantFirst(50, seed=seed)(*ARGS, return_visualization=True)[1][0] for seed in (0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    kept = road.ROADMostRelevantFirst(50).perturbation.kept(torch.from_numpy(CAMS))[0].bool()
    assert torch.equal(changed[0][:, kept], X[0][:, kept])
    spread = (changed[0] - changed[1])[:, ~kept].std()
    assert 0.01 < spread < 0.02  # of a difference of two fields of 0.01


def test_auto_fills_in_what_is_relevant():
    cams = np.zeros_like(CAMS)
    cams[:, 5:9, 5:9] = 1
    most, least, old = (
        metric(X, cams, TARGETS, TOY.module, return_visualization=True)[1]
        for metric in (
            road.ROADMostRelevantFirst("auto"),
            road.ROADLeastRelevantFirst("auto"),
            road.ROADMostRelevantFirst("auto", strict_compat=True),
        )
    )
    relevant = torch.from_numpy(cams[0] > 0)
    for changed, filled in ((most, relevant), (least, ~relevant), (old, ~relevant)):
        assert torch.equal((changed != X).any(1), filled.expand(len(X), -1, -1))


def test_a_map_that_is_the_same_everywhere_removes_all():
    filled = road.NoisyLinearImputer(0)(X[0], torch.zeros(X.shape[2:]))
    torch.testing.assert_close(filled, X[0].mean((1, 2), keepdim=True).expand_as(X[0]))
    assert np.isfinite(road.ROADCombined([50])(X, CAMS * 0 + 1, TARGETS, TOY.module)).all()


def test_otsu_is_opencvs():
    for trial in range(60):
        m = DRAW.random((7, 11)) ** DRAW.uniform(0.2, 4)
        m = np.float32(np.round(m * 6) / 6 if trial % 3 == 0 else m)
        levels = np.uint8(m * 255)
        threshold, above = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        assert otsu.thresholds(levels.reshape(1, -1)) == [threshold]
        assert np.array_equal(otsu.above_otsu(torch.from_numpy(m)[None])[0].numpy(), above > 0)
    assert otsu.thresholds(np.uint8([[77] * 9, [0, 0, 0, 0, 9, 9, 9, 9, 9]])).tolist() == [0, 0]


def test_own_perturbations_and_imputers_see_one_image_on_the_cpu():
    seen = []

    def darken(image, cam):
        seen.append((image.shape, cam.shape, image.device.type))
        return image * (1 - cam)

    ours = confidence.PerturbationConfidenceMetric(darken)(*ARGS)
    assert np.array_equal(ours, their_products.PerturbationConfidenceMetric(darken)(*ARGS))
    assert seen[0] == (X.shape[1:], X.shape[2:], "cpu")

    def black(image, mask):
        return image * mask

    class Twice(confidence.RemoveMostRelevantFirst):
        def __call__(self, image, mask):
            return 2 * super().__call__(image, mask)

    for perturbation in (confidence.RemoveMostRelevantFirst(70, black), Twice(70, road.NoisyLinearImputer(0))):
        metric = confidence.PerturbationConfidenceMetric(perturbation)
        whole = metric(*ARGS, return_visualization=True)[1]
        assert torch.equal(whole[0], perturbation(X[0], torch.from_numpy(CAMS[0])))

    class Halved(road.ROADMostRelevantFirst):
        def __call__(self, *args, **kwargs):
            return super().__call__(*args, **kwargs) / 2

    np.testing.assert_allclose(
        confidence.AveragerAcrossThresholds(Halved, [20, 60])(*ARGS),
        road.ROADMostRelevantFirstAverage([20, 60])(*ARGS) / 2,
        atol=1e-6,
    )


def test_arcc_and_its_parts(strict):
    other = np.float32(DRAW.random(CAMS.shape))
    other[2] = 0.5
    for a, b in ((CAMS, other), (CAMS, CAMS)):
        expected = their_arcc.batch_pearson_coherency(a, b)
        np.testing.assert_allclose(arcc.batch_pearson_coherency(a, b), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(arcc.Complexity()(CAMS), their_arcc.Complexity()(CAMS), rtol=1e-6)
    layer = TOY.module.get_submodule(TOY.layer)
    with peer.GradCAM(TOY.module, [layer]) as cam:
        targets = [ClassifierOutputTarget(1)] * 3
        maps = cam(X, targets)
        results = []
        for who in (arcc, their_arcc):
            torch.manual_seed(3)
            results.append(who.ARCC(cam, [20, 60])(X, maps, targets, TOY.module))
        np.testing.assert_allclose(*results, rtol=2e-3, atol=1e-6)  # ROAD near 0 is divided by
        ours = arcc.Coherency()(X, maps, targets, TOY.module, cam)
        np.testing.assert_allclose(ours, their_arcc.Coherency()(X, maps, targets, TOY.module, cam), rtol=0, atol=1e-6)
        tensors = arcc.ARCC(cam, [20, 60])(X, torch.from_numpy(maps), targets, TOY.module)
        assert isinstance(tensors, torch.Tensor)


class Loose(nn.Module):
    """Batch statistics and a tuple for output."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1))

    def forward(self, x):
        return self.net(x).flatten(1), x.mean()


def test_the_model_is_left_alone_and_runs_in_evaluation_mode():
    model = Loose().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scores = cam_mult_image.CamMultImageConfidenceChange()(X, CAMS, [ClassifierOutputTarget(0)], model)
    again = cam_mult_image.CamMultImageConfidenceChange()(X, CAMS, [ClassifierOutputTarget(0)], model)
    assert np.array_equal(scores, again)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    plain = cam_mult_image.CamMultImageConfidenceChange()(X, CAMS, [ClassifierOutputTarget(0)], lambda x: model(x)[0])
    assert plain.shape == (3,)
    detections = cam_mult_image.CamMultImageConfidenceChange()(
        X, CAMS, lambda output: output["scores"].sum(), lambda x: [{"scores": image.mean((1, 2))} for image in x]
    )
    np.testing.assert_allclose(detections, ((X * torch.from_numpy(CAMS)[:, None]) - X).mean((2, 3)).sum(1), atol=1e-6)
    half = cam_mult_image.DropInConfidence()(X.bfloat16(), CAMS, [ClassifierOutputTarget(0)], model.bfloat16())
    assert half.dtype == np.float32
    one_channel = cam_mult_image.CamMultImageConfidenceChange()(X, CAMS[:, None], TARGETS, TOY.module)
    assert np.array_equal(one_channel, cam_mult_image.CamMultImageConfidenceChange()(*ARGS))
    several = confidence.PerturbationConfidenceMetric(lambda image, cam: image)(
        X, CAMS, [RawScoresOutputTarget()], TOY.module
    )
    assert several.shape == (3, TOY.module(X).shape[1])


def test_bad_input():
    metric = cam_mult_image.DropInConfidence()
    with pytest.raises(ValueError, match="2 targets for a batch of 3"):
        metric(X, CAMS, TARGETS[:2], TOY.module)
    with pytest.raises(TypeError, match="such as ClassifierOutputTarget"):
        metric(X, CAMS, None, TOY.module)
    with pytest.raises(ValueError, match="cams have shape"):
        metric(X, CAMS[:, :5], TARGETS, TOY.module)
    for wrong in (101, -1, "otsu", True):
        with pytest.raises(ValueError, match="give a number from 0 to 100, or 'auto'"):
            road.ROADMostRelevantFirst(wrong)
    heavier = [(offset, 2 * weight) for offset, weight in road.neighbors_weights]
    assert road.NoisyLinearImputer(weighting=list(their_road.neighbors_weights)).noise == 0.01
    with pytest.raises(ValueError, match="weighting is not"):
        road.NoisyLinearImputer(weighting=heavier)
    assert road.NoisyLinearImputer(weighting=heavier, strict_compat=True).weighting == road.neighbors_weights
