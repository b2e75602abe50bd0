"""combine="eigen": the principal component of the weighed channels, against NumPy's SVD inside pytorch-grad-cam."""

from __future__ import annotations

import pytest
import torch

from fastcam import CAM
from tests.networks import shared

pgc = pytest.importorskip("pytorch_grad_cam")
from tests.peers import TARGET, double, inputs, toy_of  # noqa: E402 - it imports the package asked for above

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]
METHODS = {
    "gradcam": ("GradCAM", {}),
    "gradcampp": ("GradCAMPlusPlus", {"eps": 1e-6}),
    "layercam": ("LayerCAM", {}),
    "hirescam": ("HiResCAM", {}),
    "gradcamelementwise": ("GradCAMElementWise", {}),
    "scorecam": ("ScoreCAM", {"align_corners": True}),
    "ablationcam": ("AblationCAM", {}),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("network", ["linear", "deep"])
def test_principal_component_as_the_peer_projects(method: str, network: str) -> None:
    toy, x = toy_of(network), inputs(network)
    name, options = METHODS[method]
    exp = CAM(toy.module, method, toy.layer, combine="eigen", **options).explain(x, target=torch.tensor(TARGET))
    module, layer = double(toy)
    peer, raw = getattr(pgc, name)(module, [layer]), []
    image_of = peer.get_cam_image
    peer.get_cam_image = lambda *args, **kwargs: raw.append(image_of(*args, **kwargs)) or raw[-1]
    peer(x.double(), [pgc.utils.model_targets.ClassifierOutputTarget(c) for c in TARGET], eigen_smooth=True)
    theirs = torch.as_tensor(raw[0]).double()
    assert isinstance(exp.raw, torch.Tensor)
    sign = torch.sign((exp.raw * theirs).sum((1, 2), keepdim=True))
    top = theirs.abs().amax((1, 2), keepdim=True)
    torch.testing.assert_close(exp.raw.double() / top, sign * theirs / top, rtol=0, atol=2e-5)


def test_sign_agrees_with_the_sum() -> None:
    toy, x = shared("deep"), inputs("deep")
    plain, eigen = (CAM(toy.module, "layercam", toy.layer, combine=how).explain(x).raw for how in ("sum", "eigen"))
    assert isinstance(plain, torch.Tensor)
    assert isinstance(eigen, torch.Tensor)
    assert bool(((plain * eigen).sum((1, 2)) > 0).all())


def test_methods_without_weighed_channels_say_so() -> None:
    toy = shared("deep")
    with pytest.raises(ValueError, match="eigencam gives its map itself"):
        CAM(toy.module, "eigencam", toy.layer, combine="eigen")
    with pytest.raises(ValueError, match="combine must be one of 'sum', 'eigen', got 'svd'"):
        CAM(toy.module, "gradcam", toy.layer, combine="svd")


@pytest.mark.parametrize(("method", "options"), [("integratedgradcam", {}), ("smoothgradcampp", {"mode": "maps"})])
def test_means_of_finished_maps_have_no_channels_to_combine(method: str, options: dict) -> None:
    toy, x = shared("deep"), inputs("deep")
    with pytest.raises(ValueError, match="leave combine='eigen' out"):
        CAM(toy.module, method, toy.layer, combine="eigen", samples=2, **options)(x)
