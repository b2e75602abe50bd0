"""Quantus' explain_func: by its convention, and in metrics of Quantus itself."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from fastcam import CAM
from fastcam.compat.quantus import explain
from tests.networks import images, shared

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = np.array([2, 0])


class Wrapper:
    """What Quantus makes of a model."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def get_model(self) -> nn.Module:
        return self.model


@pytest.mark.parametrize("wrap", [lambda model: model, Wrapper])
@pytest.mark.parametrize("give", [lambda x: x.numpy(), lambda x: x.numpy().astype(np.float64), lambda x: x])
@pytest.mark.parametrize("method", ["gradcam", "layercam", "saliency"])
def test_the_maps_of_fastcam(method, give, wrap):
    toy = shared("vgg")
    found = explain(model=wrap(toy.module), inputs=give(images()), targets=CLASSES, method=method, device="cpu")
    expected = CAM(toy.module, method)(images(), target=[2, 0]).numpy()
    assert type(found) is np.ndarray
    assert found.dtype == np.float32
    assert found.shape == (2, 1, 20, 28)
    np.testing.assert_array_equal(found[:, 0], expected)
    assert found.max() == 1


def test_layers_options_and_targets():
    toy = shared("deep")
    x = images()
    found = explain(toy.module, x.numpy(), 1, method="gradcampp", gc_layer="features", eps=1e-3)
    np.testing.assert_array_equal(found[:, 0], CAM(toy.module, "gradcampp", "features", eps=1e-3)(x, target=1))
    assert not np.array_equal(found, explain(toy.module, x.numpy(), 1, method="gradcampp", layer="features"))
    np.testing.assert_array_equal(explain(toy.module, x.numpy())[:, 0], CAM(toy.module)(x))


def test_signed_maps():
    toy = shared("signed")
    found = explain(toy.module, images().numpy(), CLASSES, layer="features", signed=True)
    raw = CAM(toy.module, "gradcam", "features").explain(images(), target=[2, 0]).raw
    np.testing.assert_allclose(found, interpolate(raw[:, None], (20, 28), mode="bilinear"), atol=1e-6)
    assert found.min() < 0 < found.max()


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("signed", [False, True])
def test_signals_and_volumes(rank, signed):
    conv, pool = {1: (nn.Conv1d, nn.AdaptiveAvgPool1d), 3: (nn.Conv3d, nn.AdaptiveAvgPool3d)}[rank]
    model = nn.Sequential(conv(2, 6, 3, 2), nn.ReLU(), pool(1), nn.Flatten(), nn.Linear(6, 3)).eval()
    x = torch.randn(2, 2, *{1: (30,), 3: (6, 8, 10)}[rank])
    found = explain(model, x.numpy(), [0, 1], signed=signed)
    assert found.shape == (2, 1, *x.shape[2:])
    if not signed:
        np.testing.assert_array_equal(found[:, 0], CAM(model)(x, target=[0, 1]))


def test_the_model_stays_where_and_as_it_is():
    model = copy.deepcopy(shared("vgg").module).bfloat16().train()
    before = copy.deepcopy(model.state_dict())
    assert explain(model, images().numpy(), CLASSES).dtype == np.float32
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.dtype == torch.bfloat16 for value in model.parameters())


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"model": 3}, TypeError, "wrapper of one, got int"),
        ({"inputs": [1, 2]}, TypeError, "got list"),
        ({"method": "LayerGradCam"}, ValueError, "gradcam"),
        ({"layer": "nowhere"}, ValueError, "nowhere"),
        ({"layer": "features", "gc_layer": "features"}, TypeError, "give one"),
        ({"reduce_axes": (1,)}, TypeError, "reduce_axes"),
        ({"targets": np.array([1, 2, 3])}, ValueError, "batch of 2"),
        ({"targets": np.array([[1, 2], [0, 1]])}, ValueError, r"\(2, 2\) give several maps"),
        ({"signed": True, "layer": ["features.0", "features"]}, ValueError, "one layer"),
    ],
)
def test_bad_input(given, error, says):
    with pytest.raises(error, match=says):
        explain(**{"model": shared("vgg").module, "inputs": images().numpy(), "targets": CLASSES, **given})


@pytest.fixture
def quantus():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that it loads
        return pytest.importorskip("quantus")


@pytest.mark.filterwarnings("ignore")
def test_metrics_of_quantus(quantus):
    """Scores of maps made by `explain` on the way are those of maps that were given."""
    model, x = shared("vgg").module, images(2).numpy()
    settings = {"normalise": True, "abs": False, "display_progressbar": False, "disable_warnings": True}
    how = {"method": "layercam", "layer": "features"}

    def correlation(**maps) -> list[float]:
        np.random.seed(0)  # noqa: NPY002 - Quantus draws from the global state
        metric = quantus.FaithfulnessCorrelation(
            nr_runs=12, subset_size=40, perturb_baseline="black", return_aggregate=False, **settings
        )
        return metric(model=model, x_batch=x, y_batch=CLASSES, device="cpu", **maps)

    asked = correlation(a_batch=None, explain_func=explain, explain_func_kwargs=dict(how))
    given = correlation(a_batch=explain(model, x, CLASSES, **how))
    assert np.isfinite(asked).all()
    np.testing.assert_allclose(asked, given, rtol=1e-5)
    other = correlation(a_batch=explain(model, x, CLASSES, method="saliency"))
    assert not np.allclose(asked, other, rtol=1e-2)


@pytest.mark.filterwarnings("ignore")
def test_a_metric_that_explains_changed_inputs(quantus):
    model, x = shared("vgg").module, images(2).numpy()
    metric = quantus.MaxSensitivity(nr_samples=3, display_progressbar=False, disable_warnings=True)
    scores = metric(
        model=model, x_batch=x, y_batch=CLASSES, a_batch=None, device="cpu",
        explain_func=explain, explain_func_kwargs={"method": "gradcam", "layer": "features"},
    )  # fmt: skip
    assert len(scores) == 2
    assert all(0 < score < 10 for score in scores)


@pytest.mark.filterwarnings("ignore")
def test_quantus_own_explanation_has_the_same_shape_and_values(quantus):
    pytest.importorskip("captum")
    model, x = shared("vgg").module, images(2).numpy()
    theirs = quantus.explain(
        model, x, CLASSES, method="LayerGradCam", gc_layer=model.features, interpolate=(20, 28),
        interpolate_mode="bilinear", device="cpu",
    )  # fmt: skip
    ours = explain(model, x, CLASSES, method="gradcam", layer="features", signed=True)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=1e-6 * np.abs(theirs).max())
