"""pytorch-grad-cam, torchcam and captum, each asked for its raw map; and the formulas as they change them.

Peers run in float64 on a copy of the network. A changed formula is ours with one equation replaced:
`test_peers.py` says which and why.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import captum.attr as captum
import pytorch_grad_cam as pgc
import torch
import torchcam.methods as tc
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from tests import formulas, formulas_rescale
from tests.formulas import Halves, combine, evidence, total
from tests.networks import CLASSES, Toy, images, settle, shared

TARGET = [1, 2]
SEED = 5

Peer = Callable[[Toy, Tensor], Tensor]


def resnet() -> Toy:
    """torchvision's ResNet with one block a stage; the layer is in the middle, 128 channels of 8 x 8."""
    block = torchvision.models.resnet.BasicBlock
    module = torchvision.models.ResNet(block, [1, 1, 1, 1], num_classes=CLASSES)
    settle(module, 15)
    double = copy.deepcopy(module).double()
    stages = [double.conv1, double.bn1, double.relu, double.maxpool, double.layer1, double.layer2]
    head = nn.Sequential(*stages)
    tail = nn.Sequential(double.layer3, double.layer4, double.avgpool, nn.Flatten(), double.fc)
    return Toy("resnet", module, "layer2", Halves(head, lambda a, x: tail(a)))


@functools.cache
def toy_of(name: str) -> Toy:
    return resnet() if name == "resnet" else shared(name)


def inputs(name: str) -> Tensor:
    g = torch.Generator().manual_seed(8)
    return torch.randn(2, 3, 64, 64, generator=g) if name == "resnet" else images()


def double(toy: Toy) -> tuple[nn.Module, nn.Module]:
    module = copy.deepcopy(toy.module).double()
    return module, module.get_submodule(toy.layer)


def torchcam(name: str, **options) -> Peer:
    """The map after ReLU (but `CAM`), before min-max."""

    def peer(toy: Toy, x: Tensor) -> Tensor:
        module, _ = double(toy)
        with getattr(tc, name)(module, toy.layer, input_shape=tuple(x.shape[1:]), **options) as extractor:
            out = module(x.double().requires_grad_())
            scores = None if name in {"CAM", "ScoreCAM", "SSCAM", "ISCAM"} else out
            return extractor(class_idx=TARGET, scores=scores, normalized=False)[0].detach()

    return peer


def grad_cam(name: str, finished: bool = False) -> Peer:
    """The signed map at the layer's size, or the finished one."""

    def peer(toy: Toy, x: Tensor) -> Tensor:
        module, layer = double(toy)
        cam = getattr(pgc, name)(module, [layer])
        image_of, raw = cam.get_cam_image, []
        cam.get_cam_image = lambda *args, **kwargs: raw.append(image_of(*args, **kwargs)) or raw[-1]
        categories = [pgc.utils.model_targets.ClassifierOutputTarget(c) for c in TARGET]
        maps = cam(x.double(), categories)
        return torch.as_tensor(maps if finished else raw[0]).double()

    return peer


def layer_grad_cam(toy: Toy, x: Tensor) -> Tensor:
    return captum.LayerGradCam(*double(toy)).attribute(x.double(), target=TARGET)[:, 0].detach()


def layer_gradient_times_activation(toy: Toy, x: Tensor) -> Tensor:
    return captum.LayerGradientXActivation(*double(toy)).attribute(x.double(), target=TARGET).sum(1).detach()


