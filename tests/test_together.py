"""Several methods on one batch, a model swapped for a copy, classes chosen from the logits, and what all of it ran."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch

from fastcam import CAM, ClassesOf, TopK, list_methods
from fastcam.scorer import counting
from fastcam.together import explain_together
from tests import networks, small
from tests.quick import ATTENTION, LEARNED, quick

pytestmark = pytest.mark.usefixtures("one_thread")


def cam(model, method, layer):
    return quick(model, method, layer, batch_size=8)


@pytest.mark.parametrize("toy", ["linear", "vgg"])
def test_methods_give_together_what_they_give_alone(toy):
    one = networks.TOYS[toy]()
    methods = [m for m in list_methods() if m not in ATTENTION | LEARNED and not (toy == "vgg" and m == "cam")]
    cams = [cam(one.module, m, one.layer) for m in methods]
    x, target = networks.images(), torch.tensor([[0, 1], [2, 0]])
    for method, shared, alone in zip(methods, explain_together(cams, x, target), cams, strict=True):
        expected = alone.explain(x, target=target)
        # Near and not equal: a folded copy that one method makes serves those that run after it.
        size = float(expected.raw.abs().max())
        torch.testing.assert_close(shared.raw, expected.raw, rtol=0, atol=1e-5 * size, msg=method)
        torch.testing.assert_close(shared.maps, expected.maps, rtol=0, atol=1e-4, msg=method)
        assert torch.equal(shared.target, expected.target)
        assert shared.cost.forwards >= expected.cost.forwards - len(x)


def test_nothing_of_a_call_is_kept_once_its_results_are_gone():
    one = networks.TOYS["vgg"]()
    kept = []
    for method in list_methods():
        if method in ATTENTION | LEARNED | {"cam"}:
            continue
        x = networks.images()
        gone = weakref.ref(x)
        explain_together([cam(one.module, method, one.layer)], x, torch.tensor([0, 2]))
        del x
        gc.collect()
        kept += [method] if gone() is not None else []
    assert not kept


def test_a_question_that_fails_leaves_the_model_alone():
    model = small.network().train()
    with pytest.raises(ValueError, match="out of range"):
        explain_together([CAM(model, "gradcam"), CAM(model, "layercam")], small.images(), 99)
    assert model.training


def test_what_ran_is_counted():
    model, x = small.network(), small.images(2)
    scorecam = CAM(model, "scorecam", batch_size=4)
    scorecam(x)
    seen = []
    model[0].register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    with counting() as outer, counting() as inner:
        explanation = scorecam.explain(x)
    assert explanation.cost.forwards == inner.forwards == outer.forwards == sum(seen) > 2
    assert explanation.cost.seconds > 0


def test_backwards_and_tails_are_counted():
    toy = networks.TOYS["vgg"]()
    x = networks.images()
    assert cam(toy.module, "gradcam", toy.layer).explain(x, target=TopK(2)).cost.backwards == 4
    reciprocam = cam(toy.module, "reciprocam", toy.layer)
    reciprocam(x)
    cost = reciprocam.explain(x).cost
    h, w = CAM(toy.module, "gradcam", toy.layer).explain(x).raw.shape[-2:]
    assert (cost.forwards, cost.tails) == (2, 2 * h * w)


@pytest.mark.parametrize("layer", [None, "0.2", ["0.1", "0.3"]])
def test_the_same_method_on_another_model(layer):
    model, x = small.network(), small.images()
    other = small.network(seed=3)
    moved = CAM(model, "gradcam", layer).on(other)
    assert torch.equal(moved(x, target=1), CAM(other, "gradcam", layer)(x, target=1))
    module = CAM(model, "gradcam", model[0][2]).on(copy.deepcopy(other))
    assert torch.equal(module(x, target=1), CAM(other, "gradcam", "0.2")(x, target=1))


def test_classes_chosen_from_the_logits():
    model, x = small.network(), small.images()
    cam = CAM(model, "gradcam")
    second = cam.explain(x, target=ClassesOf(lambda logits: logits.topk(2, 1).indices[:, 1]))
    both = cam.explain(x, target=TopK(2))
    assert second.maps.shape == (2, 24, 32)
    assert torch.equal(second.maps, both.maps[:, 1])
    assert torch.equal(second.target, both.target[:, 1])
    with pytest.raises(ValueError, match="for a batch of 2"):
        cam(x, target=ClassesOf(lambda logits: logits.argmax(1)[:1]))
    with pytest.raises(TypeError, match="must be integers"):
        cam(x, target=ClassesOf(lambda logits: logits[:, 0]))
