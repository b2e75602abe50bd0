"""pytorch-grad-cam, torchcam and captum as third witnesses, in float64, on the same networks as the formulas.

Where a peer computes something else, it stands in `KNOWN_DIFFERENCES` with the reason and the equation: the
test asks that the difference is there, and that the formula with that one change gives the peer's map.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from fastcam import CAM
from tests import formulas

for package in ("pytorch_grad_cam", "torchcam", "captum", "torchvision"):
    pytest.importorskip(package)
from tests import peers  # noqa: E402 - it imports the packages asked for above
from tests.peers import SEED, TARGET, Peer, grad_cam, inputs, torchcam, toy_of  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]


AGREE = 2e-5  # of the largest value: float32 against float64
DIFFER = 1e-3  # a known difference is at least this, so fifty times what agreement allows


class Agreement(NamedTuple):
    """`how` the two are compared: raw, after ReLU, up to a sign, or as finished maps."""

    method: str
    options: dict[str, object]
    who: str
    peer: Peer
    how: str
    networks: tuple[str, ...] = ("linear", "signed", "deep", "vgg", "residual_branch", "resnet")


AGREEMENTS = [
    Agreement("cam", {}, "torchcam", torchcam("CAM"), "raw", ("linear", "signed")),
    Agreement("gradcam", {}, "torchcam", torchcam("GradCAM"), "relu"),
    Agreement("gradcam", {}, "pytorch-grad-cam", grad_cam("GradCAM"), "raw"),
    Agreement("gradcam", {}, "pytorch-grad-cam map", grad_cam("GradCAM", finished=True), "map"),
    Agreement("gradcam", {}, "captum", peers.layer_grad_cam, "raw"),
    Agreement("gradcampp", {"eps": 1e-6}, "pytorch-grad-cam", grad_cam("GradCAMPlusPlus"), "raw"),
    Agreement("xgradcam", {"eps": 1e-7}, "pytorch-grad-cam", grad_cam("XGradCAM"), "raw"),
    Agreement("xgradcam", {"eps": 1e-8}, "torchcam", torchcam("XGradCAM"), "relu"),
    Agreement("layercam", {}, "pytorch-grad-cam", grad_cam("LayerCAM"), "raw"),
    Agreement("layercam", {}, "torchcam", torchcam("LayerCAM"), "relu"),
    Agreement("hirescam", {}, "pytorch-grad-cam", grad_cam("HiResCAM"), "raw"),
    Agreement("hirescam", {}, "captum", peers.layer_gradient_times_activation, "raw"),
    Agreement("gradcamelementwise", {}, "pytorch-grad-cam", grad_cam("GradCAMElementWise"), "raw"),
    Agreement(
        "scorecam", {"align_corners": True}, "pytorch-grad-cam", grad_cam("ScoreCAM"), "raw", ("deep", "vgg", "resnet")
    ),
    Agreement("scorecam", {"normalize": "before"}, "torchcam", torchcam("ScoreCAM"), "relu", ("deep", "vgg", "resnet")),
    Agreement(
        "iscam", {"normalize": "before", "samples": 4}, "torchcam", torchcam("ISCAM", num_samples=4), "relu",
        ("deep", "vgg"),
    ),
    Agreement("eigencam", {"centered": True}, "pytorch-grad-cam", grad_cam("EigenCAM"), "sign"),
    Agreement("eigengradcam", {}, "pytorch-grad-cam", grad_cam("EigenGradCAM"), "sign"),
    Agreement(
        "ablationcam", {}, "pytorch-grad-cam", grad_cam("AblationCAM"), "raw",
        ("linear", "vgg", "deep", "residual_branch"),
    ),
    Agreement("ablationcam", {"divide": "none"}, "captum", peers.layer_feature_ablation, "raw"),
    Agreement(
        "liftcam", {}, "captum", peers.deep_lift, "raw", ("linear", "signed", "norm_relu_pooled", "vgg")
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", AGREEMENTS, ids=lambda row: f"{row.method}-{row.who}")
def test_agreement(row: Agreement) -> None:
    for name in row.networks:
        toy, x = toy_of(name), inputs(name)
        exp = CAM(toy.module, row.method, toy.layer, **row.options).explain(x, target=torch.tensor(TARGET))
        theirs = row.peer(toy, x)
        if row.how == "map":
            torch.testing.assert_close(exp.maps.double(), theirs, rtol=0, atol=10 * AGREE)
            continue
        ours = exp.raw.double().relu() if row.how == "relu" else exp.raw.double()
        if row.how == "sign":
            theirs = theirs * torch.sign((ours * theirs).sum((1, 2), keepdim=True))
        assert distance(ours, theirs) < AGREE, name


def distance(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference in any image, in parts of the peer's largest value there."""
    top = theirs.abs().amax((1, 2)).clamp_min(1e-30)
    return float(((ours - theirs).abs().amax((1, 2)) / top).max())


