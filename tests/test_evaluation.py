"""`Evaluation`: what is shared, what it costs, and that neither batches nor states change a number."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fastcam import CAM
from fastcam.metrics import METRICS, PROTOCOLS, Evaluation, Protocol, auc
from tests import small

pytestmark = pytest.mark.usefixtures("one_thread")

CHEAP = ["average_drop", "increase_in_confidence", "average_gain", "coherency", "complexity", "adcc"]
QUICK = {"sensitivity_samples": 2, "randomization_steps": 2, "thresholds": 10, "steps": 6}
BOXES = [torch.tensor([[4.0, 2, 20, 18], [0, 0, 3, 3]]), torch.zeros(0, 4), torch.tensor([[10.0, 5, 30, 22]])]


def data(batch=3):
    masks = torch.zeros(batch, 24, 32, dtype=torch.bool)
    masks[:, 4:16, 6:20] = True
    return {
        "target": torch.tensor([0, 3, 1])[:batch],
        "boxes": BOXES[:batch],
        "masks": masks,
    }


def cams(*methods, model=None):
    model = model or small.network()
    return {name: CAM(model, name, batch_size=4) for name in methods}


def counted(model):
    """Images that really pass through the model's first layer."""
    seen = []
    model[0].register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    return seen


def same(a, b, tolerance=1e-5):
    assert a.keys() == b.keys()
    for method in a:
        assert a[method].keys() == b[method].keys()
        for name in a[method]:
            x, y = (torch.as_tensor(row[method][name], dtype=torch.float64) for row in (a, b))
            # Ranks jump where pixels differ by rounding: measured 2e-5 on these small maps.
            limit = 1e-3 if name.startswith(("randomization", "road", "insertion", "deletion")) else tolerance
            torch.testing.assert_close(x, y, rtol=limit, atol=limit, equal_nan=True, msg=f"{method} {name}")


def test_cheap_metrics_take_two_forwards_and_no_backward():
    model = small.network()
    CAM(model, "gradcam")(small.images())  # learns the structure, which takes forwards of its own
    seen = counted(model)
    evaluation = Evaluation(cams("gradcam", model=model), CHEAP)
    evaluation.update(small.images(3))
    assert sum(seen) == 2 * 3
    total = evaluation.costs()["total"]
    assert (total["forwards"], total["tails"], total["backwards"]) == (2, 0, 0)


def test_methods_share_the_forward_and_the_gradients():
    model = nn.Sequential(small.network()[0], nn.Flatten(), nn.Linear(12 * 5 * 7, 5)).eval()  # no pooled tail
    methods = ("gradcam", "layercam", "gradcampp", "xgradcam")
    CAM(model, "gradcam", "0")(small.images())
    seen = counted(model)
    sharing = {name: CAM(model, name, "0") for name in methods}
    evaluation = Evaluation(sharing, ["complexity"])
    evaluation.update(small.images(2))
    assert sum(seen) == 2
    assert evaluation.costs()["total"]["backwards"] == 1
    for name, cam in sharing.items():
        alone = Evaluation(cam, ["complexity"])
        alone.update(small.images(2))
        assert evaluation.compute()[name] == alone.compute()[name]


def test_insertion_and_deletion_share_their_ends():
    model = small.network()
    CAM(model, "gradcam")(small.images())
    evaluation = Evaluation(cams("gradcam", model=model), ["insertion", "deletion"])
    evaluation.update(small.images(1))  # warms: the memory of a row is measured with one more forward
    seen = counted(model)
    evaluation.update(small.images(2))
    steps = 24  # one row of pixels each
    assert sum(seen) == 2 * (1 + 2 * steps - 1) + 1  # f(x); then all points but f(x) twice; f(0) once for all
    values = evaluation.update(small.images(2))["gradcam"]
    assert values["deletion_curve"].shape == values["insertion_curve"].shape == (2, steps + 1)
    assert torch.equal(values["deletion_curve"][:, 0], values["insertion_curve"][:, -1])
    assert torch.allclose(values["insertion"], auc(values["insertion_curve"]))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_batches_and_states_do_not_change_the_numbers(protocol):
    options = {**QUICK, **({"patch": 8} if PROTOCOLS[protocol].patch else {})}
    make = lambda: Evaluation(cams("gradcam", "reciprocam"), "all", protocol=protocol, options=options)  # noqa: E731
    x, given = small.images(3), data()
    whole, parts, merged = make(), [make(), make()], make()
    whole.update(x, **given)
    for part, rows in zip(parts, (slice(0, 2), slice(2, 3)), strict=True):
        part.update(x[rows], **{k: v[rows] for k, v in given.items()}, ids=range(3)[rows])
        merged.merge(part.states())
    same(whole.compute(), merged.compute())
    for row in whole.compute().values():
        for name, value in row.items():
            if not isinstance(value, list):
                low = -math.inf if name in ("road", "road_morf", "road_lerf", "insertion", "deletion") else -1.5
                assert low <= value < 10, name


