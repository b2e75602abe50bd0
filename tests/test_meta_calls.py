"""Meta-methods as users call them: names, options, targets, batches, and a model that stays as it is."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import Tensor, nn

import fastcam
from fastcam import CAM, AugSmooth, ClassesOf, Evet, Integrated, Refine, Sess, Smooth, TopK, list_meta_methods
from fastcam.meta import METAS, parse
from fastcam.metrics import Evaluation
from fastcam.scorer import counting
from fastcam.together import explain_together
from tests import small
from tests.networks import TOYS, images, shared
from tests.test_cam import TwoInputs
from tests.test_properties import unchanged

pytestmark = pytest.mark.usefixtures("one_thread")
METHODS = {
    "augsmooth": "augsmooth(gradcam)",
    "evet": "evet(gradcam, transforms=[flip, rotate, gamma, clahe], weight=score)",
    "integrated": "integrated(gradcam, samples=3)",
    "refine": "refine(gradcam)",
    "sess": "sess(gradcam, scales=[20, 27])",
    "smooth": "smooth(gradcam, samples=3)",
    "nested": "evet(sess(gradcam, scales=[20, 23]), transforms=[identity, flip])",
    "of scores": "sess(ablationcam, scales=[20, 27], pre_filter=0.5)",
}
every = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
NORMALIZED = {"mean": [0.5] * 3, "std": [0.25] * 3}


def cam(model: nn.Module, method: str, layer=None, **options) -> CAM:
    return CAM(model, method, layer, **(NORMALIZED if "clahe" in method else {}), **options)


def test_the_list_is_complete():
    assert {name for name in METHODS if name in METAS} == set(METAS) == set(list_meta_methods())
    assert list_meta_methods("s*") == ["sess", "smooth"]
    assert not set(list_meta_methods()) & set(fastcam.list_methods())
    assert all(kind is getattr(fastcam, kind.__name__) for kind in METAS.values())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sess(gradcam)", Sess("gradcam")),
        ("Sess( Grad-CAM++ )", Sess("gradcampp")),
        ("evet(sess(gradcam, scales=[24, 30]), weight=score)", Evet(Sess("gradcam", scales=[24, 30]), weight="score")),
        ("evet(gradcam, transforms=['flip', 'clahe'])", Evet("gradcam", transforms=["flip", "clahe"])),
        ("evet(gradcam, transforms=[flip, clahe])", Evet("gradcam", transforms=["flip", "clahe"])),
        ("smooth(integrated(cam, samples=4), spread=0.1)", Smooth(Integrated("cam", samples=4), spread=0.1)),
        ("refine(layercam, variant=layer)", Refine("layercam", variant="layer")),
        ("augsmooth(scorecam, normalize=False)", AugSmooth("scorecam", normalize=False)),
        ("gradcam", "gradcam"),
    ],
)
def test_names_stand_for_objects(text, expected):
    assert parse(text) == expected
    model, x = small.network(), small.images(1)
    options = {"scales": [24]} if "sess" in text.lower() else {}
    options |= {"mean": [0.0] * 3, "std": [1.0] * 3} if "clahe" in text else {}
    by_name, by_object = (CAM(model, one, **options) for one in (text, expected))
    assert repr(by_name) == repr(by_object)
    torch.testing.assert_close(by_name(x), by_object(x))
    name = expected if isinstance(expected, str) else expected.name
    assert by_name.explain(x).method == by_name.name == name


def test_what_an_explanation_holds():
    model, x = small.network(), small.images()
    one = CAM(model, Sess("gradcam", scales=[24]), "0.1")
    found, parent = one.explain(x), CAM(model, "gradcam", "0.1").explain(x)
    assert (found.method, found.layer, one.layer_names) == ("sess(gradcam)", ["0.1"], ["0.1"])
    assert repr(one) == "CAM(Sequential, 'sess(gradcam)', layer='0.1')"
    assert torch.equal(found.target, parent.target)
    torch.testing.assert_close(found.logits, parent.logits)
    assert found.raw.shape == found.maps.shape == (2, 24, 32)
    assert found.cost.forwards == 2 * (1 + 2)


def test_options_go_to_the_method_that_has_them():
    model, x = small.network(), small.images()
    outer = CAM(model, "smooth(gradcam)", samples=2)
    assert outer.explain(x).cost.forwards == 2 * (1 + 2)
    inner = CAM(model, Smooth("smoothgradcampp", samples=3), samples=2)
    assert inner.explain(x).cost.forwards == 2 * (1 + 3 * (1 + 2))
    chained = CAM(model, "evet(smooth(gradcam))", spread=0.0, transforms=["flip"])
    assert chained.settings["smooth(gradcam)"]["spread"] == 0
    assert chained.settings["evet(smooth(gradcam))"]["transforms"] == ["flip"]
    with pytest.raises(TypeError, match=r"evet\(smooth\(gradcam\)\) has no option 'speed'.*spread.*transforms"):
        CAM(model, "evet(smooth(gradcam))", speed=1)


@every
def test_a_batch_is_its_images_one_by_one(method):
    one, x = cam(shared("deep").module, method), images(3)
    together = one(x, target=torch.tensor([2, 0, 1]))
    for b, c in enumerate((2, 0, 1)):
        torch.testing.assert_close(together[b : b + 1], one(x[b : b + 1], target=c), rtol=0, atol=2e-5)


@every
def test_the_size_of_a_chunk_does_not_matter(method):
    x = images()
    expected = cam(TOYS["deep"]().module, method)(x, target=1)
    for options in ({"batch_size": 1}, {"batch_size": 3}, {"max_memory": 1 << 16}):
        found = cam(TOYS["deep"]().module, method, **options)(x, target=1)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


@every
def test_target_forms_agree(method):
    one, x = cam(shared("linear").module, method), images()
    two = one.explain(x, target=torch.tensor([[0, 2], [1, 1]]))
    assert two.maps.shape == two.raw.shape == (2, 2, 20, 28)
    torch.testing.assert_close(two.maps[:, 1], one(x, target=[2, 1]), rtol=0, atol=2e-5)
    best = one.explain(x)
    torch.testing.assert_close(one(x, target=TopK(2))[:, 0], best.maps, rtol=0, atol=2e-5)
    torch.testing.assert_close(one(x, target=best.target), best.maps, rtol=0, atol=2e-5)
    chosen = one.explain(x, target=ClassesOf(lambda logits: logits.argmin(1)))
    assert torch.equal(chosen.target, best.logits.argmin(1))
    torch.testing.assert_close(chosen.maps, one(x, target=best.logits.argmin(1)), rtol=0, atol=2e-5)


@every
def test_all_classes_or_a_refusal(method):
    one, x = cam(shared("linear").module, method), images()
    found = one.explain(x, target="all")
    torch.testing.assert_close(found.maps[:, 1], one(x, target=1), rtol=0, atol=2e-5)
    if "ablationcam" not in method:
        with pytest.raises(ValueError, match="target='all' needs"):
            cam(shared("vgg").module, method)(x, target="all")


@every
def test_functions_as_targets(method):
    x = images()
    one = cam(shared("linear").module, method)
    calls = [lambda logits: logits[:, 1].exp(), lambda logits: logits[:, 2].exp()]
    each = one.explain(x, target=calls)
    assert each.target is None
    torch.testing.assert_close(each.maps[1], one(x, target=calls[1])[1], rtol=0, atol=2e-5)
    if "sess" not in method and "score" not in method:  # which weigh by what the callable gives
        # Grad-CAM of exp(y) is that of y, times a factor.
        torch.testing.assert_close(each.maps, one(x, target=[1, 2]), rtol=0, atol=2e-5)


@every
def test_the_model_is_as_before(method):
    module, x = TOYS["deep"]().module, images()
    kept = x.clone()
    with unchanged(module):
        cam(module, method)(x)
    assert torch.equal(x, kept)

    def broken(scores: Tensor) -> Tensor:
        raise ArithmeticError("broken target")

    with unchanged(module), pytest.raises(ArithmeticError):
        cam(module, method)(x, target=broken)
    with unchanged(module), pytest.raises(ValueError, match="class 99"):
        cam(module, method)(x, target=99)


@every
@pytest.mark.parametrize("mode", ["no_grad", "inference_mode", "frozen", "leaf", "bfloat16", "autocast"])
def test_modes_make_no_difference(method, mode):
    module, x = TOYS["deep"]().module, images()
    expected = cam(module, method)(x, target=1)
    half = mode in ("bfloat16", "autocast")
    if mode == "frozen":
        module.requires_grad_(False)
    if mode == "bfloat16":
        module, x = module.bfloat16(), x.bfloat16()
    context = {
        "no_grad": torch.no_grad,
        "inference_mode": torch.inference_mode,
        "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    }.get(mode, contextlib.nullcontext)
    with context():
        found = cam(module, method).explain(x.requires_grad_() if mode == "leaf" else x, target=1)
    assert found.maps.dtype == found.raw.dtype == torch.float32
    assert not found.maps.requires_grad
    torch.testing.assert_close(found.maps, expected, rtol=0, atol=0.1 if half else 1e-5)


@every
def test_a_constant_image_never_gives_nan(method):
    for value in (0.0, 1.0):
        found = cam(shared("deep").module, method)(torch.full((1, 3, 20, 28), value))
        assert found.isfinite().all()
        assert 0 <= found.min() <= found.max() <= 1


@every
def test_differentiable_maps_reach_the_weights(method):
    model, x = small.network().double(), small.images(1).double()
    options = {"scales": [24, 27]} if "sess" in method else {}
    if "ablationcam" in method:
        with pytest.raises(ValueError, match="no differentiable form"):
            cam(model, method, **options)(x, target=1, differentiable=True)
        return
    ramp = torch.linspace(0, 1, 24 * 32, dtype=torch.float64).view(24, 32)
    one, weight = cam(model, method, **options), model[0][0].weight
    best = int(one(x, target=[[0, 1, 2, 3, 4]]).flatten(2).mean(2).argmax())
    maps = one(x, target=best, differentiable=True)
    torch.testing.assert_close(maps.detach(), one(x, target=best))
    (slope,) = torch.autograd.grad((maps[0] * ramp).sum(), weight)
    assert float(slope.abs().sum()) > 0
    step, values = 1e-5 * slope / slope.norm(), []
    with torch.no_grad():
        for sign in (1, -2):
            weight += sign * step
            values.append(float((one(x, target=best)[0] * ramp).sum()))
    assert (values[0] - values[1]) / 2 == pytest.approx(float((slope * step).sum()), rel=0.05)


@every
def test_further_inputs_follow_their_image(method):
    torch.manual_seed(0)
    model, x, question = TwoInputs().eval(), images(3), 10 * torch.randn(3, 4)
    one = cam(model, method, ["net.1", "net.3"] if "refine" in method else "net")
    together = one(x, question, scale=1.5, target=2)
    for b in range(3):
        alone = one(x[b : b + 1], question[b : b + 1], scale=1.5, target=2)
        torch.testing.assert_close(together[b : b + 1], alone, rtol=0, atol=1e-4)
    assert not torch.allclose(together, one(x, question.flip(0), scale=1.5, target=2), atol=1e-3)


def test_on_another_model_and_together_with_others():
    model, other, x = small.network(), small.network(seed=3), small.images()
    one = CAM(model, Evet("gradcam"), "0.1")
    torch.testing.assert_close(one.on(other)(x, target=1), CAM(other, "evet(gradcam)", "0.1")(x, target=1))
    cams = [CAM(model, "gradcam"), one, CAM(model, "layercam")]
    with counting() as cost:
        found = explain_together(cams, x, 1)
    assert [explanation.method for explanation in found] == ["gradcam", "evet(gradcam)", "layercam"]
    for explanation, single in zip(found, cams, strict=True):
        torch.testing.assert_close(explanation.maps, single(x, target=1), rtol=0, atol=1e-5)
    assert cost.forwards == 2 * (1 + 10)


def test_evaluation():
    model, x = small.network(), small.images(3)
    names = ["adcc", "insertion", "max_sensitivity", "randomization"]
    options = {"steps": 4, "sensitivity_samples": 2, "randomization_steps": 2}
    sess = CAM(model, Sess("gradcam", scales=[24, 30]))
    cams = {"gradcam": CAM(model, "gradcam"), "sess": sess}
    evaluation = Evaluation(cams, names, options=options, mean=[0.5] * 3, std=[0.5] * 3)
    rows = evaluation.update(x, torch.tensor([0, 1, 2]))
    assert all(rows["sess"][name].isfinite().all() for name in names)
    assert evaluation.settings()["methods"]["sess"]["method"] == "sess(gradcam)"
    assert evaluation.settings()["methods"]["sess"]["options"]["sess(gradcam)"]["scales"] == [24, 30]
    maps = sess(x)
    alone = Evaluation({"maps": lambda images, target: maps}, ["insertion"], options=options, score=model,
                       mean=[0.5] * 3, std=[0.5] * 3)  # fmt: skip
    torch.testing.assert_close(rows["sess"]["insertion"], alone.update(x, torch.tensor([0, 1, 2]))["maps"]["insertion"])
    single = Evaluation(sess, ["adcc"])
    single.update(x)
    assert list(single.compute()) == ["sess(gradcam)"]


def test_a_transformation_of_ones_own():
    class Up:
        def apply(self, pictures: Tensor) -> Tensor:
            return pictures.roll(-2, -2)

        def invert(self, maps: Tensor) -> Tensor:
            return maps.roll(2, -2)

    model, x = small.network(), small.images()
    moved = CAM(model, "gradcam")(x.roll(-2, -2), target=1).roll(2, -2)
    mine = CAM(model, Evet("gradcam", transforms=[Up()]))
    torch.testing.assert_close(mine(x, target=1), moved, rtol=0, atol=1e-6)
    assert "Up" in str(mine.settings)


@pytest.mark.parametrize("method", ["smooth(gradcam)", "integrated(gradcam)", "refine(gradcam)"])
def test_signals(method):
    torch.manual_seed(0)
    body = [nn.Conv1d(2, 6, 3, 2), nn.ReLU(), nn.Conv1d(6, 8, 3, 2), nn.ReLU()]
    model = nn.Sequential(*body, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 4)).eval()
    found = CAM(model, method).explain(torch.randn(2, 2, 40))
    assert found.maps.shape == (2, 40)
    assert found.maps.amax() == 1
    for pictures_only in ("sess(gradcam)", "evet(gradcam)", "augsmooth(gradcam)"):
        with pytest.raises(ValueError, match=r"\(gradcam\) explains pictures"):
            CAM(model, pictures_only)(torch.randn(2, 2, 40))
