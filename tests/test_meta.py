"""Meta-methods against their loops, against their parents, and against the peers that have them."""

from __future__ import annotations

import copy

import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.refine_cam import RefineCAM
from pytorch_grad_cam.sess import SESS
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torchcam.methods import LayerCAM
from torchcam.methods import RefineCAM as TorchRefine

from fastcam import CAM, AugSmooth, Evet, Integrated, Refine, Sess, Smooth
from tests import formulas, formulas_meta
from tests.formulas_meta import Look, finished, mean_map
from tests.networks import SIZE, images, settle, shared

pytestmark = pytest.mark.usefixtures("one_thread")
NEAR = 2e-5  # float32 against float64, after maps were divided by small ranges
SAME = {"rtol": 0, "atol": 2e-6}  # a map in [0, 1], scaled to [0, 1] once more
CLASSES = [1, 2]
LAYERS = {"deep": ["features", "tail.1", "tail.5"], "vgg": ["features.1", "features"]}


def double(name: str) -> nn.Module:
    return copy.deepcopy(shared(name).module).double()


def look(name: str, method: str = "gradcam", **options) -> Look:
    """The method inside, one version at a time, in float64."""
    net = double(name)
    cam = CAM(net, method, shared(name).layer, **options)

    def score(x: Tensor, c: int) -> float:
        with torch.no_grad():
            return float(net(x).softmax(1)[0, c])

    return Look(lambda x, c: cam(x, target=c)[0].tolist(), score)


def maps(name: str, method, layer=None, **options) -> Tensor:
    cam = CAM(shared(name).module, method, layer or shared(name).layer, **options)
    return cam(images(), target=torch.tensor(CLASSES)).double()


def check(got: Tensor, want: list, tolerance: float = NEAR) -> None:
    torch.testing.assert_close(got, torch.stack([finished(grid) for grid in want]), rtol=0, atol=tolerance)


SLIDES = [
    {},
    {"fusion": "max"},
    {"theta": 0.3, "stride": 7},
    {"pre_filter": 0.5, "blur": False},
    {"side": 15, "stride": 15},
]


@pytest.mark.parametrize("options", SLIDES)
@pytest.mark.parametrize("name", ["linear", "deep"])
def test_sess(name: str, options: dict) -> None:
    options = {"scales": [20, 31], "side": 20, "stride": 20, **options}
    want = [formulas_meta.sess(look(name), x, c, **options) for x, c in zip(images(), CLASSES, strict=True)]
    named = {"window" if key == "side" else key: value for key, value in options.items()}
    check(maps(name, Sess("gradcam", **named)), want)


def test_sess_of_a_method_of_many_forwards_scores_first() -> None:
    """With and without a pre-filter, which then spares the masked forwards of the windows it drops."""
    ask = look("linear", "scorecam")
    sess = Sess("scorecam", scales=[20, 31], pre_filter=0.6)
    options = {"scales": [20, 31], "side": 20, "stride": 20, "pre_filter": 0.6}
    want = [formulas_meta.sess(ask, x, c, **options) for x, c in zip(images(), CLASSES, strict=True)]
    check(maps("linear", sess), want, 1e-4)
    whole, part = (
        CAM(shared("linear").module, Sess("scorecam", scales=[20, 31], pre_filter=share), "features")
        .explain(images(1), target=1)
        .cost.forwards
        for share in (0, 0.6)
    )
    windows = 2 + 2 * 3
    masked = (whole - 1 - windows) / windows
    assert part == pytest.approx(1 + windows + 4 * (1 + masked), abs=4 * 2)
    assert part < 0.7 * whole


def test_sess_takes_one_forward_a_window() -> None:
    cam = CAM(shared("linear").module, Sess("gradcam", scales=[20, 31, 40]), "features")
    cost = cam.explain(images(3)).cost
    windows = 2 + 2 * 3 + 2 * 3
    assert (cost.forwards, cost.backwards) == (3 * (1 + windows), 0)
    assert len(Sess("gradcam").windows(224, 224)) == 122
    assert sorted({w.size[0] for w in Sess("gradcam").windows(224, 224)}) == [224 + 64 * i for i in range(12)]


