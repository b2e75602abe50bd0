"""LFI-CAM: the network against its loops, its map, its training, its weights on disk, and what others say of it."""

from __future__ import annotations

import copy
import importlib.util
import io
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fastcam import CAM, LFI, TopK
from fastcam.methods.learned import attention, seen
from fastcam.together import explain_together
from tests import formulas, formulas_lfi
from tests.networks import CLASSES, SIZE, TOYS, images, settle, shared

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ("linear", "signed", "norm_relu_pooled", "conv_classifier", "mlp_head", "vgg", "deep", "residual", "swin")


def wrapped(name: str, train: bool = False) -> LFI:
    toy = TOYS[name]()
    model = LFI(toy.module, toy.layer, example=images(1))
    settle(model.importance, 31)
    return model.train(train)


def expected(name: str, model: LFI) -> tuple[Tensor, Tensor]:
    """Raw maps (2, h, w), and logits."""
    net, x = shared(name).halves, images().double()
    state = {key: value.double() for key, value in model.importance.state_dict().items()}
    with torch.no_grad():
        a = net.head(x)
        e = [formulas_lfi.branch(state, formulas_lfi.read(one, image)) for one, image in zip(a, x, strict=True)]
        maps = [formulas_lfi.raw(one, branch) for one, branch in zip(a, e, strict=True)]
        raised = [one * (1 + formulas_lfi.attention(one, branch)) for one, branch in zip(a, e, strict=True)]
        return torch.tensor(maps, dtype=torch.float64), net.tail(torch.stack(raised), x)


@pytest.mark.parametrize("name", NAMES)
def test_against_the_loops(name: str) -> None:
    model = wrapped(name)
    raw, logits = expected(name, model)
    exp = CAM(model, "lficam").explain(images(), target=torch.tensor([1, 2]))
    torch.testing.assert_close(exp.raw.double(), raw, rtol=0, atol=1e-5 * float(raw.abs().max()))
    torch.testing.assert_close(exp.maps.double(), formulas.finish(raw, SIZE), rtol=0, atol=1e-3)
    torch.testing.assert_close(exp.logits.double(), logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(images()).double(), logits, rtol=1e-4, atol=1e-5)
    assert exp.layer == [f"backbone.{shared(name).layer}"]
    assert exp.cost.forwards == 2


def test_the_weights_matter() -> None:
    """Neither the map nor the logits are those of equal weights, or of the backbone alone, so the loops can fail."""
    model = wrapped("linear")
    raw, logits = expected("linear", model)
    flat = shared("linear").halves.head(images().double()).mean(1)
    assert (raw / raw.amax((1, 2), True) - flat / flat.amax((1, 2), True)).abs().max() > 0.05
    assert (logits - shared("linear").module(images())).abs().max() > 0.05


def test_constant_channels_and_zeros() -> None:
    a = torch.stack([torch.full((3, 4), 2.0), torch.zeros(3, 4), torch.arange(12.0).view(3, 4) - 4])
    x = torch.rand(3, 9, 8, generator=torch.Generator().manual_seed(1))
    got = seen(a[None], x[None])[0].double()
    torch.testing.assert_close(got, formulas_lfi.read(a.double(), x.double()), rtol=0, atol=1e-6)
    assert (got[1] == 0).all()
    assert got[2, 1, 0] == 0
    e = torch.zeros(1, 3, 3, 4)
    for one in (a[:1], a[1:2], -a[2:].relu()):
        m = attention(one[None], e[:, :1])[0, 0].double()
        torch.testing.assert_close(m, formulas_lfi.attention(one.double(), e[0, :1].double()))


def test_targets_callables_and_batches() -> None:
    model = wrapped("deep")
    cam = CAM(model, "lficam")
    alone = cam(images())
    assert torch.equal(cam(images(), target=3), alone)
    assert torch.equal(cam(images(), target=lambda logits: logits[:, 0]), alone)
    for target, count in ((TopK(2), 2), ("all", CLASSES), (torch.tensor([[0, 1, 2], [2, 3, 4]]), 3)):
        torch.testing.assert_close(cam(images(), target=target), alone[:, None].expand(-1, count, -1, -1))
    for b in range(2):
        torch.testing.assert_close(cam(images()[b : b + 1])[0], alone[b], rtol=0, atol=1e-4)
    with torch.no_grad():
        half = CAM(model, "lficam", precision="bfloat16")(images())
    assert (half - alone).abs().mean() < 0.03


def test_gradients_reach_every_parameter_through_the_map() -> None:
    model = wrapped("deep")
    cam = CAM(model, "lficam")
    maps = cam(images(), differentiable=True)
    maps.square().sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert any(name.startswith("importance.0") for name in reached)
    assert any(name.startswith("backbone.features") for name in reached)
    assert not any(name.startswith("backbone.tail") for name in reached)  # what follows the layer
    torch.testing.assert_close(maps.detach(), cam(images()), rtol=0, atol=1e-5)


