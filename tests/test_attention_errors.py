"""Networks whose attention gives no map, and options that cannot be: clear errors, with the mend."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fastcam import CAM
from tests import small

pytest.importorskip("timm")
pytest.importorskip("torchvision")
import torchvision

from tests.networks import CLASSES
from tests.test_attention import shared

pytestmark = pytest.mark.usefixtures("one_thread")


class Whole(nn.Module):
    """A transformer whose blocks share one module."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, CLASSES)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        z = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.block(self.block(z)).mean(1))


def test_shared_blocks_have_the_networks_score_only() -> None:
    net, x = Whole().eval(), torch.rand(2, 3, 20, 28)
    with pytest.raises(ValueError, match=r"several of them run in block.*pass score='model'"):
        CAM(net, "legrad")(x)
    assert CAM(net, "legrad", score="model")(x).shape == (2, 20, 28)


def test_networks_without_such_attention() -> None:
    with pytest.raises(ValueError, match=r"no attention between all tokens.*use gradcam"):
        CAM(small.network(), "rollout")(small.images())
    swin = torchvision.models.SwinTransformer([4, 4], 12, [1, 1], [1, 1], [4, 4], num_classes=CLASSES).eval()
    with pytest.raises(ValueError, match=r"attends within windows.*a softmax of \(32, 1, 16, 16\).*use gradcam"):
        CAM(swin, "legrad")(torch.rand(2, 3, 64, 64))


class Mixing(nn.Module):
    """Attention between channels, or from all cells to a few, and then between all cells."""

    def __init__(self, channels: bool) -> None:
        super().__init__()
        self.patches, self.mix, self.channels = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 16), channels
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        z = self.mix(self.patches(x).flatten(2).transpose(1, 2))
        z = z @ (z.mT @ z / 6).softmax(-1) if self.channels else (z @ z[:, :5].mT).softmax(-1) @ z[:, :5]
        return self.head(((z @ z.mT).softmax(-1) @ z).mean(1))


@pytest.mark.parametrize(("channels", "shape"), [(True, r"\(2, 16, 16\)"), (False, r"\(2, 35, 5\)")])
def test_attention_between_other_things_is_refused(channels: bool, shape: str) -> None:
    with pytest.raises(ValueError, match=f"channels or groups, a softmax of {shape}"):
        CAM(Mixing(channels).eval(), "rollout")(torch.rand(2, 3, 20, 28))


class Stubborn(Whole):
    """What follows the last block takes as many rows as there were images."""

    def __init__(self) -> None:
        super().__init__()
        self.more = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        z = self.more(self.block(self.patches(x).flatten(2).transpose(1, 2)))
        return self.head(z.mean(1) + x.mean((1, 2, 3))[:, None])


def test_a_tail_that_refuses_more_rows() -> None:
    net, x = Stubborn().eval(), torch.rand(2, 3, 20, 28)
    with pytest.raises(ValueError, match=r"refuses more rows than images.*pass score='model'"):
        CAM(net, "legrad")(x)
    assert CAM(net, "legrad", score="model")(x).shape == (2, 20, 28)


def test_signals_have_no_grid_of_tokens() -> None:
    net = nn.Sequential(nn.Conv1d(3, 8, 4, 4), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, CLASSES)).eval()
    with pytest.raises(ValueError, match=r"known of pictures \(B, C, H, W\), not of input \(2, 3, 40\)"):
        CAM(net, "rollout")(torch.rand(2, 3, 40))


def test_a_score_that_leaves_the_graph() -> None:
    net = shared("vit")
    with pytest.raises(ValueError, match="does not depend on this network's attention"):
        CAM(net.module, "attentionrelevance")(net.images(), target=lambda s: s.detach()[:, 0])


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("legrad", {"layers": []}, r"layers=\[\] must be None for all"),
        ("legrad", {"layers": "last"}, "layers='last' must be None for all"),
        ("legrad", {"score": "logit"}, "'mean', 'own', 'model'"),
        ("rollout", {"discard": 1.0}, "discard=1.0 must be a share"),
        ("rollout", {"heads": "sum"}, "'mean', 'max', 'min'"),
        ("rollout", {"layer": "encoder"}, "explains the image itself, at no layer"),
    ],
)
def test_options_that_cannot_be(method: str, options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CAM(shared("vit").module, method, **options)


def test_layers_that_are_not_there() -> None:
    net = shared("vit")
    with pytest.raises(ValueError, match="no attention layer 2, this network has 2: 0 to 1"):
        CAM(net.module, "legrad", layers=[0, 2])(net.images())
