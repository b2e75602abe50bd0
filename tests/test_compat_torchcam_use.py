"""torchcam's extractors in use: what they leave behind, beside each other, changed by subclasses."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from torch import Tensor, nn

from fastcam import engines
from fastcam.compat.torchcam import methods
from fastcam.compat.torchcam.methods import ISCAM, SSCAM, GradCAM, LayerCAM, RefineCAM, ScoreCAM, SmoothGradCAMpp
from fastcam.compat.torchcam.methods.activation import CAM
from fastcam.compat.torchcam.methods.core import _CAM
from tests.torchcam_both import LAYERS, SEED, distance, inputs, pictures, pooled

pytestmark = pytest.mark.usefixtures("one_thread")

CLOSE = 1e-5
OPTIONS = {"SSCAM": {"num_samples": 2}, "ISCAM": {"num_samples": 2}, "SmoothGradCAMpp": {"num_samples": 2}}
NAMES = [name for name in methods.__all__ if name not in {"OutputTarget", "LeGrad", "CAM"}]


def made(name: str, net: nn.Module, **options):
    return getattr(methods, name)(net, LAYERS["pictures"], input_shape=(3, 20, 28), **OPTIONS.get(name, {}), **options)


def hooks_of(net: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())


def state_of(net: nn.Module) -> tuple:
    values = {name: value.clone() for name, value in net.state_dict().items()}
    own = [(m.training, tuple(m._modules), m.forward) for m in net.modules()]
    return values, own, [(p.requires_grad, p.grad is p.grad_before) for p in net.parameters()]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_left_as_it_was(name, fails):
    net, x = pictures().train(), inputs("pictures")
    net[1].eval()  # so that its statistics stay, and modes differ
    for p in net.parameters():
        p.grad = p.grad_before = torch.ones_like(p)
    values, own, parameters = state_of(net)
    with made(name, net) as extractor:
        assert hooks_of(net) >= 3
        scores = net(x)
        random = torch.get_rng_state()
        if fails:
            wrong = {"targets": 3} if name != "FinerCAM" else {"comparison_idx": "no"}
            with pytest.raises((TypeError, ValueError)):
                extractor(**({"class_idx": 1} if name == "FinerCAM" else {}), scores=scores, **wrong)
        else:
            assert all(torch.isfinite(cam).all() for cam in extractor(1, scores))
        assert torch.equal(torch.get_rng_state(), random)
    after, now, kept = state_of(net)
    assert hooks_of(net) == 0
    assert all(torch.equal(value, after[key]) for key, value in values.items())
    assert (own, parameters) == (now, kept)
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in net.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_hooks_end_with_their_extractor(name):
    net = pictures()
    extractor = made(name, net)
    net(inputs("pictures"))
    alive = weakref.ref(extractor)
    del extractor
    gc.collect()
    assert alive() is None
    assert hooks_of(net) == 0


def test_a_constructor_that_fails_leaves_no_hook():
    net = pictures()
    for layer, error in (("nowhere", ValueError), (3, TypeError), (nn.ReLU(), ValueError)):
        with pytest.raises(error) as caught:
            GradCAM(net, layer)
        assert caught.traceback
    for fc in (3, "nowhere", "0"):
        with pytest.raises((TypeError, ValueError), match="fc_layer"):
            CAM(net, "2", fc)
    with pytest.raises(ValueError, match="did you mean"):
        LayerCAM(pooled(), "11")
    assert hooks_of(net) == 0


def test_two_extractors_on_one_model():
    """torchcam's issue 195; the forwards of one are not heard by the other, not even while a layer is looked for."""
    net, x = pictures(), inputs("pictures")
    with GradCAM(net, "2") as alone:
        expected = alone(1, net(x))
    with GradCAM(net, "2") as first:
        scores = net(x)
        kept = first.hook_a[0]
        with ScoreCAM(net, input_shape=(3, 20, 28)) as second, SmoothGradCAMpp(net, "4", strict_compat=True) as third:
            assert first.hook_a[0] is kept
            scores = net(x)
            kept = first.hook_a[0]
            second(1)
            third(1)
            assert first.hook_a[0] is kept
        assert distance(first(1, scores), expected) < CLOSE
    assert hooks_of(net) == 0


def test_copies_and_saved_models_have_no_extractor():
    net, x = pictures(), inputs("pictures")
    with GradCAM(net, "2") as extractor:
        net(x)
        copied, saved = copy.deepcopy(net), pickle.dumps(net)
        kept = extractor.hook_a[0]
        torch.testing.assert_close(copied(2 * x), pickle.loads(saved)(2 * x))
        torch.save(net, io.BytesIO())
        assert extractor.hook_a[0] is kept


def test_masked_forwards_run_on_a_folded_network(monkeypatch):
    """The extractor's own hooks, idle meanwhile, do not stand in the way; a hook of the user's does."""
    plain = []
    monkeypatch.setattr(engines, "_plain", lambda model, real=engines._plain: plain.append(real(model)) or plain[-1])
    net, x = pictures(), inputs("pictures")
    with ScoreCAM(net, "4") as extractor:
        net(x)
        extractor(1)
        assert plain
        assert all(plain)
        net[0].register_forward_hook(lambda *_: None)
        extractor(1)
        assert not plain[-1]


def test_disabled_hooks_hear_nothing():
    net, x = pictures(), inputs("pictures")
    with GradCAM(net, "2", enable_hooks=False) as extractor:
        net(x)
        with pytest.raises(AssertionError, match="'2' has seen no forward"):
            extractor(1, net(x))
        extractor.enable_hooks()
        scores = net(x)
        kept = extractor.hook_a[0]
        extractor.disable_hooks()
        net(2 * x)
        assert extractor.hook_a[0] is kept
        assert extractor(1, scores)[0].shape == (2, 10, 14)


