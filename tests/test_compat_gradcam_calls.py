"""What users of pytorch-grad-cam asked for, on its own calls: tensors, targets, inputs, outputs, precision, memory."""

from __future__ import annotations

import contextlib
import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastcam.compat.pytorch_grad_cam import (
    AblationCAM,
    AblationLayer,
    EigenCAM,
    FinerCAM,
    FullGrad,
    GradCAM,
    GradCAMPlusPlus,
    LayerCAM,
    RefineCAM,
    ScoreCAM,
)
from fastcam.compat.pytorch_grad_cam.utils.model_targets import (
    ClassifierOutputSoftmaxTarget,
    ClassifierOutputTarget,
    RawScoresOutputTarget,
)
from tests.networks import CLASSES, images, shared

pytestmark = pytest.mark.usefixtures("one_thread")
ONE, TWO = ClassifierOutputTarget(1), ClassifierOutputTarget(2)


class Around(nn.Module):
    """The network "deep" with other inputs or another output."""

    def __init__(self, output: Callable[[Tensor], Any] = lambda y: y) -> None:
        super().__init__()
        self.inner = shared("deep").module
        self.output = output

    def forward(self, x: Tensor, gain: Tensor | None = None, *, scale: float = 1.0) -> Any:
        return self.output(self.inner(x) * scale * (1 if gain is None else gain[:, None]))


@pytest.fixture
def model() -> nn.Module:
    return shared("deep").module


def layers(model: nn.Module) -> list[nn.Module]:
    return [module for name, module in model.named_modules() if name.split(".")[-1] == "features"]


def same(a: Any, b: Any, limit: float = 1e-5) -> None:
    assert a.shape == b.shape
    assert a.max() > 0.5
    assert np.abs(np.asarray(a) - np.asarray(b)).max() < limit


def test_tensors_out(model: nn.Module) -> None:
    array = GradCAM(model, layers(model))(images(), [ONE, TWO])
    tensor = GradCAM(model, layers(model), as_tensor=True)(images(), [ONE, TWO])
    assert isinstance(array, np.ndarray)
    assert isinstance(tensor, Tensor)
    same(tensor, array)
    assert isinstance(GradCAM(model, layers(model))(images(), aug_smooth=True, as_tensor=True), Tensor)
    for wrapper in (FinerCAM, RefineCAM):
        assert isinstance(wrapper(model, layers(model))(images(), as_tensor=True), Tensor)


@pytest.mark.parametrize("method", [GradCAM, ScoreCAM, AblationCAM])
def test_several_targets_an_image(method: Any, model: nn.Module) -> None:
    cam = method(model, layers(model))
    soft = ClassifierOutputSoftmaxTarget(0)
    for first, second in (([ONE, TWO], [TWO, ONE]), ([ONE, soft], [soft, TWO])):
        maps = cam(images(), [first, second])
        assert maps.shape == (2, 2, 20, 28)
        for t in range(2):
            same(maps[:, t], cam(images(), [first[t], second[t]]))
    smooth = cam(images(), [[ONE, TWO], [TWO, ONE]], aug_smooth=True)
    same(smooth[:, 1], cam(images(), [TWO, ONE], aug_smooth=True))


def test_one_target_for_all_and_plain_classes(model: nn.Module) -> None:
    cam = GradCAM(model, layers(model))
    want = cam(images(), [ONE, ONE])
    for targets in ([ONE], ONE, 1, [1, 1], torch.tensor([1, 1]), np.array([1, 1]), [lambda y: y[1]]):
        same(cam(images(), targets), want)


