"""Signals and volumes through the whole package: layers, tails, targets, errors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fastcam import CAM, TopK
from fastcam.methods.registry import METHODS
from fastcam.model.capture import evaluation
from fastcam.model.layers import list_layers
from fastcam.model.network import Network
from fastcam.model.tokens import Layout, find_layout
from tests.networks_ranks import SIZES, TAILS, cells, images, shared, stem
from tests.quick import quick

pytestmark = pytest.mark.usefixtures("one_thread")
RANKS = tuple(SIZES)


@pytest.mark.parametrize(
    ("shape", "size", "last", "layout"),
    [
        ((2, 64, 50), (1000,), False, Layout("maps", (1, 50), 0, (50,))),
        ((2, 50, 64), (1000,), True, Layout("last", (1, 50), 0, (50,))),  # a LayerNorm or Linear of a transformer
        ((2, 30, 512), (100,), False, Layout("last", (1, 30), 0, (30,))),  # 512 positions cannot be of 100 samples
        ((2, 512, 200), (100,), False, Layout("maps", (1, 200), 0, (200,))),
        ((2, 197, 192), (224, 224), True, Layout("tokens", (14, 14), 1)),  # three axes of a picture are tokens
        ((2, 64, 4, 14, 14), (16, 112, 112), False, Layout("maps", (56, 14), 0, (4, 14, 14))),
        ((2, 4, 14, 14, 64), (16, 112, 112), False, Layout("last", (56, 14), 0, (4, 14, 14))),
    ],
)
def test_the_rank_of_the_input_decides(shape, size, last, layout) -> None:
    assert find_layout(shape, size, last) == layout
    output = torch.arange(float(torch.tensor(shape).prod())).view(shape)
    maps = layout.maps(output)
    assert maps.shape[2:] == layout.size
    assert torch.equal(layout.positions(maps), output[:, layout.prefix :] if layout.kind == "tokens" else output)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((2, 5), (40,)),
        ((2, 5, 1), (40,)),
        ((2, 5, 1, 1, 1), (6, 8, 10)),
        ((2, 5, 4, 4), (6, 8, 10)),
        ((2, 9, 4), (6, 8, 10)),
    ],
)
def test_no_map(shape, size) -> None:
    assert find_layout(shape, size) is None


@pytest.mark.parametrize("name", TAILS)
@pytest.mark.parametrize("rank", RANKS)
def test_the_default_layer_and_the_tail(rank: int, name: str) -> None:
    module, x = shared(rank, name).module, images(rank)
    default = {"deep": "tail.5", "norm_relu": "tail.1"}.get(name, "features")
    assert CAM(module, "gradcam").explain(x).layer == [default]
    assert [info.name for info in list_layers(module, x) if info.default] == [default]
    with evaluation(module):
        (forward,) = Network(module).forward(x, (), {}, None, grad=True)
        (inner,) = Network(module).forward(x, (), {}, "features", grad=True)
    assert forward.pooled is not None
    assert (inner.pooled is None) == (name == "deep")
    assert (forward.pooled.linear is None) == (name == "conv_classifier" and default != "features")
    torch.testing.assert_close(forward.pooled(forward.captured.maps.detach(), 0), module(x).detach())


class Means(nn.Module):
    """The mean over the axes is a function, and no module."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.features, self.head = stem(rank, 8, nn.ReLU()), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(2).mean(-1))


@pytest.mark.parametrize("rank", RANKS)
def test_a_mean_over_the_axes_is_a_pooled_tail(rank: int) -> None:
    module = Means(rank).eval()
    exp = CAM(module, "gradcam").explain(images(rank))
    assert (exp.layer, exp.cost.backwards) == (["features"], 0)
    CAM(module, "ablationcam")(images(rank))
    assert CAM(module, "ablationcam").explain(images(rank)).cost.tails == 0


class Mixing(nn.Module):
    """A linear layer over the samples of a signal: nothing position-wise, and no pooled tail."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.mix, self.head = stem(1, 8, nn.ReLU()), nn.Linear(20, 20), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self.features(x)).mean(-1))


def test_a_linear_layer_over_samples_is_not_position_wise() -> None:
    module = Mixing().eval()
    exp = CAM(module, "reciprocam", "features", score="logit").explain(images(1), target=2)
    a = module.features(images(1)).detach()
    for i in range(20):
        one = torch.zeros_like(a)
        one[:, :, i] = a[:, :, i]
        torch.testing.assert_close(exp.raw[:, i], module.head(module.mix(one).mean(-1))[:, 2].detach())


class Sequence(nn.Module):
    """A transformer over the positions of a signal: (B, l, C) from its embedding on."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv1d(3, 16, 4, 4)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.encoder(self.embed(x).transpose(1, 2))).mean(1))


