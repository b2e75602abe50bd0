"""Attention of transformers, caught in the forward, and its maps against their loops; errors and cost."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastcam import CAM, TopK
from fastcam.together import explain_together
from tests import formulas, formulas_attention

pytest.importorskip("timm")
pytest.importorskip("torchvision")
from tests.networks import CLASSES
from tests.networks_attention import BUILDERS, Transformer
from tests.test_properties import state

pytestmark = pytest.mark.usefixtures("one_thread")
NEAR = 2e-5  # of the largest value: float32 against float64
METHODS = ("legrad", "rollout", "attentionrelevance")
SCORED = ("legrad", "attentionrelevance")
TARGET = [1, 2]


@functools.cache
def shared(name: str) -> Transformer:
    return BUILDERS[name]()


def expected(method: str, net: Transformer, targets: list[Any], **options: Any) -> Tensor:
    formula = getattr(formulas_attention, method)
    x = net.images(len(targets)).double()
    maps = [formula(net.steps, image, c, **options) for image, c in zip(x, targets, strict=True)]
    return torch.tensor(maps, dtype=torch.float64)


def check(method: str, name: str, **options: Any) -> Tensor:
    net = shared(name)
    exp = CAM(net.module, method, **options).explain(net.images(), target=torch.tensor(TARGET))
    raw = expected(method, net, TARGET, **options)
    for got, want in zip(exp.raw.double(), raw, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=NEAR * float(want.abs().max()))
    shown = formulas.finish(raw, net.size, "before" if method == "legrad" else "never")
    torch.testing.assert_close(exp.maps.double(), shown, rtol=0, atol=1e-3)
    output = net.module(net.images())
    logits = output["logits"] if isinstance(output, dict) else output
    torch.testing.assert_close(exp.logits, logits, rtol=1e-4, atol=1e-5)
    return raw


@pytest.mark.parametrize("name", list(BUILDERS))
@pytest.mark.parametrize("method", METHODS)
def test_formula(method: str, name: str) -> None:
    check(method, name)


OPTIONS = [
    ("legrad", {"score": "own"}),
    ("legrad", {"score": "model"}),
    ("legrad", {"layers": [-1]}),
    ("legrad", {"layers": [0, 1], "score": "model"}),
    ("rollout", {"heads": "max"}),
    ("rollout", {"heads": "min"}),
    ("rollout", {"discard": 0.9}),
    ("rollout", {"discard": 0.3, "heads": "max"}),
]


@pytest.mark.parametrize("name", ["torchvision", "timm_registers", "hugging"])
@pytest.mark.parametrize(("method", "options"), OPTIONS, ids=str)
def test_options(method: str, options: dict, name: str) -> None:
    raw, usual = check(method, name, **options), expected(method, shared(name), TARGET)
    assert (raw / raw.abs().max() - usual / usual.abs().max()).abs().max() > 1e-3


def test_one_layer_by_number() -> None:
    net = shared("torchvision")
    one, same = (CAM(net.module, "legrad", layers=layers).explain(net.images()).raw for layers in (-1, [2]))
    assert torch.equal(one, same)


class Post(nn.Module):
    """PyTorch's own encoder layers, whose fast path would hand out nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


@pytest.mark.parametrize("method", METHODS)
def test_the_fast_path_is_off_only_meanwhile(method: str) -> None:
    torch.manual_seed(1)
    net, x = Post().eval().requires_grad_(False), torch.rand(2, 3, 20, 28)
    exp = CAM(net, method).explain(x, target=1)
    assert exp.raw.shape == (2, 5, 7)
    torch.testing.assert_close(exp.logits, net(x), rtol=1e-4, atol=1e-5)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("name", ["torchvision", "hugging"])
@pytest.mark.parametrize("method", METHODS)
def test_targets_and_batches(method: str, name: str) -> None:
    net = shared(name)
    x, cam = net.images(3), CAM(net.module, method)
    both = cam.explain(x, target=torch.tensor([[1, 2], [0, 3], [4, 1]]))
    assert both.maps.shape == (3, 2, *net.size)
    for t, classes in enumerate(([1, 0, 4], [2, 3, 1])):
        near(cam.explain(x, target=torch.tensor(classes)).raw, both.raw[:, t])
        near(cam.explain(x, target=[lambda s, c=c: s[:, c] for c in classes]).raw, both.raw[:, t])
    for b in range(3):
        near(cam.explain(x[b : b + 1], target=both.target[b : b + 1]).raw[0], both.raw[b])
    top = cam.explain(x, target=TopK(2))
    near(cam.explain(x, target=top.target).raw, top.raw)