@pytest.mark.parametrize(
    ("targets", "error", "said"),
    [
        ([ONE, TWO], ValueError, "2 targets for a batch of 4"),
        ([ONE] * 5, ValueError, "5 targets for a batch of 4"),
        ([], ValueError, "targets is empty"),
        ([[ONE, TWO], [ONE], [ONE], [ONE]], ValueError, "the same number"),
        (["cat"] * 4, TypeError, "got str"),
        ([RawScoresOutputTarget()] * 4, ValueError, "must give one score"),
        ([ClassifierOutputTarget(CLASSES)] * 4, ValueError, "out of range"),
    ],
    ids=["short", "long", "none", "ragged", "no target", "many scores", "no class"],
)
def test_targets_that_do_not_fit(targets: Any, error: type[Exception], said: str, model: nn.Module) -> None:
    with pytest.raises(error, match=said):
        GradCAM(model, layers(model))(images(4), targets)


def test_methods_without_targets_take_whatever_is_given(model: nn.Module) -> None:
    cam = EigenCAM(model, layers(model))
    same(cam(images(), [ONE, TWO, ONE]), cam(images(), None))
    assert cam(images(), [[ONE, TWO], [ONE, TWO]]).shape == (2, 2, 20, 28)


@pytest.mark.parametrize("method", [GradCAM, ScoreCAM, FullGrad])
def test_several_inputs(method: Any, model: nn.Module) -> None:
    gain = torch.tensor([1.0, 2.0])
    around, targets = Around(), [ONE, TWO]
    own = layers(around) if method is not FullGrad else []
    cam, x = method(around, own), images()
    for given, more in (
        ((x, gain), {}),
        ({"gain": gain, "x": x}, {}),
        (x, {"model_args": (gain,), "model_kwargs": {"scale": 1.0}}),
    ):
        same(cam(given, targets, **more), cam(x, targets, model_args=(gain,)))
    same(cam({"gain": gain, "x": x}, targets, aug_smooth=True), cam((x, gain), targets, aug_smooth=True))
    with pytest.raises(TypeError, match="must be a tensor of floats"):
        cam([gain], targets)


@pytest.mark.parametrize("method", [GradCAM, ScoreCAM, AblationCAM, EigenCAM])
def test_outputs_of_any_kind(method: Any, model: nn.Module) -> None:
    want, x = method(model, layers(model))(images(), [ONE, TWO]), images()
    for output in (lambda y: (y, 2 * y), lambda y: {"logits": y}, lambda y: {"out": y}):
        around = Around(output)
        same(method(around, layers(around))(x, [lambda y: y[1], lambda y: y[2]]), want)
    around = Around(lambda y: [{"scores": row} for row in y])
    with pytest.warns() if method is AblationCAM else contextlib.nullcontext():
        found = method(around, layers(around))(x, [lambda y: y["scores"][1], lambda y: y["scores"][2]])
    same(found, want)
    around = Around(lambda y: (2 * y, {"kept": y}))
    same(method(around, layers(around), output=lambda y: y[1]["kept"])(x, [ONE, TWO]), want)


class Own(GradCAM):
    """By way of arrays."""

    def get_cam_weights(self, *args: Any, **kwargs: Any) -> np.ndarray:
        return super().get_cam_weights(*args, **kwargs)


@pytest.mark.parametrize("method", [GradCAM, Own, ScoreCAM, EigenCAM])
def test_without_gradients_around_it(method: Any, model: nn.Module) -> None:
    want = method(model, layers(model))(images(), [ONE, TWO])
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            same(method(model, layers(model))(images().clone(), [ONE, TWO]), want)
    frozen = copy.deepcopy(model).requires_grad_(False)
    same(method(frozen, layers(frozen))(images(), [ONE, TWO]), want)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("method", [GradCAM, GradCAMPlusPlus, LayerCAM, EigenCAM, ScoreCAM, AblationCAM, Own])
def test_half_precision(method: Any, half: torch.dtype, model: nn.Module) -> None:
    small = copy.deepcopy(model).to(half)
    found = method(small, layers(small))(images().to(half), [ONE, TWO])
    assert found.dtype == np.float32
    limit = 0.02 if half == torch.float16 else 0.2  # 8 bits of a backward through the tail; measured 0.005 and 0.1
    same(found, method(model, layers(model))(images(), [ONE, TWO]), limit)