def test_a_transformer_of_signals() -> None:
    module = Sequence().eval()
    exp = CAM(module, "layercam", "norm").explain(images(1), target=1)
    a = module.norm(module.encoder(module.embed(images(1)).transpose(1, 2))).detach()
    want = (a * (module.head.weight[1] / 10).relu()).sum(-1)
    torch.testing.assert_close(exp.raw, want.detach())
    assert exp.maps.shape == (2, 40)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rank", RANKS)
def test_every_method_explains_them_or_says_that_it_does_not(rank: int, method: str) -> None:
    module, x = shared(rank, "linear").module, images(rank)
    cam = quick(module, method, "features", **({"size": 4, "stride": 3} if method == "occlusion" else {}))
    if rank not in METHODS[method].ranks:
        with pytest.raises(ValueError, match=f"{method} explains pictures"):
            cam(x)
        return
    if METHODS[method].needs.startswith("attention"):
        with pytest.raises(ValueError, match=r"attention|pictures"):
            cam(x)
        return
    exp = cam.explain(x, target=torch.tensor([1, 2]))
    raw = exp.raw if isinstance(exp.raw, Tensor) else exp.raw[0]
    assert exp.maps.shape == (2, *SIZES[rank])
    assert raw.shape in ((2, *cells(rank)), (2, *SIZES[rank]))
    assert exp.attributions is None or exp.attributions.shape == x.shape
    assert 0 <= float(exp.maps.min()) <= float(exp.maps.max()) <= 1


@pytest.mark.parametrize("method", ["gradcam", "scorecam", "sscam", "reciprocam", "ablationcam", "smoothgradcampp"])
@pytest.mark.parametrize("rank", RANKS)
def test_targets_and_batches(rank: int, method: str) -> None:
    module, x = shared(rank, "deep").module, images(rank)
    cam = quick(module, method, "features")
    several = torch.tensor([[1, 2], [0, 4]])
    maps = cam(x, target=several)
    assert maps.shape == (2, 2, *SIZES[rank])
    assert cam(x, target=TopK(3)).shape == (2, 3, *SIZES[rank])
    if method not in ("sscam", "smoothgradcampp"):  # which draw on for the next image
        for b in range(2):
            alone = torch.cat([cam(x[b : b + 1], target=int(c)) for c in several[b]])
            torch.testing.assert_close(maps[b], alone, rtol=0, atol=2e-4)
    by_function = cam(x, target=lambda logits: logits[:, 1])
    if method != "reciprocam":  # a function has no probability
        torch.testing.assert_close(by_function, cam(x, target=1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", ["gradcam", "scorecam", "ablationcam", "reciprocam"])
@pytest.mark.parametrize("rank", RANKS)
def test_in_bfloat16(rank: int, method: str) -> None:
    module, x = shared(rank, "linear").module, images(rank)
    options = {"score": "logit"} if method == "reciprocam" else {}
    half = CAM(module, method, precision="bfloat16", **options)(x, target=1)
    torch.testing.assert_close(half, CAM(module, method, **options)(x, target=1), rtol=0, atol=0.15)


@pytest.mark.parametrize("rank", RANKS)
def test_several_layers_and_a_graph(rank: int) -> None:
    module, x = shared(rank, "deep").module, images(rank)
    exp = CAM(module, "gradcam", ["features", "tail.5"]).explain(x)
    assert [tuple(raw.shape[1:]) for raw in exp.raw] == [cells(rank), tuple(n // 2 for n in cells(rank))]
    assert exp.maps.shape == (2, *SIZES[rank])
    maps = CAM(module, "layercam", "features")(x, differentiable=True)
    (g,) = torch.autograd.grad(maps.square().sum(), module.features[0].weight)
    assert bool(g.any())


@pytest.mark.parametrize("rank", RANKS)
def test_a_network_that_cannot_be_cut(rank: int) -> None:
    class Unexportable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = shared(rank, "deep").module

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) if float(x.sum()) > -1e9 else self.inner(-x)

    target = torch.tensor([1, 2])
    with pytest.warns(UserWarning, match="cannot be cut"):
        whole = CAM(Unexportable().eval(), "ablationcam", "inner.features")(images(rank), target=target)
    cut = CAM(shared(rank, "deep").module, "ablationcam", "features")(images(rank), target=target)
    torch.testing.assert_close(whole, cut, rtol=0, atol=1e-4)


ERRORS = [
    (1, lambda x: x[0], "signals.*Conv1d.*batch axis"),
    (3, lambda x: x[0], "volumes.*Conv3d.*batch axis"),
    (1, lambda x: x[:, None, None], "signals.*first convolution"),
    (3, lambda x: x[:, :, 0, 0], "volumes.*first convolution"),
    (1, lambda x: x[:, :2], "2 channels"),
    (3, lambda x: x[:, :2], "2 channels"),
    (1, lambda x: x[:0], "at least one"),
    (3, lambda x: x * float("nan"), "NaN"),
]


@pytest.mark.parametrize(("rank", "change", "match"), ERRORS)
def test_bad_input(rank: int, change, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        CAM(shared(rank, "linear").module)(change(images(rank)))