def test_other_methods_explain_it_at_its_attention() -> None:
    model = wrapped("linear")
    exp = CAM(model, "gradcam").explain(images(), target=1)
    assert exp.layer == ["attention"]
    assert exp.cost.backwards == 0  # what follows is the backbone's pooling and linear layer
    weight = shared("linear").halves.weight[1] / 35
    raised = {}
    handle = model.attention.register_forward_hook(lambda _m, _i, output: raised.update(a=output.detach()))
    model(images())
    handle.remove()
    want = (raised["a"].double() * weight[:, None, None]).sum(1)
    torch.testing.assert_close(exp.raw.double(), want, rtol=1e-4, atol=1e-5)
    for method in ("scorecam", "ablationcam", "reciprocam", "eigencam"):
        assert CAM(model, method)(images(), target=1).isfinite().all()
    cams = [CAM(model, name) for name in ("lficam", "gradcam", "eigencam")]
    for cam, one in zip(cams, explain_together(cams, images(), 1), strict=True):
        torch.testing.assert_close(one.maps, cam(images(), target=1), rtol=0, atol=1e-4)


def test_the_gradient_methods_behind_a_tail_that_is_cut() -> None:
    model = wrapped("deep")
    assert CAM(model, "gradcam").explain(images(), target=1).layer != ["importance.11"]
    at = CAM(model, "gradcam", "attention").explain(images(), target=1)
    ablated = CAM(model, "ablationcam", "attention").explain(images(), target=1)
    assert at.raw.isfinite().all()
    assert ablated.cost.tails == 2 * 10


@pytest.mark.parametrize("name", ["linear", "swin"])
def test_weights_are_saved_and_loaded(name: str) -> None:
    model, other = wrapped(name), LFI(TOYS[name]().module, TOYS[name]().layer, example=images(1)).eval()
    assert not torch.equal(model(images()), other(images()))
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    assert torch.equal(model(images()), other(images()))
    assert torch.equal(CAM(model, "lficam")(images()), CAM(copy.deepcopy(other), "lficam")(images()))


def test_it_is_exported_and_compiled() -> None:
    model, x = wrapped("deep"), images(3)
    batch = {0: torch.export.Dim.DYNAMIC}
    with torch.no_grad():
        program = torch.export.export(model, (images(2),), dynamic_shapes=(batch,), strict=False)
        torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-5)
        compiled = torch.compile(model, backend="eager")
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(CAM(compiled, "lficam")(x), CAM(model, "lficam")(x), rtol=0, atol=1e-4)


def test_a_new_last_layer_in_a_copy() -> None:
    backbone = TOYS["linear"]().module.train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    model = LFI(backbone, classes=3, example=images(1))
    assert model(images()).shape == (2, 3)
    assert backbone(images()).shape == (2, CLASSES)
    assert backbone.training
    backbone.load_state_dict(before)
    assert not any(m._forward_hooks for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())
    pooled = LFI(TOYS["conv_classifier"]().module, "features", classes=2, example=images(1))
    assert pooled(images()).shape == (2, 2)
    kept = LFI(backbone, example=images(1))
    assert kept.backbone is backbone


@pytest.mark.parametrize("family", ["torchvision", "timm"])
def test_backbones_of_both_libraries_learn(family: str) -> None:
    torch.manual_seed(0)
    if family == "timm":
        timm = pytest.importorskip("timm")
        backbone = timm.create_model("test_resnet.r160_in1k", pretrained=False)
    else:
        backbone = pytest.importorskip("torchvision").models.shufflenet_v2_x0_5(weights=None)
    model = LFI(backbone, classes=2, example=torch.zeros(1, 3, 64, 64))
    assert not any(m._forward_hooks for m in model.modules())
    x = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    y = torch.arange(8) % 2
    x[y == 1, :, 16:48, 16:48] += 2
    optimizer, losses = torch.optim.Adam(model.parameters(), 2e-3), []
    for _ in range(6):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in model.importance.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    exp = CAM(model, "lficam").explain(x)
    assert exp.maps.shape == (8, 64, 64)
    assert model.training
    assert exp.raw.flatten(1).std(1).min() > 0


def test_errors() -> None:
    toy = shared("linear")
    with pytest.raises(ValueError, match=r"fastcam\.LFI\(model\)"):
        CAM(toy.module, "lficam")(images())
    with pytest.raises(ValueError, match="at no layer"):
        CAM(wrapped("linear"), "lficam", "attention")
    with pytest.raises(ValueError, match="nearest"):
        LFI(toy.module, "feature")
    with pytest.raises(ValueError, match="one layer"):
        LFI(toy.module, ["features", "tail"])
    with pytest.raises(TypeError, match=r"nn\.Module"):
        LFI(lambda x: x)
    with pytest.raises(ValueError, match="classes must be"):
        LFI(toy.module, classes=0, example=images(1))
    no_linear = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="no linear layer of 4 outputs"):
        LFI(no_linear, classes=2)
    model = LFI(TOYS["linear"]().module, "features")
    with pytest.raises(ValueError, match="no spatial map for images of 4x4"):
        model(torch.zeros(1, 3, 4, 4))
    assert not any(m._forward_hooks for m in model.modules())


def test_the_example_runs(capsys) -> None:
    path = Path(__file__).resolve().parent.parent / "examples" / "lficam.py"
    spec = importlib.util.spec_from_file_location("lficam_example", path)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.main(["--epochs", "1", "--images", "80", "--seeds", "0", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-2:]] == ["LFI-CAM", "Grad-CAM"]
    found = [[float(word) for word in line.split()[1:]] for line in lines[-2:]]
    assert all(0 <= value <= 1 for row in found for value in row)