def test_the_users_own_backward_still_works():
    """Maps in a training loop: the same gradients of the parameters, with hooks live and maps taken."""
    net, x = pictures(), inputs("pictures")
    net(x).square().sum().backward()
    expected = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    with LayerCAM(net, LAYERS["pictures"]) as extractor:
        scores = net(x)
        extractor([1, 2], scores, retain_graph=True)
        scores.square().sum().backward()
    for p, before in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, before)


def test_calls_that_share_a_graph():
    net, x = pictures(), inputs("pictures")
    with GradCAM(net, "2") as extractor:
        scores = net(x)
        first = extractor(1, scores, retain_graph=True)
        assert distance(extractor(1, scores), first) == 0
        with pytest.raises(RuntimeError, match="retain_graph=True"):
            extractor(1, scores)


def test_a_subclass_says_how_channels_are_weighed():
    class Mean(_CAM):
        def _get_weights(self, class_idx, scores=None, **kwargs):
            return [torch.full((1, a.shape[1]), 1 / a.shape[1]) for a in self.hook_a]

    class Doubled(ScoreCAM):
        def _get_weights(self, class_idx, scores=None, **kwargs):
            return [2 * w for w in super()._get_weights(class_idx, scores, **kwargs)]

    net, x = pictures(), inputs("pictures")
    with Mean(net, "2") as extractor:
        net(x)
        torch.testing.assert_close(extractor(0, normalized=False)[0], net[:3](x).detach().mean(1))
    with ScoreCAM(net, "4") as plain, Doubled(net, "4", batch_size=3) as extractor:
        net(x)
        assert distance(extractor(1, normalized=False), [2 * cam for cam in plain(1, normalized=False)]) < CLOSE


@pytest.mark.parametrize("call", [{"class_idx": 1}, {"class_idx": [1, 3]}, {"targets": lambda row: row[1] - row[0]}])
@pytest.mark.parametrize(("method", "options"), [(ScoreCAM, {}), (ISCAM, {"num_samples": 3})])
def test_masked_inputs_of_a_subclass(method, options, call):
    """A subclass that fills in the same as ours gets the same map, one that fills in something else another."""

    class Same(method):
        def _masked_input_chunk(self, masks, sample_indices, buffer, slice_):
            return super()._masked_input_chunk(masks, sample_indices, buffer, slice_)

    class Kept(method):
        def _masked_input_chunk(self, masks, sample_indices, buffer, slice_):
            mask, image = masks[slice_], self._input[sample_indices[slice_]]
            return mask * image + (1 - mask) * image.mean((2, 3), keepdim=True)

    net, x, maps = pictures(), inputs("pictures"), []
    for cls in (method, Same, Kept):
        with cls(net, ["2", "4"], batch_size=5, **options) as extractor:
            net(x)
            maps.append(extractor(**call))
    assert distance(maps[0], maps[1]) < CLOSE
    assert distance(maps[0], maps[2]) > 1e-3


def test_gradients_of_a_subclass():
    """Smooth Grad-CAM++ by one `_backprop` a sample: the same map, from the same noise."""

    class Heard(SmoothGradCAMpp):
        def _backprop(self, scores, class_idx, **kwargs):
            heard.append(tuple(scores.shape))
            super()._backprop(scores, class_idx, **kwargs)

    heard: list[tuple[int, ...]] = []
    net, x, maps = pictures(), inputs("pictures"), []
    for cls in (SmoothGradCAMpp, Heard):
        with cls(net, "2", num_samples=3) as extractor:
            net(x)
            torch.manual_seed(SEED)
            maps.append(extractor([1, 3]))
    assert heard == [(2, 5)] * 3
    assert distance(*maps) < 1e-4


def test_activations_put_in_by_hand_are_explained():
    """`hook_a` is what is masked and summed, whoever filled it."""
    net, x = pictures(), inputs("pictures")
    with ScoreCAM(net, "2") as extractor:
        net(x)
        first = extractor(1, normalized=False)
        extractor.hook_a[0] = 3 * extractor.hook_a[0]
        assert distance(extractor(1, normalized=False), [3 * cam for cam in first]) < 1e-4


def test_refinecam_of_scorecam_and_reuse_after_reset():
    net, x = pictures(), inputs("pictures")
    with RefineCAM(net, ["2", "4"], base_method=ScoreCAM, batch_size=4) as extractor:
        net(x)
        first = extractor(1)
        extractor.reset_hooks()
        with pytest.raises(AssertionError, match="no forward"):
            extractor(1)
        net(x)
        assert distance(extractor(1), first) < CLOSE


def test_noise_of_sscam_does_not_depend_on_chunks():
    net, x, maps = pictures(), inputs("pictures"), []
    for size in (3, 32, 64):
        with SSCAM(net, "4", size, 3) as extractor:
            net(x)
            maps.append(extractor(2))
    assert distance(maps[0], maps[1]) < CLOSE
    assert distance(maps[0], maps[2]) < CLOSE


def test_a_layer_that_gives_no_tensor():
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair, self.net = Pair(), pictures()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(self.pair(x)[0])

    for method in (GradCAM, ScoreCAM):
        net = Net()
        with method(net, "pair"), pytest.raises(TypeError, match="reshape_transform"):
            net(inputs("pictures"))
    net = Net()
    with ScoreCAM(net, "pair", reshape_transform=lambda out: out[0]) as extractor:
        net(inputs("pictures"))
        assert extractor(1)[0].shape == (2, 20, 28)
