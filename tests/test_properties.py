"""What holds for every method, whatever its formula."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from torch import Tensor, nn

from fastcam import TopK, list_methods
from tests.networks import CLASSES, SIZE, TOYS, images, shared
from tests.quick import ATTENTION, LEARNED, quick

METHODS = [name for name in list_methods() if name not in ATTENTION | LEARNED]  # in test_attention.py, test_lfi.py
RANDOM = {"randomcam", "sscam", "smoothgrad", "smoothgradcampp"}
EXACT = [name for name in METHODS if name not in RANDOM]
ONE_PASS_A_CLASS = {"gradcam", "gradcampp", "xgradcam", "layercam", "hirescam", "gradcamelementwise"}
ONE_PASS_A_CLASS |= {"eigengradcam", "liftcam", "smoothgradcampp", "integratedgradcam", "zoomcam"}
ONE_PASS_A_CLASS |= {"segeigencam", "finercam", "shapleycam", "relevancecam"}
ALONE = {"aise", "groupcam", "opticam"}  # no two classes share a pass
ALONE |= {"saliency", "inputxgradient", "smoothgrad", "integratedgradients", "deconvnet", "guidedbackprop"}
ALONE |= {"guidedgradcam", "deeplift", "fullgrad", "fgvis", "lrp"}
BLIND = {"eigencam", "randomcam", "activationmap", "fem", "kpcacam"}  # they ask no score
# Whose option score asks for a probability by default:
PROBABILITY = {"aise", "fgvis", "groupcam", "polycam", "reciprocam", "rise", "shapleycam"}
NETWORKS = ("linear", "deep")
CALLS = [(method, name) for method in METHODS for name in NETWORKS if (method, name) != ("cam", "deep")]
calls = pytest.mark.parametrize(("method", "name"), CALLS)


pytestmark = pytest.mark.usefixtures("one_thread")


def explain(module: nn.Module, method: str, x: Tensor, layer: str = "features", target=0, **options):
    return quick(module, method, layer, **options).explain(x, target=target)


def same(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance * (float(b.abs().max()) or 1.0))


@pytest.mark.parametrize(("method", "name"), [call for call in CALLS if call[0] in EXACT])
def test_a_batch_is_its_images_one_by_one(method, name):
    module, x = shared(name).module, images(3)
    target = torch.tensor([1, 0, 2])
    batch = explain(module, method, x, target=target)
    for b in range(3):
        alone = explain(module, method, x[b : b + 1], target=target[b : b + 1])
        same(alone.raw[0], batch.raw[b])
        same(alone.maps[0], batch.maps[b], 1e-4)


@calls
def test_the_size_of_a_chunk_does_not_matter(method, name):
    module, x = shared(name).module, images()
    small = explain(module, method, x, batch_size=3)
    same(small.raw, explain(module, method, x, batch_size=64).raw)


LINEAR_IN_G = [
    (method, name)
    for method in ("gradcam", "xgradcam", "hirescam", "layercam", "gradcamelementwise")
    for name in TOYS
    if method != "hirescam" or name not in {"swin", "vit"}  # before a LayerNorm it is what rounding leaves
]


@pytest.mark.parametrize(("method", "name"), LINEAR_IN_G)
def test_scaling_the_score_scales_the_map(method, name):
    toy, x = shared(name), images()
    one = explain(toy.module, method, x, toy.layer, target=lambda scores: scores[:, 1])
    three = explain(toy.module, method, x, toy.layer, target=lambda scores: 3 * scores[:, 1])
    same(three.raw, 3 * one.raw)
    same(three.maps, one.maps, 1e-4)


@pytest.mark.parametrize("method", [name for name in EXACT if name != "groupcam"])  # groups are in their order
def test_the_order_of_channels_does_not_matter(method):
    toy, x = shared("linear"), images()
    shuffled = copy.deepcopy(toy.module)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    conv, norm, fc = shuffled.features[2], shuffled.features[3], shuffled.tail[2]
    conv.weight.data = conv.weight.data[order]
    for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        value.data = value.data[order]
    fc.weight.data = fc.weight.data[:, order]
    same(explain(shuffled, method, x).raw, explain(toy.module, method, x).raw)


@calls
def test_target_forms_agree(method, name):
    module, x = shared(name).module, images()
    predicted = module(x).argmax(1)
    top = module(x).topk(2).indices
    none = explain(module, method, x, target=None)
    assert none.target.tolist() == predicted.tolist()
    same(explain(module, method, x, target=predicted).raw, none.raw)
    ones = explain(module, method, x, target=torch.tensor([1, 1]))
    same(ones.raw, explain(module, method, x, target=1).raw)
    several = explain(module, method, x, target=top)
    same(explain(module, method, x, target=TopK(2)).raw, several.raw)
    assert several.maps.shape == (2, 2, *SIZE)
    assert several.target.tolist() == top.tolist()
    if method != "randomcam":  # it draws anew for each class
        for t in range(2):
            same(explain(module, method, x, target=top[:, t]).raw, several.raw[:, t])


@calls
def test_all_classes_or_a_refusal(method, name):
    """Where the gradient or the contribution of each class costs a pass of its own, "all" is refused."""
    module, x = shared(name).module, images()
    if method in ALONE or (name == "deep" and method in ONE_PASS_A_CLASS):
        with pytest.raises(ValueError, match="TopK"):
            explain(module, method, x, target="all")
        return
    everything = explain(module, method, x, target="all")
    assert everything.maps.shape == (2, CLASSES, *SIZE)
    if method != "randomcam":
        same(explain(module, method, x, target=3).raw, everything.raw[:, 3])


@calls
def test_functions_as_targets(method, name):
    """A function of the scores, and one function an image, say the same as the class, where a method takes them."""
    module, x = shared(name).module, images()
    wanted = explain(module, method, x, target=torch.tensor([2, 1]))
    functions = [lambda scores: scores[:, 2], lambda scores: scores[:, 1]]
    if method in {"cam", "finercam"}:  # a row of the classifier, or other classes, are all they have
        with pytest.raises(ValueError, match=r"cam .*needs classes|cam needs classes"):
            explain(module, method, x, target=functions)
        return
    if method in PROBABILITY:  # a function has none
        wanted = explain(module, method, x, target=torch.tensor([2, 1]), score="logit")
    exp = explain(module, method, x, target=functions)
    same(exp.raw, wanted.raw)
    assert exp.target is None
    same(explain(module, method, x, target=functions[0]).raw[0], wanted.raw[0])


@calls
def test_dead_activations_give_zero_maps(method, name):
    module, x = TOYS[name]().module, images()
    module.features[3].weight.data.zero_()
    module.features[3].bias.data.fill_(-1.0)
    exp = explain(module, method, x)
    assert exp.raw.isfinite().all()
    if method == "rise":  # what is left where all scores are equal: the sum of the masks
        same(exp.raw[0], exp.raw[1])
        return
    if (method, name) == ("fullgrad", "deep"):  # the biases of the layers behind are alive
        same(exp.raw[0], exp.raw[1])
        assert torch.equal(exp.attributions, torch.zeros(2, 3, *SIZE))
        return
    assert torch.equal(exp.maps, torch.zeros(2, *SIZE))


@calls
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_constant_image_never_gives_nan(method, name, value):
    exp = explain(shared(name).module, method, torch.full((2, 3, *SIZE), value))
    assert exp.raw.isfinite().all()
    assert exp.maps.isfinite().all()
    assert exp.maps.min() >= 0
    assert exp.maps.max() <= 1


def state(module: nn.Module) -> list:
    """All that a call may not change, but for the values of the tensors."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [
        [(name, id(m), m.training, sorted(vars(m)), [len(getattr(m, k)) for k in kinds]) for name, m in
         module.named_modules()],
        [(name, id(p), p.requires_grad, id(p.grad)) for name, p in module.named_parameters()],
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
    ]  # fmt: skip


