"""torchcam's metrics: the peer's numbers on the peer's extractors, sums that wait on the device, bad input."""

from __future__ import annotations

import contextlib
import copy
import functools

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("torchcam")
import torchcam.metrics as theirs
from torchcam import methods

from fastcam.compat.torchcam import methods as our_methods
from fastcam.compat.torchcam import metrics as ours
from tests.networks import SIZE, images, shared

pytestmark = pytest.mark.usefixtures("one_thread")

PROBABILITIES = functools.partial(torch.softmax, dim=-1)
METRICS = ("ClassificationMetric", "DeletionInsertionMetric")
CLOSE = 1e-5


def score_of_first(sample: Tensor) -> Tensor:
    return sample[0]


def score_of_second(sample: Tensor) -> Tensor:
    return sample[1]


class Fixed:
    """The maps of any batch are given."""

    def __init__(self, model: nn.Module, maps: Tensor) -> None:
        self.model, self.maps, self.off = model, maps, False

    def __call__(self, class_idx=None, scores=None, normalized=True, *, targets=None):
        assert torch.is_grad_enabled()
        return [self.maps]

    @staticmethod
    def fuse_cams(cams):
        return cams[0]

    @contextlib.contextmanager
    def _hooks_off(self):
        self.off = True
        yield
        self.off = False


def numbers(
    module, name: str, toy: str, extractor: str, *, logits_fn=None, updates=({},), **options
) -> dict[str, float]:
    found = shared(toy)
    with getattr(methods, extractor)(found.module, found.layer) as maps:
        metric = getattr(module, name)(maps, logits_fn, **options)
        for seed, update in enumerate(updates):
            metric.update(images(3, seed), **update)
        assert metric.total == 3 * len(updates)
        assert metric.nan_count == 0
        return metric.summary()


def same(name: str, *args, **kwargs) -> dict[str, float]:
    found, expected = (numbers(module, name, *args, **kwargs) for module in (ours, theirs))
    assert found == pytest.approx(expected, rel=CLOSE, abs=CLOSE)
    return found


UPDATES = [
    ({}, {}),
    ({"class_idx": 2},),
    ({"class_idx": [2, 0, 1]},),
    ({"targets": score_of_first},),
    ({"targets": [score_of_first, score_of_second, score_of_first]},),
]


@pytest.mark.parametrize("updates", UPDATES, ids=str)
@pytest.mark.parametrize("name", METRICS)
def test_the_peers_numbers(name, updates):
    found = same(name, "linear", "GradCAM", updates=updates, logits_fn=PROBABILITIES)
    assert len(set(found.values())) == 2


@pytest.mark.parametrize("extractor", ["LayerCAM", "XGradCAM", "ScoreCAM"])
@pytest.mark.parametrize("name", METRICS)
def test_other_extractors_and_raw_logits(name, extractor):
    same(name, "vgg", extractor)


@pytest.mark.parametrize("name", METRICS)
def test_a_network_of_torchvision(name):
    torch.manual_seed(0)
    model = pytest.importorskip("torchvision").models.resnet18(num_classes=7).eval()
    found = []
    for module in (ours, theirs):
        with methods.GradCAM(model, "layer4") as extractor:
            metric = getattr(module, name)(extractor, PROBABILITIES)
            metric.update(torch.linspace(-2, 2, 2 * 3 * 64 * 64).sin().view(2, 3, 64, 64))
            found.append(metric.summary())
    assert found[0] == pytest.approx(found[1], rel=CLOSE, abs=CLOSE)


@pytest.mark.parametrize(
    ("extractor", "layer"),
    [("GradCAM", "features"), ("LayerCAM", ["features.1", "features"]), ("RefineCAM", ["features.1", "features"])],
)
@pytest.mark.parametrize("name", METRICS)
def test_our_own_extractors(name, extractor, layer):
    found = []
    for module, classes in ((ours, our_methods), (theirs, methods)):
        # RefineCAM's own default is GradCAMpp, which differs from torchcam's on purpose.
        base = {"base_method": classes.LayerCAM} if extractor == "RefineCAM" else {}
        with getattr(classes, extractor)(shared("vgg").module, layer, **base) as maps:
            metric = getattr(module, name)(maps, PROBABILITIES)
            metric.update(images(3))
            found.append(metric.summary())
    assert found[0] == pytest.approx(found[1], rel=CLOSE, abs=CLOSE)


