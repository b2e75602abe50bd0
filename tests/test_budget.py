"""Score-CAM of a few masks: the choice, the estimate, and the map, against loops and against the full map."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from fastcam import CAM
from fastcam.budget import choose, estimate
from fastcam.cli.arguments import find_options
from fastcam.scorer import Scorer
from tests import formulas, formulas_budget, formulas_scores
from tests.networks import images, shared

TARGET = torch.tensor([1, 2])
SAMPLED = {"scorecam": {}, "sscam": {"samples": 2}, "iscam": {"samples": 3}}
NEAR = 5e-5  # of the largest value, float32 against float64

pytestmark = pytest.mark.usefixtures("one_thread")


def some(count: int, size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, size, generator=g, dtype=torch.float64)
    return masks, torch.rand(count, generator=g, dtype=torch.float64)


def explain(name: str, x: Tensor, method: str = "scorecam", target=TARGET, **options):
    toy = shared(name)
    return CAM(toy.module, method, toy.layer, **{**SAMPLED[method], **options}).explain(x, target=target)


def same(got: Tensor, want: Tensor, near: float = NEAR) -> None:
    torch.testing.assert_close(got.double(), want.double(), rtol=0, atol=near * float(want.abs().max()))


@pytest.mark.parametrize(("count", "size", "few"), [(2, 4, 1), (2, 1, 1), (9, 4, 3), (30, 6, 12), (30, 6, 30)])
def test_choice_and_estimate_are_the_loops(count, size, few):
    masks, weights = some(count, size)
    chosen = choose(masks, weights, few)
    assert chosen.tolist() == formulas_budget.choose(masks.tolist(), weights.tolist(), few)
    scores = torch.randn(2, few, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = estimate(masks, chosen, scores)
    for row, given in zip(found.tolist(), scores.tolist(), strict=True):
        assert row == pytest.approx(formulas_budget.estimate(masks.tolist(), chosen.tolist(), given), abs=1e-9)
    assert torch.equal(found[:, chosen], scores)


def test_the_first_of_equals_is_chosen_and_none_twice():
    corners = torch.eye(6)
    assert choose(corners, torch.ones(6), 4).tolist() == [0, 1, 2, 3]
    assert choose(corners, torch.zeros(6), 5).tolist() == [0, 1, 2, 3, 4]
    assert choose(corners, torch.tensor([0.0, 0, 0, 1, 0, 0]), 2).tolist() == [0, 3]
    tiny = torch.full((6,), 1e-45)
    assert choose(corners * 1e-30, tiny, 6).tolist() == [0, 1, 2, 3, 4, 5]


def test_estimates_follow_the_scores_nearby():
    masks, weights = some(20, 5)
    chosen = choose(masks, weights, 6)
    assert estimate(masks, chosen, torch.full((1, 6), 3.0)).tolist() == [pytest.approx([3.0] * 20)]
    (other,) = [k for k in range(20) if k not in chosen][:1]
    masks[other] = masks[chosen[2]] + 1e-6
    scores = torch.tensor([[0.0, 0.0, 5.0, 0.0, 0.0, 0.0]])
    assert estimate(masks, chosen, scores)[0, other] == pytest.approx(5.0, abs=0.1)


@pytest.mark.parametrize("name", ["linear", "signed", "vgg", "deep", "one_row", "swin"])
@pytest.mark.parametrize("budget", [1, 2, 5])
def test_map_is_the_loops(name, budget):
    x, toy = images(), shared(name)
    for method, options, formula in (
        ("scorecam", {}, formulas_budget.scorecam),
        ("scorecam", {"variant": "official"}, formulas_budget.official),
        ("iscam", {"samples": 3}, formulas_budget.iscam),
    ):
        loops = {"samples": 3} if method == "iscam" else {}
        want = formulas.explain(formula, toy.halves, x, TARGET.tolist(), budget=budget, **loops)
        got = explain(name, x, method, budget=budget, **options).raw
        for one, other in zip(got, want, strict=True):
            same(one, other)


@pytest.mark.parametrize("method", list(SAMPLED))
@pytest.mark.parametrize("variant", ["paper", "official"])
def test_a_budget_that_covers_all_changes_nothing(method, variant):
    options: dict = {"batch_size": 16}  # "auto" learns from the clock, and chunks of another size round otherwise
    options |= {} if method == "iscam" else {"variant": variant}
    full = explain("linear", images(), method, **options)
    for budget in (10, 12, 10**9):  # two of the twelve channels are dead
        assert torch.equal(explain("linear", images(), method, budget=budget, **options).raw, full.raw)
    assert not torch.equal(explain("linear", images(), method, budget=9, **options).raw, full.raw)


@pytest.mark.parametrize("method", list(SAMPLED))
@pytest.mark.parametrize(("variant", "constant"), [("paper", 1), ("official", 0)])
def test_forwards(monkeypatch, method, variant, constant):
    """Of each sample those of the budget and of the empty mask; the image's own and an engine's proof come on top."""
    options = {} if method == "iscam" else {"variant": variant}
    constant = 1 if method == "iscam" else constant
    x, samples, streamed, stream = images(1), SAMPLED[method].get("samples", 1), [], Scorer.stream
    monkeypatch.setattr(
        Scorer, "stream", lambda self, like, rows, *a: (streamed.append(rows), stream(self, like, rows, *a))[1]
    )
    for budget, scored in ((1, 1), (4, 4), (10, 10), (50, 10)):
        explain("linear", x, method, TARGET[:1], budget=budget, **options)  # learns what a row takes
        cost = explain("linear", x, method, TARGET[:1], budget=budget, **options).cost
        assert streamed[-1] == samples * (scored + constant)
        assert cost.forwards - streamed[-1] in {1, 2}


@pytest.mark.parametrize("method", ["scorecam", "iscam"])
def test_a_batch_is_its_images_and_targets_one_by_one(method):
    x, target = images(3), torch.tensor([[1, 0], [0, 2], [2, 1]])
    batch = explain("signed", x, method, target, budget=4)
    for b in range(3):
        for t in range(2):
            alone = explain("signed", x[b : b + 1], method, target[b : b + 1, t], budget=4)
            same(alone.raw[0], batch.raw[b, t])


def test_the_order_of_channels_does_not_matter():
    toy, x = shared("linear"), images()
    shuffled = copy.deepcopy(toy.module)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    conv, norm, fc = shuffled.features[2], shuffled.features[3], shuffled.tail[2]
    conv.weight.data = conv.weight.data[order]
    for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        value.data = value.data[order]
    fc.weight.data = fc.weight.data[:, order]
    for budget in (1, 3, 7):
        maps = [CAM(m, "scorecam", "features", budget=budget)(x, target=TARGET) for m in (toy.module, shuffled)]
        same(maps[0], maps[1])


def test_channels_of_one_mask_weigh_together():
    """Copies of a weak channel, scaled to just below the strongest one, are one mask, and heavier than that one."""
    x, module = images(1), copy.deepcopy(shared("linear").module).requires_grad_(False)
    deviations = module.features(x)[0].flatten(1).std(1, correction=0)
    strong, *_, weak = deviations.argsort(descending=True)[:10].tolist()
    factor = 2.0 ** math.floor(math.log2(deviations[strong] / deviations[weak]))  # exact in floating point
    conv, norm = module.features[2], module.features[3]
    for k in (2, 7):  # the dead ones
        for value in (conv.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var):
            value[k] = value[weak]
        norm.weight[k] *= factor
        norm.bias[k] *= factor
    cam, seen = CAM(module, "scorecam", "features", budget=1), []
    assert factor > 1
    cam(x)
    module.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    cam(x)
    mask = formulas.scale(formulas.resize(module.features(x)[0, weak].tolist(), 20, 28))
    assert [len(rows) for rows in seen] == [1, 1]
    same(seen[1][0], formulas_scores.times(x[0].double(), mask))


@pytest.mark.parametrize("method", list(SAMPLED))
@pytest.mark.parametrize("budget", [0, -1, True, 2.5, 8.0, "8"])
def test_what_is_no_budget(method, budget):
    with pytest.raises(ValueError, match=rf"{method}: budget={budget!r} must be a positive int or None"):
        CAM(shared("linear").module, method, budget=budget)


@pytest.mark.parametrize("samples", [0, True, None, 35.0])
def test_what_is_no_number_of_samples(samples):
    with pytest.raises(ValueError, match=rf"sscam: samples={samples} must be a positive int$"):
        CAM(shared("linear").module, "sscam", samples=samples)


def test_the_command_line_has_it():
    assert find_options(["budget=8"], ["scorecam", "gradcam"]) == {"scorecam": {"budget": 8}, "gradcam": {}}
    with pytest.raises(TypeError, match="gradcam has no option 'budget'"):
        CAM(shared("linear").module, "gradcam", budget=8)