class Difference(NamedTuple):
    method: str
    who: str
    reason: str
    equation: str
    peer: Peer
    corrected: Peer
    networks: tuple[str, ...]
    how: str = "relu"


KNOWN_DIFFERENCES = [
    Difference(
        "gradcampp", "torchcam", "alpha[mask].div_(...) divides a copy, so alpha stays g²", "w_k = Σ g² (g)⁺",
        torchcam("GradCAMpp"), lambda toy, x: peers.each(peers.undivided, toy, x), ("linear", "deep"),
    ),
    Difference(
        "gradcampp", "pytorch-grad-cam", "a constant of the order of g² in the denominator",
        "α = g² / (2 g² + Σ A g³ + 1e-6)",
        grad_cam("GradCAMPlusPlus"), lambda toy, x: peers.each(formulas.gradcampp, toy, x, eps=1e-6),
        ("signed", "conv_classifier"), "raw",
    ),
    Difference(
        "eigencam", "pytorch-grad-cam", "centers over the cells first", "O := O - mean over cells",
        grad_cam("EigenCAM"), lambda toy, x: peers.each(formulas.eigencam, toy, x, centered=True),
        ("linear", "deep"), "sign",
    ),
    Difference(
        "scorecam", "pytorch-grad-cam", "upsamples with aligned corners", "H_k = mm(up_aligned(A_k))",
        grad_cam("ScoreCAM"), peers.aligned_scorecam, ("deep", "vgg", "resnet"), "raw",
    ),
    Difference(
        "scorecam", "torchcam", "scales before it upsamples: a mask peaks below one", "H_k = up(mm(A_k))",
        torchcam("ScoreCAM"), peers.small_scorecam, ("deep", "vgg", "resnet"),
    ),
    Difference(
        "iscam", "torchcam", "scales before it upsamples", "H_k = up(mm(A_k))",
        torchcam("ISCAM", num_samples=4), peers.small_iscam, ("deep", "vgg"),
    ),
    Difference(
        "sscam", "torchcam", "scales before it upsamples, and draws from the global generator",
        "H_k = up(mm(A_k)), e_n of shape (B, K, H, W)",
        torchcam("SSCAM", num_samples=3), peers.small_sscam, ("deep", "vgg"),
    ),
    Difference(
        "smoothgradcampp", "torchcam",
        "D₂ above, D₃ inside the sum over cells, noise of an absolute size, A and (g)⁺ of the last sample",
        "L = Σ_k A_k(x_n) Σ_ij D₂ / (2 D₂ + Σ_ab A_ab(x) D₃_ab + 1e-8) (g(x_n))⁺",
        torchcam("SmoothGradCAMpp"), peers.last_sample_smoothgradcampp, ("deep", "vgg"),
    ),
    Difference(
        "ablationcam", "pytorch-grad-cam", "where A may be negative a channel is buried, not zeroed",
        "A_k := min - 1e7", grad_cam("AblationCAM"), peers.buried_ablationcam,
        ("signed", "norm_relu_pooled"), "raw",
    ),
    Difference(
        "gradcam", "pytorch-grad-cam", "keeps the layer's memory, which the in-place ReLU then overwrites",
        "A := (A)⁺", grad_cam("GradCAM"), peers.overwritten_gradcam, ("inplace",), "raw",
    ),
    Difference(
        "gradcam", "torchcam", "keeps the layer's own tensor, which the in-place ReLU then overwrites",
        "A := (A)⁺, g := dy/d(A)⁺", torchcam("GradCAM"), peers.overwritten_twice_gradcam, ("inplace",),
    ),
    Difference(
        "liftcam", "captum", "SiLU is not in its table; a ReLU's hook runs before the max-pool's own",
        "m_in = m_out dout/din for both", peers.deep_lift, peers.plain_slopes, ("deep",), "raw",
    ),
]  # fmt: skip


SAMPLES = {"iscam": {"samples": 4}, "sscam": {"samples": 3}, "smoothgradcampp": {"samples": 4}}


@pytest.mark.parametrize("row", KNOWN_DIFFERENCES, ids=lambda row: f"{row.method}-{row.who}")
def test_known_difference(row: Difference) -> None:
    for name in row.networks:
        toy, x = toy_of(name), inputs(name)
        cam = CAM(toy.module, row.method, toy.layer, **SAMPLES.get(row.method, {}))
        ours = cam.explain(x, target=torch.tensor(TARGET)).raw.double()
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            theirs = row.peer(toy, x)
            corrected = row.corrected(toy, x)
        if row.how == "relu":
            ours, corrected = ours.relu(), corrected.relu()
        if row.how == "sign":
            theirs = theirs * torch.sign((corrected * theirs).sum((1, 2), keepdim=True))
        assert distance(ours, theirs) > DIFFER, f"{name}: {row.who} no longer differs: {row.reason}"
        assert distance(corrected, theirs) < 1e-6, f"{name}: {row.equation}"