def test_sess_at_one_scale_is_its_parent() -> None:
    square = images()[..., :20]
    module, layer = shared("linear").module, "features"
    once = CAM(module, Sess("gradcam", scales=[20], blur=False), layer)
    torch.testing.assert_close(once(square, target=1), CAM(module, "gradcam", layer)(square, target=1))


SMALLER = {"scales": [14, 31], "window_size": 14}  # resized with antialiasing


@pytest.mark.parametrize("name", ["linear", "deep"])
@pytest.mark.parametrize(
    "options", [{}, {"pool": "max"}, {"theta": 0.2, "step_size": 9}, {"pre_filter_ratio": 0.4}, SMALLER]
)
def test_sess_of_pytorch_grad_cam(name: str, options: dict) -> None:
    net = double(name)
    options = {"scales": [20, 31], **options}
    theirs = SESS(net, [net.get_submodule(shared(name).layer)], base_method=GradCAM, **options)
    want = theirs(images().double(), [ClassifierOutputTarget(c) for c in CLASSES])
    words = {"pool": "fusion", "step_size": "stride", "pre_filter_ratio": "pre_filter", "window_size": "window"}
    ours = Sess("gradcam", **{words.get(key, key): value for key, value in options.items()})
    torch.testing.assert_close(maps(name, ours), torch.from_numpy(want).double(), rtol=0, atol=NEAR)


@pytest.mark.parametrize("by_score", [False, True])
@pytest.mark.parametrize("name", ["linear", "deep"])
def test_evet(name: str, by_score: bool) -> None:
    names = ["identity", "flip", "rotate", "scale", "translate"]
    ask = look(name)
    want = [formulas_meta.evet(ask, x, c, names, by_score) for x, c in zip(images(), CLASSES, strict=True)]
    check(maps(name, Evet("gradcam", weight="score" if by_score else "uniform")), want)


def test_evet_without_the_image_itself_leaves_out_what_no_version_shows() -> None:
    want = [formulas_meta.evet(look("deep"), x, c, ["rotate", "scale"]) for x, c in zip(images(), CLASSES, strict=True)]
    check(maps("deep", Evet("gradcam", transforms=["rotate", "scale"])), want)


def test_evet_of_the_image_itself_is_its_parent() -> None:
    for method in ("gradcam", "ablationcam"):
        torch.testing.assert_close(maps("vgg", Evet(method, transforms=["identity"])), maps("vgg", method), **SAME)


def test_intensity_transformations_see_pixel_values() -> None:
    """Normalized images with their normalization, and pixel values by a network that undoes it: the same."""
    module, layer = shared("linear").module, "features"
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    pixels = images().sigmoid()
    x = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    class Undone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = module

        def forward(self, z: Tensor) -> Tensor:
            return self.net((z - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None])

    normalized = CAM(module, Evet("gradcam", transforms="intensity", mean=mean, std=std), layer)(x, target=1)
    plain = CAM(Undone().eval(), Evet("gradcam", transforms="intensity"), f"net.{layer}")(pixels, target=1)
    torch.testing.assert_close(normalized, plain, rtol=0, atol=1e-4)
    assert (normalized - CAM(module, "gradcam", layer)(x, target=1)).abs().max() > 0.01


def test_smooth() -> None:
    noise, x = torch.Generator().manual_seed(3), images().double()
    draws = [torch.randn(x.shape[1:], generator=noise).double() for _ in range(4)]
    ask, want = look("deep"), []
    for image, c in zip(x, CLASSES, strict=True):
        std = 0.2 * (image.max() - image.min())
        want.append(mean_map(ask, [(image + std * e)[None] for e in draws], [1 / 4] * 4, c))
    check(maps("deep", Smooth("gradcam", samples=4, spread=0.2, seed=3)), want, 1e-4)
    torch.testing.assert_close(maps("deep", Smooth("gradcam", samples=2, spread=0)), maps("deep", "gradcam"), **SAME)