@contextlib.contextmanager
def unchanged(module: nn.Module):
    """The model, its gradients and the global generator are afterwards as they were, to the bit."""
    module.tail.train()
    for p in list(module.parameters())[1:]:
        p.grad = torch.full_like(p, 0.5)
    list(module.parameters())[2].requires_grad_(False)
    before, tensors = state(module), {k: v.clone() for k, v in module.state_dict().items()}
    yield
    assert state(module) == before
    for name, value in module.state_dict().items():
        assert torch.equal(value, tensors[name]), name
    assert all((p.grad == 0.5).all() for p in list(module.parameters())[1:])


@calls
def test_the_model_is_as_before(method, name):
    module, x = TOYS[name]().module, images()
    kept = x.clone()
    with unchanged(module):
        explain(module, method, x)
    assert torch.equal(x, kept)


@calls
def test_the_model_is_as_before_after_an_exception(method, name):
    module, x = TOYS[name]().module, images()

    def broken(scores: Tensor) -> Tensor:
        raise ArithmeticError("broken target")

    if method not in BLIND:
        with unchanged(module), pytest.raises((ArithmeticError, ValueError)):
            explain(module, method, x, target=broken)
    with unchanged(module), pytest.raises(ValueError, match="class"):
        explain(module, method, x, target=CLASSES)


@calls
@pytest.mark.parametrize("mode", ["no_grad", "inference_mode", "frozen", "leaf"])
def test_gradients_off_or_on_make_no_difference(method, name, mode):
    module, x = TOYS[name]().module, images()
    wanted = explain(module, method, x)
    if mode == "frozen":
        module.requires_grad_(False)
    context = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}.get(mode, contextlib.nullcontext)
    with context():
        exp = explain(module, method, x.requires_grad_() if mode == "leaf" else x)
    same(exp.raw, wanted.raw, 1e-6)
    assert not exp.maps.requires_grad
    assert x.grad is None


@pytest.mark.parametrize(("method", "name"), [*CALLS, *((m, "residual") for m in METHODS if m != "cam")])
@pytest.mark.parametrize("half", ["autocast", "bfloat16", "float16"])
def test_sixteen_bits(method, name, half):
    """Maps stay float32 in [0, 1] and near those of float32; where the tail has kinks a cell may jump."""
    toy, x = TOYS[name](), images()
    wanted = explain(toy.module, method, x, toy.layer, target=1).maps
    if half == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            exp = explain(toy.module, method, x, toy.layer, target=1)
    else:
        dtype = getattr(torch, half)
        exp = explain(toy.module.to(dtype), method, x.to(dtype), toy.layer, target=1)
    assert exp.maps.dtype == exp.raw.dtype == torch.float32
    assert exp.maps.min() >= 0
    assert exp.maps.max() <= 1
    if method == "aise":  # values a rounding apart make its search look elsewhere
        return
    # Each layer's extremes scale its whole part of FullGrad; FGVis shuts its gates at values a rounding apart.
    assert (exp.maps - wanted).abs().mean() < (0.04 if method == "fullgrad" else 0.03)
    assert name != "linear" or method == "fgvis" or (exp.maps - wanted).abs().max() < 0.125