@pytest.mark.parametrize(("steps", "batch_size"), [(1, 1), (7, 1), (20, 5), (20, 32), (1000, 64), (1000, 10_000)])
def test_any_steps_and_chunks(steps, batch_size):
    sizes = []
    handle = shared("linear").module.register_forward_hook(lambda *args: sizes.append(len(args[2])))
    try:
        same("DeletionInsertionMetric", "linear", "GradCAM", steps=steps, batch_size=batch_size)
    finally:
        handle.remove()
    ours_, theirs_ = sizes[: len(sizes) // 2], sizes[len(sizes) // 2 :]
    assert ours_ == theirs_
    assert max(sizes[1 : len(sizes) // 2]) <= batch_size


@pytest.mark.parametrize("baseline", [torch.tensor(0.3), images()[0, :, :1, :1], images(1), lambda x: x.flip(-1)])
def test_baselines(baseline):
    plain = numbers(ours, "DeletionInsertionMetric", "signed", "GradCAM")
    assert same("DeletionInsertionMetric", "signed", "GradCAM", baseline=baseline) != pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("name", METRICS)
def test_signals_and_volumes(name, rank):
    conv, pool = {1: (nn.Conv1d, nn.AdaptiveAvgPool1d), 3: (nn.Conv3d, nn.AdaptiveAvgPool3d)}[rank]
    torch.manual_seed(0)
    model = nn.Sequential(conv(2, 6, 3, 2), nn.ReLU(), pool(1), nn.Flatten(), nn.Linear(6, 3)).eval()
    x = torch.randn(2, 2, *{1: (30,), 3: (6, 8, 10)}[rank])
    found = []
    for module in (ours, theirs):
        with methods.LayerCAM(model, "0") as extractor:
            metric = getattr(module, name)(extractor, PROBABILITIES)
            metric.update(x)
            found.append(metric.summary())
    assert found[0] == pytest.approx(found[1], rel=CLOSE, abs=CLOSE)


def test_curves_are_the_peers():
    toy, x = shared("deep"), images(2)
    ranks = torch.stack([torch.randperm(SIZE[0] * SIZE[1]) for _ in x])
    scores, classes = toy.module(x)[:, 1], torch.tensor([1, 1])
    found = []
    for module in (ours, theirs):
        metric = module.DeletionInsertionMetric(Fixed(toy.module, x), steps=9)
        found.append(metric._compute_curves(x, torch.zeros_like(x), ranks, classes, scores.detach()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("name", METRICS)
def test_broken_maps_are_left_out(name):
    toy, x = shared("linear"), images(3)
    maps = torch.rand(3, 5, 7)
    maps[1, 2, 3] = float("nan")
    metric = getattr(ours, name)(Fixed(toy.module, maps))
    metric.update(x, class_idx=[0, 1, 2])
    assert (metric.total, metric.nan_count) == (2, 1)
    alone = getattr(ours, name)(Fixed(toy.module, maps[::2]))
    alone.update(x[::2], class_idx=[0, 2])
    assert metric.summary() == pytest.approx(alone.summary(), rel=CLOSE)
    metric.reset()
    with pytest.raises(AssertionError, match="update"):
        metric.summary()


class Syncs(TorchDispatchMode):
    """Counts how often a tensor's value, or how many of its entries are true, must be known on the host."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        picks = func is torch.ops.aten.index.Tensor and any(i is not None and i.dtype == torch.bool for i in args[1])
        self.count += picks or func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", METRICS)
def test_no_value_is_asked_for_while_adding(name):
    toy = shared("linear")
    metric = getattr(ours, name)(Fixed(toy.module, torch.rand(3, 5, 7)))
    with Syncs() as seen:
        metric.update(images(3), class_idx=[0, 1, 2])
        metric.update(images(3), class_idx=1)
    assert seen.count == 0
    peer = getattr(theirs, name)(Fixed(toy.module, torch.rand(3, 5, 7)))
    with Syncs() as seen:
        peer.update(images(3), class_idx=1)
    assert seen.count > 0


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_whatever_the_callers_mode(name, mode):
    toy = shared("signed")
    expected = numbers(ours, name, "signed", "GradCAM")
    with mode(), methods.GradCAM(toy.module, toy.layer) as extractor:
        metric = getattr(ours, name)(extractor)
        metric.update(images(3, 0).clone())
        assert metric.summary() == pytest.approx(expected, rel=CLOSE)
        with pytest.raises(RuntimeError):
            getattr(theirs, name)(extractor).update(images(3, 0).clone())


@pytest.mark.parametrize("name", METRICS)
def test_the_model_stays_as_it_was_after_an_error(name):
    model = copy.deepcopy(shared("linear").module).train()
    model.tail.eval()
    modes = [module.training for module in model.modules()]

    def fails_when_masked(logits: Tensor) -> Tensor:
        if not logits.requires_grad:
            raise RuntimeError("scoring failed")
        return logits

    with methods.GradCAM(model, "features") as extractor:
        metric = getattr(ours, name)(extractor, fails_when_masked)
        with pytest.raises(RuntimeError, match="scoring failed"):
            metric.update(images(2))
        assert extractor._hooks_enabled
    assert [module.training for module in model.modules()] == modes
    assert metric.total == 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_half_precision_adds_up_in_double():
    """A quotient and a sum in bfloat16 have three digits."""
    model, x = copy.deepcopy(shared("linear").module).bfloat16(), images(50).bfloat16()
    found = []
    for module in (ours, theirs):
        metric = module.ClassificationMetric(Fixed(model, torch.full((50, 5, 7), 0.5).bfloat16()), PROBABILITIES)
        metric.update(x, class_idx=0)
        found.append(metric.summary()["avg_drop"])
    with torch.no_grad():
        s, m = (model(one).softmax(-1)[:, 0].double() for one in (x, x * 0.5))
    expected = float(((s - m).relu() / (s + 1e-7)).mean())
    assert found[0] == pytest.approx(expected, rel=1e-6)
    assert found[1] == pytest.approx(expected, rel=1e-2)
    assert found[1] != pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"class_idx": 9}, ValueError, "class_idx 9 is out of range"),
        ({"class_idx": -1}, ValueError, "out of range"),
        ({"class_idx": [0]}, ValueError, "got 1 for 2 images"),
        ({"class_idx": "0"}, TypeError, "got '0'"),
        ({"class_idx": [False, 0]}, TypeError, "integer"),
        ({"class_idx": 0, "targets": score_of_first}, ValueError, "not both"),
        ({"targets": [score_of_first]}, ValueError, "batch size"),
        ({"targets": 3}, TypeError, "callable"),
    ],
)
def test_bad_choices(given, error, says):
    metric = ours.ClassificationMetric(Fixed(shared("linear").module, torch.rand(2, 5, 7)))
    with pytest.raises(error, match=says):
        metric.update(images(2), **given)


def test_bad_outputs_and_settings():
    module = shared("linear").module
    with pytest.raises(TypeError, match="gave a tuple; pass targets="):
        ours.ClassificationMetric(Fixed(module, torch.rand(2, 5, 7)), lambda x: (x,)).update(images(2))
    with pytest.raises(ValueError, match="steps must be positive, got 0"):
        ours.DeletionInsertionMetric(Fixed(module, torch.rand(2, 5, 7)), steps=0)
    with pytest.raises(TypeError, match=r"batch_size must be an integer, got 1\.5"):
        ours.DeletionInsertionMetric(Fixed(module, torch.rand(2, 5, 7)), batch_size=1.5)
    metric = ours.DeletionInsertionMetric(Fixed(module, torch.rand(2, 5, 7)), baseline=torch.zeros(3, 3))
    with pytest.raises(ValueError, match="broadcastable"):
        metric.update(images(2))
