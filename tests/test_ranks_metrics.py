"""Metrics of signals and volumes: those that know no rows and columns, against their loops; the others say so."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from fastcam import CAM
from fastcam.metrics import Evaluation
from fastcam.metrics.registry import METRICS
from fastcam.ops.spaces import blur_spaces
from tests import formulas_metrics, formulas_perturb
from tests.networks_ranks import SIZES, images, shared

pytestmark = pytest.mark.usefixtures("one_thread")
RANKS = tuple(SIZES)
ANY = [name for name, info in METRICS.items() if not info.localizes and name != "road" and "target" not in info.needs]


def evaluate(rank: int, metrics, **options):
    module = shared(rank, "deep").module
    evaluation = Evaluation(CAM(module, "layercam", "features"), metrics, options=options)
    values = evaluation.update(images(rank))["layercam"]
    return module, CAM(module, "layercam", "features").explain(images(rank)), values, evaluation


def scores(module, x: Tensor, classes: Tensor) -> Tensor:
    with torch.no_grad():
        return module(x).double().softmax(1).gather(1, classes[:, None])[:, 0]


@pytest.mark.parametrize("rank", RANKS)
def test_images_under_their_maps(rank: int) -> None:
    wanted = ["average_drop", "increase_in_confidence", "coherency", "complexity", "adcc", "sparseness"]
    module, exp, values, _ = evaluate(rank, wanted, adcc="images")
    x, c = images(rank), exp.target
    masked = x * exp.maps[:, None]
    before, after = scores(module, x, c), scores(module, masked, c)
    again = CAM(module, "layercam", "features")(masked, target=c)
    flat, other = exp.maps.flatten(1)[:, None], again.flatten(1)[:, None]
    close = {"rtol": 0, "atol": 1e-5}
    drop, complex_ = formulas_metrics.average_drop(before, after), formulas_metrics.complexity(flat)
    coherent = formulas_metrics.coherency(flat, other)
    torch.testing.assert_close(values["average_drop"], drop.double(), **close)
    torch.testing.assert_close(values["complexity"], complex_.double(), **close)
    torch.testing.assert_close(values["coherency"], coherent.double(), **close)
    torch.testing.assert_close(values["adcc"], formulas_metrics.adcc(drop, coherent, complex_).double(), **close)
    torch.testing.assert_close(values["sparseness"], formulas_metrics.sparseness(flat).double(), **close)
    assert torch.equal(values["increase_in_confidence"], (after > before).double())


@pytest.mark.parametrize("steps", [None, 7])
@pytest.mark.parametrize("rank", RANKS)
def test_curves(rank: int, steps: int | None) -> None:
    """A step is a hundredth of the samples or voxels, where the protocol does not say."""
    module, exp, values, _ = evaluate(rank, ["deletion", "insertion"], **({"steps": steps} if steps else {}))
    x = images(rank)
    count = x[0, 0].numel()
    step = -(-count // (steps or 100))
    blurred = blur_spaces(x)
    for b in range(2):

        def score(picture: Tensor, one: int = b) -> float:
            return float(scores(module, picture.reshape(1, *x.shape[1:]).float(), exp.target[one : one + 1]))

        grid, picture = exp.maps[b].reshape(1, -1).tolist(), x[b].reshape(3, 1, -1).double()
        deleted = formulas_perturb.deletion(score, picture, grid, step)
        inserted = formulas_perturb.insertion(score, picture, grid, step, blurred[b].reshape(3, 1, -1).double())
        for name, curve in (("deletion", deleted), ("insertion", inserted)):
            got = values[f"{name}_curve"][b]
            assert len(got) == -(-count // step) + 1
            torch.testing.assert_close(got, torch.tensor(curve, dtype=torch.float64), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rank", RANKS)
def test_blur_is_one_convolution_an_axis(rank: int) -> None:
    x = images(rank).double()
    weights = torch.tensor(formulas_perturb.blur_taps(), dtype=torch.float64).view(1, 1, -1)
    want = x
    for axis in range(2, x.dim()):
        rows = want.movedim(axis, -1)
        flat = conv1d(pad(rows.reshape(-1, 1, rows.shape[-1]), (5, 5)), weights)
        want = flat.view(rows.shape).movedim(-1, axis)
    torch.testing.assert_close(blur_spaces(x), want)


@pytest.mark.parametrize("options", [{}, {"masking": "before"}, {"rescale": False}, {"grid": "layer"}])
@pytest.mark.parametrize("rank", RANKS)
def test_every_other_metric_has_a_value(rank: int, options: dict) -> None:
    module = shared(rank, "linear").module
    cams = {"a": CAM(module, "gradcam", "features"), "b": lambda x, target: x.abs().mean(1) / x.abs().max()}
    if options.get("grid") == "layer" or "rescale" in options:
        cams.pop("b")
    quick = {"sensitivity_samples": 2, "randomization_steps": 2, "steps": 4, **options}
    metrics = [name for name in ANY if "b" not in cams or name != "randomization"]
    evaluation = Evaluation(cams, metrics, options=quick, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.1])
    values = evaluation.update(images(rank))
    for name, row in values.items():
        for metric, value in row.items():
            if metric != "win_rate" or len(cams) > 1:
                assert bool(value.isfinite().all()), (name, metric)
    assert evaluation.compute().keys() == cams.keys()


@pytest.mark.parametrize("rank", RANKS)
def test_what_is_for_pictures_says_so(rank: int) -> None:
    cam, x = CAM(shared(rank, "linear").module, "gradcam", "features"), images(rank)
    with pytest.raises(ValueError, match="road imputes pixels of pictures"):
        Evaluation(cam, ["road"]).update(x)
    with pytest.raises(ValueError, match="boxes and masks are of pictures"):
        Evaluation(cam, ["complexity"]).update(x, boxes=[torch.tensor([[0, 0, 2, 2]])] * 2, target=[0, 1])
    with pytest.raises(ValueError, match="patch=2 switches squares"):
        Evaluation(cam, ["deletion"], options={"patch": 2}).update(x)
    with pytest.raises(ValueError, match="upsample='bicubic'"):
        Evaluation(cam, ["complexity"], options={"upsample": "bicubic"}).update(x)
    with pytest.raises(ValueError, match="similarity='ssim'"):
        Evaluation(cam, ["randomization"], options={"similarity": "ssim"}).update(x)
    with pytest.raises(TypeError, match="signals"):
        Evaluation(cam, ["complexity"]).update(torch.rand(2, 3))


@pytest.mark.parametrize("rank", RANKS)
def test_metrics_of_places_are_missing(rank: int) -> None:
    """With "all", which names them too, what needs boxes or masks has no value, and there is no baseline."""
    names = ["complexity", "energy_pointing_game"]
    evaluation = Evaluation(CAM(shared(rank, "linear").module, "gradcam", "features"), names)
    values = evaluation.update(images(rank), target=[0, 1])
    assert set(values) == {"gradcam"}
    assert bool(values["gradcam"]["energy_pointing_game"].isnan().all())
    assert bool(torch.tensor(evaluation.compute()["center"]["energy_pointing_game"]).isnan())
