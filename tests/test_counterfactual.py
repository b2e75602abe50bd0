"""Counterfactual explanations against their loops, in closed form and through tails; their cost and their errors."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from fastcam import counterfactual
from fastcam.model.network import Network
from tests import formulas
from tests.formulas_counterfactual import search
from tests.networks import CLASSES, SIZE, TOYS, images, shared

pytestmark = pytest.mark.usefixtures("one_thread")
CLOSED = ("linear", "signed", "relu_pooled", "norm_relu_pooled", "conv_classifier", "inplace", "twice", "one_row")
OTHERS = images(2, seed=21)


def to_reach(module: nn.Module, second: int = 0) -> Tensor:
    """Another class than the predicted one: its neighbor, or the runner-up."""
    ranked = module(images()).argsort(1, descending=True)
    return ranked[:, 1] if second else (ranked[:, 0] + 1) % CLASSES


def check(name: str, swaps: int | None, reuse: bool = False, second: int = 0, module: nn.Module | None = None) -> None:
    toy = shared(name)
    module = module or toy.module
    target = to_reach(module, second)
    got = counterfactual(module, images(), OTHERS, target, toy.layer, swaps, reuse=reuse)
    for b in range(2):
        x, other = images()[b].double(), OTHERS[b].double()
        want = search(toy.halves, x, other, int(target[b]), swaps, reuse)
        count = len(want.swaps)
        assert (got.swaps[b, count:] == -1).all()
        assert got.flips[b] == want.flip
        clear = next((s for s, margin in enumerate(want.margins) if margin < 1e-6), count)
        assert clear or name == "conv_classifier"  # whose ReLU leaves cells that are alike
        assert got.swaps[b, :clear].tolist() == [[list(i), list(j)] for i, j in want.swaps[:clear]]
        probabilities = torch.tensor(want.probabilities, dtype=torch.float64)
        torch.testing.assert_close(got.probabilities[b, : count + 1].double(), probabilities, rtol=1e-4, atol=1e-7)
        assert (got.probabilities[b, count:] == got.probabilities[b, count]).all()
        for cells, maps in enumerate((got.maps, got.distractor_maps)):
            raw = torch.zeros(got_size(got, toy.layer, module), dtype=torch.float64)
            for pair, gain in zip(want.swaps, probabilities.diff().tolist(), strict=True):
                raw[pair[cells]] += gain
            if clear == count:
                shown = formulas.finish(raw[None], SIZE)[0]
                torch.testing.assert_close(maps[b].double(), shown, rtol=0, atol=2e-3)


def got_size(got, layer: str, module: nn.Module) -> tuple[int, int]:
    network = Network(module)
    (forward,) = network.forward(images(), (), {}, layer, grad=False)
    return forward.captured.layout.size


@pytest.mark.parametrize("name", CLOSED)
def test_in_closed_form(name: str) -> None:
    check(name, 4)


@pytest.mark.parametrize("name", ["mlp_head", "residual", "residual_branch", "swin", "one_channel"])
def test_elsewhere(name: str) -> None:
    check(name, 2)


def test_where_the_map_is_large_or_tokens() -> None:
    toy, x = shared("vgg"), images()
    target = to_reach(toy.module)
    got = counterfactual(toy.module, x[:1], OTHERS[:1], target[:1], toy.layer, 1)
    want = search(toy.halves, x[0].double(), OTHERS[0].double(), int(target[0]), 1)
    assert got.swaps[0].tolist() == [[list(i), list(j)] for i, j in want.swaps]


@pytest.mark.parametrize(("name", "second"), [("linear", 0), ("signed", 1), ("twice", 1)])
def test_until_the_class_changes(name: str, second: int) -> None:
    check(name, None, second=second)


@pytest.mark.parametrize("name", ["linear", "twice"])
def test_cells_used_again(name: str) -> None:
    check(name, 5, reuse=True)
    toy, target = shared(name), to_reach(shared(name).module)
    again = counterfactual(toy.module, images(), OTHERS, target, toy.layer, 5, reuse=True)
    once = counterfactual(toy.module, images(), OTHERS, target, toy.layer, 5)
    assert len(again.swaps[0, :, 1].unique(dim=0)) < 5 == len(once.swaps[0, :, 1].unique(dim=0))
    assert (again.probabilities >= once.probabilities - 1e-6).all()


def balanced(name: str, x: Tensor) -> nn.Module:
    """The toy with a bias that makes it predict several classes."""
    module = TOYS[name]().module
    logits = module(x)
    module.tail[-1].bias.data -= logits.mean(0)
    return module


def test_pairs_stop_each_at_its_own_step() -> None:
    x = images(12)
    module = balanced("signed", x)
    predicted = module(x).argmax(1)
    pairs = [(i, j) for i in range(12) for j in range(12) if predicted[i] != predicted[j]][::9][:6]
    here, there = (x[[pair[side] for pair in pairs]] for side in (0, 1))
    got = counterfactual(module, here, there)
    assert got.target.tolist() == [int(predicted[j]) for _, j in pairs]
    assert got.flipped.all()  # with all cells swapped an image is its distractor
    assert got.flips.unique().numel() > 2
    assert got.layer == "features"
    assert got.swaps.shape[1] == int(got.flips.max())
    for b, flip in enumerate(got.flips.tolist()):
        assert (got.swaps[b, :flip] >= 0).all()
        assert (got.swaps[b, flip:] == -1).all()


@pytest.mark.parametrize("name", ["linear", "norm_relu_pooled", "mlp_head"])
def test_the_closed_form_equals_forwards_of_the_tail(name: str) -> None:
    toy, slow = shared(name), TOYS[name]().module
    Network(slow).facts.structures[toy.layer] = None  # known for no pooled tail: the cut network runs
    target = to_reach(toy.module)
    fast = counterfactual(toy.module, images(), OTHERS, target, toy.layer, 3)
    tried = counterfactual(slow, images(), OTHERS, target, toy.layer, 3)
    assert torch.equal(fast.swaps, tried.swaps)
    assert torch.equal(fast.flips, tried.flips)
    torch.testing.assert_close(fast.probabilities, tried.probabilities, rtol=1e-4, atol=1e-7)
    assert tried.cost.tails == 2 * (35**2 + 34**2 + 33**2) + 6
    assert (fast.cost.tails == 0) == (name != "mlp_head")
    assert fast.cost.forwards == tried.cost.forwards == 4


@pytest.mark.parametrize("memory", [1, 5000, 40_000])
def test_memory_changes_nothing(memory: int) -> None:
    for name in ("linear", "mlp_head"):
        toy, target = shared(name), to_reach(shared(name).module)
        given = {"target": target, "layer": toy.layer, "swaps": 2}
        small = counterfactual(toy.module, images(), OTHERS, max_memory=max(memory, 3000), **given)
        large = counterfactual(toy.module, images(), OTHERS, **given)
        assert torch.equal(small.swaps, large.swaps)
        torch.testing.assert_close(small.probabilities, large.probabilities)


def test_huge_logits_do_not_underflow() -> None:
    module = copy.deepcopy(shared("linear").module)
    module.tail[2].weight.data *= 1e5
    double = module.double()
    target = (module(images().double()).argmax(1) + 1) % CLASSES
    got = counterfactual(double, images().double(), OTHERS.double(), target, "features", 3)
    assert got.probabilities.isfinite().all()
    halves = formulas.Halves(double.features, lambda a, x: double.tail(a))
    want = [search(halves, x, y, int(c), 3) for x, y, c in zip(images().double(), OTHERS.double(), target, strict=True)]
    torch.testing.assert_close(got.probabilities, torch.tensor([w.probabilities for w in want], dtype=torch.float64))


def test_a_batch_is_its_pairs_one_by_one() -> None:
    toy = shared("signed")
    batch = counterfactual(toy.module, images(3), images(3, seed=3), to_reach_three(toy.module), toy.layer, 4)
    for b in range(3):
        one = slice(b, b + 1)
        target = to_reach_three(toy.module)[one]
        alone = counterfactual(toy.module, images(3)[one], images(3, seed=3)[one], target, toy.layer, 4)
        assert torch.equal(alone.swaps[0], batch.swaps[b])
        torch.testing.assert_close(alone.maps[0], batch.maps[b], rtol=0, atol=1e-4)


def to_reach_three(module: nn.Module) -> Tensor:
    return (module(images(3)).argmax(1) + 1) % CLASSES


def test_the_model_is_left_as_it_was() -> None:
    module = TOYS["residual"]().module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    counterfactual(module, images(), OTHERS, (module.eval()(images()).argmax(1) + 1) % CLASSES, "stem", 1)
    module.train()
    with pytest.raises(ValueError, match="which is also the class to reach"):
        counterfactual(module, images(), images(), None, "stem")
    assert module.training
    assert not any(m._forward_hooks for m in module.modules())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distractors": OTHERS[:1]}, "one distractor"),
        ({"distractors": OTHERS[..., :16]}, "one distractor"),
        ({"swaps": 0}, "swaps must be"),
        ({"swaps": True}, "swaps must be"),
        ({"swaps": 36}, "more than the 35 cells"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"layer": ["features", "tail"]}, "one layer"),
        ({"layer": "feature"}, "nearest"),
        ({"target": 9}, "out of range"),
        ({"target": torch.zeros(2, 2, dtype=torch.long)}, "one class"),
        ({"target": lambda logits: logits[:, 0]}, "one class"),
        ({"images": images()[0]}, "shape"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_errors(change: dict, message: str) -> None:
    given = {"images": images(), "distractors": OTHERS, "target": None, "layer": "features", **change}
    if change.get("swaps") == 36:
        given["target"] = to_reach(shared("linear").module)
    with pytest.raises(ValueError, match=message):
        counterfactual(shared("linear").module, **given)


def test_half_precision() -> None:
    toy, target = shared("signed"), to_reach(shared("signed").module)
    full = counterfactual(toy.module, images(), OTHERS, target, toy.layer, 2)
    half = counterfactual(toy.module, images(), OTHERS, target, toy.layer, 2, precision="bfloat16")
    assert half.probabilities.dtype == torch.float32
    torch.testing.assert_close(half.probabilities, full.probabilities, rtol=0, atol=0.03)


@pytest.mark.parametrize("axes", [1, 3])
def test_signals_and_volumes(axes: int) -> None:
    """The cells named are the ones that were swapped."""
    torch.manual_seed(3)
    convolution, pool = ((nn.Conv1d, nn.AdaptiveAvgPool1d), (nn.Conv3d, nn.AdaptiveAvgPool3d))[axes == 3]
    net = nn.Sequential(convolution(2, 8, 3), nn.SiLU(), pool(1), nn.Flatten(), nn.Linear(8, 4)).eval()
    x, other = torch.randn(2, 2, 2, *(7, 6, 5)[:axes])
    target = (net(x).argmax(1) + 1) % 4
    got = counterfactual(net, x, other, target, swaps=3)
    assert got.swaps.shape == (2, 3, 2, axes)
    assert got.maps.shape == got.distractor_maps.shape == (2, *x.shape[2:])
    a, b = net[:2](x).detach(), net[:2](other).detach()
    for pair, (here, there) in ((p, cells) for p in range(2) for cells in got.swaps[p].tolist()):
        a[(pair, slice(None), *here)] = b[(pair, slice(None), *there)]
    probabilities = net[2:](a).softmax(1).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(got.probabilities[:, -1], probabilities.detach())
