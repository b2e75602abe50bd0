"""Opti-CAM against its loops on every kind of tail; that it optimizes, its chunks, its cost and its errors."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fastcam import CAM, TopK
from fastcam.ask.optimized import GRAPH_SLACK
from fastcam.methods.optimized import Adam
from tests import formulas, formulas_optimized
from tests.networks import TOYS, images, shared

pytestmark = pytest.mark.usefixtures("one_thread")
TARGET = [1, 2]


@pytest.mark.parametrize("name", list(TOYS))
def test_opticam(name: str) -> None:
    """In float64 on both sides: Adam's first steps take only the sign of a gradient, so rounding would show."""
    toy, x = shared(name), images().double()
    cam = CAM(copy.deepcopy(toy.module).double(), "opticam", toy.layer, steps=4)
    raw = formulas.explain(formulas_optimized.opticam, toy.halves, x, TARGET, steps=4)
    exp = cam.explain(x, target=torch.tensor(TARGET))
    torch.testing.assert_close(exp.raw, raw, rtol=0, atol=1e-9)


@pytest.mark.parametrize("options", [{"steps": 20}, {"steps": 3, "rate": 0.5}, {"steps": 6, "objective": "distance"}])
def test_options(options: dict) -> None:
    toy, x = shared("deep"), images().double()
    cam = CAM(copy.deepcopy(toy.module).double(), "opticam", toy.layer, **options)
    raw = formulas.explain(formulas_optimized.opticam, toy.halves, x, TARGET, **options)
    torch.testing.assert_close(cam.explain(x, target=torch.tensor(TARGET)).raw, raw, rtol=0, atol=1e-8)


def test_single_precision_stays_near() -> None:
    toy, x = shared("deep"), images()
    raw = formulas.explain(formulas_optimized.opticam, toy.halves, x, TARGET, steps=10)
    exp = CAM(toy.module, "opticam", toy.layer, steps=10).explain(x, target=torch.tensor(TARGET))
    torch.testing.assert_close(exp.raw.double(), raw, rtol=0, atol=1e-3 * float(raw.max()))


def test_adam_is_torchs() -> None:
    g = torch.Generator().manual_seed(4)
    theirs, ours = nn.Parameter(torch.randn(5, dtype=torch.float64, generator=g)), Adam(0.05)
    parameters, optimizer = theirs.detach().clone(), torch.optim.Adam([theirs], 0.05)
    for _ in range(6):
        gradient = torch.randn(5, dtype=torch.float64, generator=g)
        theirs.grad = gradient.clone()
        optimizer.step()
        parameters = ours.step(parameters, gradient)
    torch.testing.assert_close(parameters, theirs.detach())


@pytest.mark.parametrize("name", ["deep", "vgg", "linear"])
def test_the_masked_image_scores_higher(name: str) -> None:
    """What is optimized gets better: the score under the map after the steps beside that after one."""
    toy, x = shared(name), images()
    target = toy.module(x).argmax(1)

    def kept(steps: int) -> float:
        maps = CAM(toy.module, "opticam", toy.layer, steps=steps)(x, target=target)
        return float(toy.module(x * maps[:, None]).detach().gather(1, target[:, None]).sum())

    assert kept(40) > kept(1) + 0.01


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 4}, {"max_memory": 100_000}])
def test_chunks_do_not_matter(options: dict) -> None:
    toy, x, target = shared("deep"), images(3), torch.tensor([[0, 1], [2, 3], [1, 0]])
    whole = CAM(toy.module, "opticam", toy.layer, steps=3).explain(x, target=target)
    parts = CAM(toy.module, "opticam", toy.layer, steps=3, **options).explain(x, target=target)
    torch.testing.assert_close(parts.raw, whole.raw, rtol=0, atol=1e-4)


def test_the_memory_allowed_decides_the_chunk() -> None:
    module, sizes = copy.deepcopy(shared("deep").module), []
    module.features[0].register_forward_hook(lambda _m, inputs, _o: sizes.append(len(inputs[0])))
    allowed = 600_000
    CAM(module, "opticam", "features", steps=2, max_memory=allowed)(images(40))
    key = next(key for key in CAM(module).network.facts.row_bytes if key[0] == "graph")
    row = CAM(module).network.facts.row_bytes[key]
    assert 20 * 28 * 4 * 3 < row < allowed // 2
    assert max(size for size in sizes if size < 40) == allowed // row > 1
    with torch.enable_grad():  # what it stands on: the graph of one row, each block of memory once
        blocks = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: blocks.update({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()}) or t, lambda t: t
        ):
            kept = module(images(1).requires_grad_().clone())
        weights = sum(blocks.get(p.untyped_storage().data_ptr(), 0) for p in module.parameters())
        assert row == pytest.approx(GRAPH_SLACK * (sum(blocks.values()) - weights), rel=0.01)
        del kept


def test_the_cost_is_steps() -> None:
    module = copy.deepcopy(shared("deep").module)
    cam = CAM(module, "opticam", "features", steps=5)
    cam(images())
    cost = cam.explain(images(), target=TopK(3)).cost
    assert (cost.forwards, cost.backwards, cost.tails) == (2 + 2 * 3 * 5, 2 * 3 * 5, 0)


def test_nothing_is_left_in_the_parameters() -> None:
    module = copy.deepcopy(shared("deep").module).train()
    with pytest.raises(ArithmeticError, match="broken"):
        CAM(module, "opticam", "features")(images(), target=broken)
    CAM(module, "opticam", "features", steps=2)(images())
    assert module.training
    assert all(p.grad is None for p in module.parameters())


def broken(logits: torch.Tensor) -> torch.Tensor:
    raise ArithmeticError("broken target")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0}, "steps=0 must be a positive int"),
        ({"rate": 0.0}, "rate=0.0 must be a positive number"),
        ({"objective": "loss"}, "'score', 'distance'"),
    ],
)
def test_options_that_cannot_be(options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CAM(shared("deep").module, "opticam", **options)


def test_questions_that_cannot_be() -> None:
    module, x = shared("deep").module, images()
    with pytest.raises(ValueError, match=r"an optimization of its own for every class.*TopK\(k\)"):
        CAM(module, "opticam")(x, target="all")
    with pytest.raises(ValueError, match="does not depend on the image through differentiable operations"):
        CAM(module, "opticam")(x, target=lambda logits: logits.argmax(1).float())
    with pytest.raises(ValueError, match="opticam has no differentiable form"):
        CAM(module, "opticam")(x, differentiable=True)
