"""pytorch-grad-cam and torchcam as third witnesses of components, differences of classes, curvature, attention."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from fastcam import CAM
from tests import formulas_further

for package in ("pytorch_grad_cam", "torchcam", "captum", "torchvision", "timm"):
    pytest.importorskip(package)
import pytorch_grad_cam as pgc  # noqa: E402
import torchcam.methods as tc  # noqa: E402
from pytorch_grad_cam.utils import model_targets  # noqa: E402

from tests import peers  # noqa: E402 - it imports the packages asked for above
from tests.networks import Toy  # noqa: E402
from tests.networks_attention import torchvision_vit  # noqa: E402
from tests.peers import TARGET, grad_cam, inputs, toy_of  # noqa: E402
from tests.test_peers import AGREE, DIFFER, distance  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]
NETWORKS = ("linear", "signed", "deep", "vgg", "residual_branch", "resnet")


def ours(method: str, toy: Toy, x: Tensor, **options) -> Tensor:
    return CAM(toy.module, method, toy.layer, **options).explain(x, target=torch.tensor(TARGET)).raw.double()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    ("method", "options", "peer"),
    [
        ("fem", {"variant": "fraction"}, "FEM"),
        ("kpcacam", {}, "KPCA_CAM"),
        ("segeigencam", {}, "SegEigenCAM"),
    ],
)
def test_components_are_pytorch_grad_cams(method: str, options: dict, peer: str, name: str) -> None:
    toy, x = toy_of(name), inputs(name)
    mine, theirs = ours(method, toy, x, **options), grad_cam(peer)(toy, x)
    if method == "kpcacam":  # the sign that scikit-learn gives
        theirs = theirs * torch.sign((mine * theirs).sum((1, 2), keepdim=True))
    assert distance(mine, theirs) < AGREE


def of_each(toy: Toy, x: Tensor, peer, **options) -> Tensor:
    """A peer's signed maps, image by image, of the target of each."""
    maps = []
    for image, c in zip(x.double(), TARGET, strict=True):
        module, layer = peers.double(toy)
        cam, raw = peer(module, [layer]), []
        inner = getattr(cam, "base_cam", cam)
        image_of = inner.get_cam_image
        inner.get_cam_image = lambda *args, of=image_of, to=raw, **kw: to.append(of(*args, **kw)) or to[-1]
        given = {k: v(c) if callable(v) else v for k, v in options.items()}
        cam(image[None], **given)
        maps.append(torch.as_tensor(raw[0]).double()[0])
    return torch.stack(maps)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("score", "target"), [("rest", "ReST"), ("logit", "Target"), ("probability", "SoftmaxTarget")])
def test_shapleycam_is_pytorch_grad_cams(score: str, target: str, name: str) -> None:
    toy, x = toy_of(name), inputs(name)
    make = getattr(model_targets, f"ClassifierOutput{target}")
    theirs = of_each(toy, x, pgc.ShapleyCAM, targets=lambda c: [make(c)])
    assert distance(ours("shapleycam", toy, x, score=score), theirs) < 5 * AGREE


@pytest.mark.parametrize("name", NETWORKS)
def test_official_finercam_is_pytorch_grad_cams(name: str) -> None:
    toy, x = toy_of(name), inputs(name)
    theirs = of_each(toy, x, pgc.FinerCAM, targets=None, target_idx=lambda c: c)
    mine = ours("finercam", toy, x, variant="official")
    assert distance(mine, theirs) < AGREE
    assert distance(ours("finercam", toy, x), theirs) > DIFFER


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("base", "peer"), [("gradcam", "GradCAM"), ("layercam", "LayerCAM")])
@pytest.mark.parametrize("options", [{}, {"gamma": 0.3, "num_references": 2}], ids=str)
def test_finercam_is_torchcams(options: dict, base: str, peer: str, name: str) -> None:
    toy, x = toy_of(name), inputs(name)
    module, _ = peers.double(toy)
    with tc.FinerCAM(
        module, toy.layer, input_shape=tuple(x.shape[1:]), base_method=getattr(tc, peer), **options
    ) as extractor:
        out = module(x.double().requires_grad_())
        theirs = extractor(class_idx=TARGET, scores=out, normalized=False)[0].detach()
    given = {"alpha": options.get("gamma"), "references": options.get("num_references", 3)}
    assert distance(ours("finercam", toy, x, base=base, **given).relu(), theirs) < AGREE


@pytest.mark.parametrize("name", ["deep", "vgg"])
def test_fem_differs_from_pytorch_grad_cam(name: str) -> None:
    """It weighs the activations by how many of their cells are peaks; the paper weighs the peaks by the mean."""
    toy, x = toy_of(name), inputs(name)
    theirs = grad_cam("FEM")(toy, x)
    assert distance(ours("fem", toy, x), theirs) > DIFFER
    assert distance(peers.each(formulas_further.fem, toy, x, variant="fraction"), theirs) < 1e-6


@pytest.mark.parametrize("layers", [None, [1, 2]], ids=str)
def test_legrad_is_torchcams(layers: list[int] | None) -> None:
    """It knows the head of torchvision's transformer, and asks it of the mean token of each layer."""
    net = torchvision_vit()
    x, module = net.images(), copy.deepcopy(net.module).double()
    blocks = list(module.get_submodule("encoder.layers").children())
    with tc.LeGrad(module, blocks if layers is None else [blocks[i] for i in layers]) as extractor:
        module(x.double())
        theirs = extractor(class_idx=TARGET, normalized=False)[0].detach()
    mine = CAM(net.module, "legrad", layers=layers).explain(x, target=torch.tensor(TARGET)).raw.double()
    assert distance(mine, theirs) < AGREE
    own = CAM(net.module, "legrad", layers=layers, score="own").explain(x, target=torch.tensor(TARGET)).raw.double()
    assert distance(own, theirs) > DIFFER
