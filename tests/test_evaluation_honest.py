"""`Evaluation`: one model a number, its weights as they are now, and edges that have nothing to score."""

from __future__ import annotations

import pytest
import torch

from fastcam import CAM
from fastcam.metrics import PROTOCOLS, Evaluation
from tests import small
from tests.formulas_perturb import reciprocam_curves

pytestmark = pytest.mark.usefixtures("one_thread")


def test_scores_of_two_models_never_enter_one_number():
    one, other = small.network(), small.network(seed=1)
    with pytest.raises(ValueError, match="b and a run different models"):
        Evaluation({"a": CAM(one), "b": CAM(other)}, ["average_drop"])
    with pytest.raises(ValueError, match="different models, outputs or precisions"):
        Evaluation({"a": CAM(one), "b": CAM(one, precision="bfloat16")}, ["average_drop"])
    with pytest.raises(ValueError, match="a is a CAM and scored by its own model"):
        Evaluation({"a": CAM(one)}, ["average_drop"], score=other)


def test_a_function_beside_a_cam_is_scored_by_its_model():
    model, x = small.network(), small.images(2)
    cam = CAM(model, "layercam")
    found = Evaluation({"a": CAM(model), "b": lambda images, target: cam(images, target=target)}, ["average_drop"])
    values = found.update(x)
    alone = Evaluation({"b": cam}, ["average_drop"]).update(x)
    assert torch.allclose(values["b"]["average_drop"], alone["b"]["average_drop"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_model_that_stays_as_it_is_has_the_same_maps(protocol, monkeypatch):
    monkeypatch.setattr("fastcam.metrics.robustness._draw", lambda layer: None)
    options = {"randomization_steps": 2}
    evaluation = Evaluation(CAM(small.network(), "layercam"), ["randomization"], protocol=protocol, options=options)
    values = evaluation.update(small.images(2), target=torch.tensor([2, 4]))["layercam"]["randomization"]
    assert torch.allclose(values, torch.ones(2, dtype=torch.float64), atol=1e-6)


def test_changed_weights_leave_no_score_behind():
    model, x = small.network(), small.images(1)
    evaluation = Evaluation(CAM(model), ["deletion"], options={"steps": 4})
    evaluation.update(x)
    with torch.no_grad():
        model[3].bias.add_(torch.tensor([3.0, 0, 0, 0, -3]))
    again = evaluation.update(x)["gradcam"]["deletion_curve"]
    fresh = Evaluation(CAM(model), ["deletion"], options={"steps": 4}).update(x)["gradcam"]["deletion_curve"]
    assert torch.allclose(again, fresh, atol=1e-6)


def test_patches_go_in_the_order_of_the_layers_own_cells():
    model, x = small.network(), small.images(2, size=(20, 30))  # a map of 4 x 6 cells, 5 x 5 pixels each
    cam, target = CAM(model, "layercam"), torch.tensor([2, 4])
    options = {"patch": 5}
    found = Evaluation(cam, ["insertion", "deletion"], protocol="recipro", options=options).update(x, target=target)
    raw = cam.explain(x, target=target).raw.relu().double()
    for b, image in enumerate(x):

        def score(one, label=int(target[b])):
            with torch.no_grad():
                return float(model(one[None].float()).softmax(1)[0, label])

        deleted, inserted = reciprocam_curves(score, image, raw[b].tolist())
        for name, expected in (("deletion", deleted), ("insertion", inserted)):
            curve = found["layercam"][f"{name}_curve"][b]
            assert torch.allclose(curve, torch.tensor(expected, dtype=torch.float64), atol=1e-5), name


@pytest.mark.parametrize("options", [{"steps": 1}, {"patch": 64}, {"steps": 1, "insertion_start": "zero"}])
def test_one_step_has_two_ends_and_nothing_between(options):
    model, x = small.network(), small.images(2)
    values = Evaluation(CAM(model), ["insertion", "deletion"], options=options).update(x)["gradcam"]
    with torch.no_grad():
        p = model(x).softmax(1)
        best = p.argmax(1, keepdim=True)
        ends = {"whole": p, "none": model(torch.zeros_like(x)).softmax(1)}
    whole, none = (one.gather(1, best).double() for one in ends.values())
    assert torch.allclose(values["deletion_curve"], torch.cat([whole, none], 1), atol=1e-6)
    assert torch.allclose(values["insertion_curve"][:, -1:], whole, atol=1e-6)


def test_one_pixel_images():
    score = lambda images: images.flatten(1)  # noqa: E731 - a logit a channel
    maps = lambda images, target: torch.ones(len(images), 1, 1)  # noqa: E731
    x = torch.tensor([[[[2.0]], [[1.0]], [[0.0]]]])
    values = Evaluation({"m": maps}, ["deletion", "insertion"], score=score).update(x)["m"]
    p = torch.tensor([2.0, 1, 0]).softmax(0)[0].double()
    assert torch.allclose(values["deletion_curve"], torch.stack([p, torch.tensor(1 / 3).double()])[None], atol=1e-6)
    # The blurred image is the pixel times the kernel's center, 1/121 of a flat one and a little more.
    assert float(values["insertion_curve"][0, 0]) < float(values["insertion_curve"][0, 1])


def test_labels_that_a_protocol_explains_must_be_given():
    cam, x = CAM(small.network()), small.images(2)
    with pytest.raises(ValueError, match=r"'recipro' explains the label for complexity: give target="):
        Evaluation(cam, ["complexity"], protocol="recipro").update(x)
    Evaluation(cam, ["complexity"], protocol="recipro", options={"classes": "predicted"}).update(x)


def test_a_given_chunk_size_is_made_smaller_by_the_memory():
    model, x = small.network(), small.images(1)
    seen = []
    model[0].register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    Evaluation(CAM(model, batch_size=16), ["deletion"]).update(x)
    assert max(seen) == 16
    seen.clear()
    Evaluation(CAM(model, batch_size=16, max_memory=1), ["deletion"]).update(x)
    assert max(seen) == 1