def near(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * float(other.abs().max()))


@pytest.mark.parametrize("method", METHODS)
def test_all_classes(method: str) -> None:
    net = shared("vit")
    cam = CAM(net.module, method)
    if method in SCORED:
        with pytest.raises(ValueError, match="TopK"):
            cam(net.images(), target="all")
        return
    every = cam.explain(net.images(), target="all").raw
    assert every.shape[1] == CLASSES
    assert torch.equal(every, every[:, :1].expand_as(every))


@pytest.mark.parametrize("options", [{}, {"score": "own"}, {"score": "model"}], ids=str)
@pytest.mark.parametrize("mode", ["frozen", "no_grad", "inference_mode", "leaf", "bfloat16", "autocast"])
def test_gradients_off_or_on_make_no_difference(mode: str, options: dict) -> None:
    net = BUILDERS["timm_registers"]()
    x = net.images()
    wanted = CAM(net.module, "legrad", **options)(x, target=1)
    near_by = 1e-4
    if mode == "frozen":
        net.module.requires_grad_(False)
    if mode == "bfloat16":
        net.module.to(torch.bfloat16)
        x, near_by = x.to(torch.bfloat16), 0.15
    if mode == "autocast":
        near_by = 0.15
    contexts = {"no_grad": torch.no_grad(), "inference_mode": torch.inference_mode()}
    contexts["autocast"] = torch.autocast("cpu", torch.bfloat16)
    with contexts.get(mode, torch.enable_grad()):
        x = x.clone()
        maps = CAM(net.module, "legrad", **options)(x.requires_grad_() if mode == "leaf" else x, target=1)
    assert maps.dtype == torch.float32
    assert not maps.requires_grad
    assert x.grad is None
    assert (maps - wanted).abs().max() < near_by


@pytest.mark.parametrize("options", [{}, {"score": "own"}, {"score": "model"}], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_maps_carry_a_graph_to_the_weights(method: str, options: dict) -> None:
    if options and method != "legrad":
        options = {}
    net = BUILDERS["torchvision"]()
    maps = CAM(net.module, method, **options)(net.images(), target=1, differentiable=True)
    (g,) = torch.autograd.grad(maps.square().sum(), [net.module.get_submodule("conv_proj").weight])
    assert g.isfinite().all()
    assert g.abs().max() > 0
    plain = CAM(net.module, method, **options)(net.images(), target=1)
    torch.testing.assert_close(maps.detach(), plain, rtol=0, atol=1e-4)


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_as_before(method: str, broken: bool) -> None:
    net = BUILDERS["torchvision"]()
    x = net.images()
    net.module.train()
    for p in net.module.parameters():
        p.grad = torch.full_like(p, 0.5)
    before, tensors = state(net.module), {k: v.clone() for k, v in net.module.state_dict().items()}

    def fail(scores: Tensor) -> Tensor:
        raise ArithmeticError("broken target")

    if broken and method in SCORED:
        with pytest.raises(ArithmeticError):
            CAM(net.module, method)(x, target=fail)
    elif broken:
        with pytest.raises(ValueError, match="out of range"):
            CAM(net.module, method)(x, target=CLASSES)
    else:
        CAM(net.module, method)(x)
    assert state(net.module) == before
    assert all(torch.equal(v, tensors[k]) for k, v in net.module.state_dict().items())
    assert all((p.grad == 0.5).all() for p in net.module.parameters())


@pytest.mark.parametrize(
    ("method", "options", "cost"),
    [
        ("rollout", {}, (2, 0)),
        ("legrad", {}, (2, 4)),
        ("legrad", {"score": "model"}, (2, 4)),
        ("attentionrelevance", {}, (2, 4)),
    ],
)
def test_the_cost_is_a_forward_and_a_backward_a_class(method: str, options: dict, cost: tuple) -> None:
    module = copy.deepcopy(shared("torchvision").module)
    cam, x = CAM(module, method, **options), shared("torchvision").images()
    cam(x)  # finds the blocks
    found, seen = None, []
    module.conv_proj.register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    found = cam.explain(x, target=TopK(2)).cost
    assert (found.forwards, found.backwards) == cost
    assert sum(seen) == 2


def test_together_as_alone() -> None:
    net = shared("timm_registers")
    cams = [CAM(net.module, method) for method in (*METHODS, "saliency", "gradcam")]
    for cam, one in zip(cams, explain_together(cams, net.images(), 1), strict=True):
        near(one.raw, cam.explain(net.images(), target=1).raw)