def test_memory_is_bounded_by_rows(model: nn.Module) -> None:
    rows: list[int] = []
    around = Around(lambda y: rows.append(len(y)) or y)
    cam = ScoreCAM(around, layers(around))
    cam.batch_size = 3
    same(cam(images(), [ONE, TWO]), ScoreCAM(model, layers(model))(images(), [ONE, TWO]))
    assert max(rows[1:]) <= 3
    same(
        AblationCAM(model, layers(model), max_memory=1 << 16)(images(), [ONE, TWO]),
        AblationCAM(model, layers(model))(images(), [ONE, TWO]),
    )


@pytest.mark.parametrize("method", [GradCAM, Own, ScoreCAM, FullGrad])
def test_the_model_is_left_as_it_was(method: Any) -> None:
    model = copy.deepcopy(shared("deep").module).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    marks = [torch.full_like(p, 7.0) for p in model.parameters()]
    for parameter, mark in zip(model.parameters(), marks, strict=True):
        parameter.grad = mark

    def broken(output: Tensor) -> Tensor:
        raise RuntimeError("no score")

    cam = method(model, layers(model) if method is not FullGrad else [])
    cam(images(), [ONE, TWO])
    with pytest.raises(RuntimeError, match="no score"):
        cam(images(), [broken, broken])
    assert all(module.training for module in model.modules())
    assert all(p.grad is mark and bool((mark == 7).all()) for p, mark in zip(model.parameters(), marks, strict=True))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_failing_ablation_layer_leaves_the_model_alone(model: nn.Module) -> None:
    class Broken(AblationLayer):
        def forward(self, x: Any) -> Any:
            raise RuntimeError("cannot")

    before = list(model.modules())
    with pytest.raises(RuntimeError, match="cannot"):
        AblationCAM(model, layers(model), ablation_layer=Broken())(images(), [ONE, TWO])
    assert list(model.modules()) == before
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("method", [GradCAM, Own])
def test_nothing_is_kept_of_calls(method: Any, model: nn.Module) -> None:
    gc.collect()
    gc.disable()
    try:
        cam, seen = method(model, layers(model)), []
        for _ in range(3):
            x = images()
            seen.append(weakref.ref(x))
            cam(x, [ONE, TWO])
            del x
        assert sum(one() is not None for one in seen) <= 1
        gone = weakref.ref(cam)
        del cam
        assert gone() is None, "objects hold each other"
        assert all(one() is None for one in seen)
    finally:
        gc.enable()


def test_objects_are_pickled_and_copied(model: nn.Module) -> None:
    cam = GradCAM(model, layers(model))
    want = cam(images(), [ONE, TWO])
    same(copy.deepcopy(cam)(images(), [ONE, TWO]), want)
    same(pickle.loads(pickle.dumps(cam))(images(), [ONE, TWO]), want)


def test_what_cannot_be_explained(model: nn.Module) -> None:
    with pytest.raises(TypeError, match=r"no argument 'use_cuda'; move the model instead: model.to\('cuda'\)"):
        GradCAM(model, layers(model), use_cuda=True)
    with pytest.raises(TypeError, match="no argument 'layer'"):
        ScoreCAM(model, layers(model), layer="x")
    with pytest.raises(TypeError, match="target_layers must be a list"):
        GradCAM(model, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="layer is an empty list"):
        GradCAM(model, [])(images())
    around = Around()
    around.unused = nn.Conv2d(3, 3, 1)
    for method in (GradCAM, Own):
        with pytest.raises(ValueError, match="was not reached"):
            method(around, [around.unused])(images(), [ONE, TWO])


def test_maps_of_one_cell_are_zero() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 8), nn.ReLU(), nn.Flatten(), nn.Linear(4, 3)).eval()
    for method in (GradCAM, ScoreCAM, EigenCAM, AblationCAM):
        maps = method(net, [net[1]])(torch.rand(2, 3, 8, 8))
        assert maps.shape == (2, 8, 8)
        assert not maps.any()