@pytest.mark.parametrize(
    ("rule", "points"),
    [("midpoint", [1 / 6, 3 / 6, 5 / 6]), ("left", [0, 1 / 3, 2 / 3]), ("right", [1 / 3, 2 / 3, 1])],
)
@pytest.mark.parametrize("baseline", [None, [0.5, -0.5, 0.2]])
def test_integrated(rule: str, points: list[float], baseline) -> None:
    ask, want = look("deep"), []
    start = torch.zeros(3, 1, 1) if baseline is None else torch.tensor(baseline)[:, None, None]
    for image, c in zip(images().double(), CLASSES, strict=True):
        versions = [(start.double() + t * (image - start.double()))[None] for t in points]
        want.append(mean_map(ask, versions, [1 / 3] * 3, c))
    check(maps("deep", Integrated("gradcam", samples=3, rule=rule, baseline=baseline)), want, 1e-4)


def test_augsmooth_is_pytorch_grad_cams() -> None:
    net = double("deep")
    theirs = GradCAM(net, [net.get_submodule(shared("deep").layer)])
    want = theirs(images().double(), [ClassifierOutputTarget(c) for c in CLASSES], aug_smooth=True)
    ours = maps("deep", AugSmooth("gradcam", normalize=False))
    torch.testing.assert_close(ours, torch.from_numpy(want).double(), rtol=0, atol=NEAR)
    low, high = ours.amin((1, 2), keepdim=True), ours.amax((1, 2), keepdim=True)
    torch.testing.assert_close(maps("deep", AugSmooth("gradcam")), (ours - low) / (high - low), rtol=0, atol=NEAR)
    assert float(high.min()) < 0.999


@pytest.mark.parametrize("name", LAYERS)
def test_refine(name: str) -> None:
    each = [maps(name, "gradcampp", layer) for layer in LAYERS[name]]
    want = [formulas_meta.product_of([one[b].tolist() for one in each]) for b in range(2)]
    check(maps(name, Refine(), LAYERS[name]), want)


@pytest.mark.parametrize("name", LAYERS)
def test_refine_of_the_peers(name: str) -> None:
    """pytorch-grad-cam multiplies at the images' size, torchcam at the largest map's."""
    net = double(name)
    theirs = RefineCAM(net, [net.get_submodule(layer) for layer in LAYERS[name]], base_method=GradCAM)
    want = torch.from_numpy(theirs(images().double(), [ClassifierOutputTarget(c) for c in CLASSES])).double()
    ours = maps(name, Refine("gradcam"), LAYERS[name])
    torch.testing.assert_close(ours, want, rtol=0, atol=1e-4)
    net = double(name)
    with TorchRefine(net, LAYERS[name], input_shape=(3, *SIZE), base_method=LayerCAM) as extractor:
        (raw,) = extractor(class_idx=CLASSES, scores=net(images().double()))
    want = formulas.finish(raw.detach(), SIZE, "never")
    torch.testing.assert_close(maps(name, Refine("layercam", variant="layer"), LAYERS[name]), want, rtol=0, atol=1e-4)


@pytest.mark.parametrize("fusion", ["tanhmax", "tanhmax_all"])
def test_layercams_fusion(fusion: str) -> None:
    """Cells of 4, 8 and 16 pixels: the last layer is not shallow."""
    stages = [nn.Conv2d(3, 6, 4, 4), nn.ReLU(), nn.Conv2d(6, 8, 2, 2), nn.ReLU(), nn.Conv2d(8, 8, 2, 2), nn.ReLU()]
    net = settle(nn.Sequential(*stages, nn.Flatten(), nn.Linear(48, 4)), 21)
    layers, x = ["1", "3", "5"], torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(4))
    wide = copy.deepcopy(net).double()
    raws = [CAM(wide, "layercam", layer).explain(x.double(), target=1).raw.tolist() for layer in layers]
    want = [formulas_meta.tanhmax([raw[b] for raw in raws], 32, 48, fusion == "tanhmax_all") for b in range(2)]
    check(CAM(net, "layercam", layers, fusion=fusion)(x, target=1).double(), want)
    other = {"tanhmax": "tanhmax_all", "tanhmax_all": "max"}[fusion]
    assert (
        CAM(net, "layercam", layers, fusion=other)(x, target=1) - torch.stack([finished(g) for g in want])
    ).abs().max() > 0.01