def test_every_metric_has_a_value_for_every_image_or_nan():
    evaluation = Evaluation(cams("gradcam"), "all", options=QUICK)
    values = evaluation.update(small.images(3), **data())
    assert set(values) == {"gradcam", "center"}
    for info in METRICS.values():
        value = values["gradcam"][info.name]
        assert value.shape == (3,)
        assert value.dtype == torch.float64
        # The second image has no box, and points are looked for on masks; one method alone cannot win.
        boxed = "boxes" in info.needs or info.name == "energy_pointing_game"
        expected = [True] * 3 if info.name == "win_rate" else [False, boxed, False]
        assert value.isnan().tolist() == expected, info.name
    assert evaluation.columns()[: len(METRICS)] == list(METRICS)


def test_localization_explains_the_label_and_faithfulness_the_prediction():
    model, x = small.network(), small.images(3)
    predicted = model(x).argmax(1)
    label = (predicted + 1) % 5
    cam = CAM(model, "gradcam")
    evaluation = Evaluation(cam, ["sparseness", "energy_pointing_game"])
    boxes = torch.tensor([4.0, 2, 20, 18]).expand(3, 4)
    values = evaluation.update(x, target=label, boxes=boxes)["gradcam"]
    for target, name in ((predicted, "sparseness"), (label, "energy_pointing_game")):
        own = Evaluation(cam, [name], options={"classes": "target"}).update(x, target=target, boxes=boxes)["gradcam"]
        assert torch.allclose(values[name], own[name])


def test_a_function_is_evaluated_like_a_cam():
    model = small.network()
    cam = CAM(model, "gradcam")
    names = [*CHEAP, "insertion", "box_iou", "max_sensitivity"]
    one = Evaluation({"m": cam}, names, options=QUICK)
    two = Evaluation({"m": lambda images, target: cam(images, target=target)}, names, options=QUICK, score=model)
    for evaluation in (one, two):
        with torch.no_grad():
            evaluation.update(small.images(3), **data())
    same(one.compute(), two.compute())


def test_masks_before_normalization_put_black():
    model = small.network()
    cam = lambda images, target: torch.zeros(len(images), *images.shape[-2:])  # noqa: E731 - nothing is kept
    black = torch.tensor([-1.0, -0.5, -2.0])[:, None, None]
    evaluation = Evaluation(
        {"none": cam}, ["average_drop"], score=model, options={"masking": "before"}, mean=(1, 1, 1), std=(1, 2, 0.5)
    )
    x = small.images(2)
    with torch.no_grad():
        got = evaluation.update(x)["none"]["average_drop"]
        p, q = model(x).softmax(1), model(black.expand_as(x)).softmax(1)
    best = p.argmax(1, keepdim=True)
    assert torch.allclose(got.float(), ((p - q) / p).clamp_min(0).gather(1, best)[:, 0], atol=1e-6)


def test_the_model_is_left_as_it_was():
    model = small.network().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    Evaluation(cams("gradcam", model=model), "all", options=QUICK).update(small.images(3), **data())
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_nothing_seen_is_nan():
    evaluation = Evaluation(cams("gradcam"), "all", options=QUICK)
    assert all(math.isnan(v) for row in evaluation.compute().values() for v in row.values() if isinstance(v, float))
    assert evaluation.costs()["total"]["forwards"] == 0


def test_reset_starts_again():
    evaluation = Evaluation(cams("gradcam"), CHEAP)
    evaluation.update(small.images(2))
    first = evaluation.compute()
    evaluation.update(small.images(2, seed=5))
    evaluation.reset()
    evaluation.update(small.images(2))
    same(first, evaluation.compute())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda c: Evaluation(c, ["box_iu"]), ValueError, "nearest: box_iou"),
        (lambda c: Evaluation(c, []), ValueError, "no metrics given"),
        (lambda c: Evaluation(c, protocol="papper"), ValueError, "choose from paper"),
        (lambda c: Evaluation(c, options={"step": 3}), TypeError, "nearest: steps"),
        (lambda c: Evaluation(c, options={"score": "odds"}), ValueError, "'probability', 'logit'"),
        (lambda c: Evaluation(c, options={"masking": "before"}), ValueError, "give mean= and std="),
        (lambda c: Evaluation({"a": lambda x, target: x}), TypeError, "give score="),
        (lambda c: Evaluation({"a": 3}), TypeError, "must be a CAM or a callable"),
        (lambda c: Evaluation({"center": c}), ValueError, "none 'center'"),
        (lambda c: Evaluation(c, "*drop*").update(small.images(2), target=[1]), ValueError, "2 class indices"),
        (lambda c: Evaluation(c).update(small.images(2)), ValueError, "needs labels"),
        (lambda c: Evaluation(c, ["box_iou"]).update(small.images(2), boxes=[[]]), ValueError, "1 images for a batch"),
        (lambda c: Evaluation(c, "pxap").update(small.images(2), masks=torch.ones(2, 3, 3)), ValueError, "expected"),
        (lambda c: Evaluation(c, CHEAP).update(small.images(2), ids=[1]), ValueError, "1 ids for 2"),
        (lambda c: Evaluation(c, CHEAP).update([1]), TypeError, "floating-point tensor"),
        (lambda c: Evaluation(c, CHEAP).merge({}), ValueError, "another evaluation"),
        (lambda c: Protocol(road_percentiles=(50,)), ValueError, "shares in"),
    ],
)
def test_bad_input_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make(CAM(small.network(), "gradcam"))