def weighted(toy: Toy, x: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("bk,bkij->bij", weights, toy.halves.head(x.double())).detach()


def layer_feature_ablation(toy: Toy, x: Tensor) -> Tensor:
    module, layer = double(toy)
    a = toy.halves.head(x.double())
    mask = torch.arange(a.shape[1]).reshape(1, -1, 1, 1).expand(1, *a.shape[1:])
    with torch.no_grad():
        ablation = captum.LayerFeatureAblation(module, layer)
        drop = ablation.attribute(x.double(), target=TARGET, layer_mask=mask)
    return weighted(toy, x, drop[:, :, 0, 0])


def deep_lift(toy: Toy, x: Tensor) -> Tensor:
    """captum on the tail alone, behind an Identity so that a max-pool may come first."""
    assert toy.tail is not None
    tail = nn.Sequential(nn.Identity(), *copy.deepcopy(toy.tail))
    a = toy.halves.head(x.double()).detach()
    return weighted(toy, x, captum.DeepLift(tail).attribute(a, target=TARGET).sum((2, 3)).detach())


def each(formula: Callable, toy: Toy, x: Tensor, **options) -> Tensor:
    return formulas.explain(formula, toy.halves, x, TARGET, **options)


def undivided(net: Halves, x: Tensor, c: int) -> formulas.Grid:
    a, g = evidence(net, x, c)
    return combine([sum(max(v, 0.0) ** 3 for row in grid for v in row) for grid in g], a)


def channel_softmax(toy: Toy, x: Tensor, masked: Callable[[Tensor], list[Tensor]]) -> Tensor:
    """w = softmax_k of the mean score of the images that `masked` makes of masks (B, K, 1, H, W)."""
    x = x.double()
    with torch.no_grad():
        a = toy.halves.head(x)
        means = torch.stack(
            [
                torch.stack([toy.halves.tail(toy.halves.head(row), row)[:, c] for row in rows]).mean(0)
                for rows, c in zip(zip(*masked(a), strict=True), TARGET, strict=True)
            ]
        )
    return weighted(toy, x, means.softmax(1))


def minmax(a: Tensor, eps: float = 1e-8) -> Tensor:
    a = a - a.amin((2, 3), keepdim=True)
    return a / (a.amax((2, 3), keepdim=True) + eps)


def up(a: Tensor, x: Tensor, align_corners: bool = False) -> Tensor:
    return functional.interpolate(a, x.shape[2:], mode="bilinear", align_corners=align_corners)


def aligned_scorecam(toy: Toy, x: Tensor) -> Tensor:
    return channel_softmax(toy, x, lambda a: [x.double()[:, None] * minmax(up(a, x, True))[:, :, None]])


def small_scorecam(toy: Toy, x: Tensor) -> Tensor:
    return channel_softmax(toy, x, lambda a: [x.double()[:, None] * up(minmax(a), x)[:, :, None]])


def small_iscam(toy: Toy, x: Tensor) -> Tensor:
    path = (0.25, 0.75, 1.5, 2.5)
    return channel_softmax(toy, x, lambda a: [c * x.double()[:, None] * up(minmax(a), x)[:, :, None] for c in path])


def small_sscam(toy: Toy, x: Tensor) -> Tensor:
    def masked(a: Tensor) -> list[Tensor]:
        mask, normal = up(minmax(a), x), torch.distributions.Normal(0, 2.0)
        torch.manual_seed(SEED)
        return [x.double()[:, None] * (mask + normal.sample(mask.shape))[:, :, None] for _ in range(3)]

    return channel_softmax(toy, x, masked)


def last_sample_smoothgradcampp(toy: Toy, x: Tensor) -> Tensor:
    torch.manual_seed(SEED)
    normal = torch.distributions.Normal(0, 0.3)
    noise = torch.stack([normal.sample(x.shape) for _ in range(4)]).double()
    maps = []
    for b, c in enumerate(TARGET):
        clean = toy.halves.head(x[b : b + 1].double())[0].detach()
        seen = [evidence(toy.halves, x[b].double() + e[b], c) for e in noise]
        g = torch.tensor([gradient for _, gradient in seen], dtype=torch.float64)
        d2, d3 = g.square().mean(0), g.pow(3).mean(0)
        mass = (clean * d3).sum((1, 2), keepdim=True)
        weights = (d2 / (2 * d2 + mass + 1e-8) * g[-1].relu()).sum((1, 2))
        maps.append(combine(weights.tolist(), seen[-1][0]))
    return torch.tensor(maps, dtype=torch.float64)


def buried_ablationcam(toy: Toy, x: Tensor) -> Tensor:
    """Channel i of a batch of 32 becomes the smallest value so far, earlier ablations included, less 1e7."""
    weights = []
    with torch.no_grad():
        for b, c in enumerate(TARGET):
            image = x[b : b + 1].double()
            a = toy.halves.head(image)
            y = toy.halves.tail(a, image)[0, c]
            batch = a.repeat(a.shape[1], 1, 1, 1)
            for k in range(a.shape[1]):
                batch[k, k] = batch.min() - 1e7
            weights.append((y - toy.halves.tail(batch, image.expand(len(batch), -1, -1, -1))[:, c]) / y)
    return weighted(toy, x, torch.stack(weights))


def overwritten_gradcam(toy: Toy, x: Tensor) -> Tensor:
    maps = []
    for image, c in zip(x.double(), TARGET, strict=True):
        a, g = evidence(toy.halves, image, c)
        clipped = [[[max(v, 0.0) for v in row] for row in grid] for grid in a]
        maps.append(combine([total(grid) / (len(grid) * len(grid[0])) for grid in g], clipped))
    return torch.tensor(maps, dtype=torch.float64)


def overwritten_twice_gradcam(toy: Toy, x: Tensor) -> Tensor:
    """The gradient, too, is that of the overwritten features: W/Z in every cell, alive or not."""
    assert toy.halves.weight is not None
    features = toy.halves.head(x.double()).relu()
    return torch.einsum("bk,bkij->bij", toy.halves.weight[TARGET], features).detach() / features[0, 0].numel()


def plain_slopes(toy: Toy, x: Tensor) -> Tensor:
    """SiLU and the max-pool hand on their gradient, every other layer its multiplier."""
    assert toy.tail is not None
    return each(formulas_rescale.liftcam, toy, x, layers=toy.tail, slopes=(nn.SiLU, nn.MaxPool2d))
