"""torchcam's explain: the peer's explanation, files and manifest, and where it is better."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

pytest.importorskip("torchcam")
pytest.importorskip("PIL")
import torchcam.explain as theirs
from PIL import Image
from torchcam import methods as their_methods

from fastcam.compat.torchcam import explain as ours
from fastcam.compat.torchcam import methods as our_methods
from tests.networks import images, shared

pytestmark = pytest.mark.usefixtures("one_thread")

CLOSE = 1e-5
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))


def both(toy: str, method: str = "GradCAM", **options):
    """Ours and the peer's of one picture."""
    model, x = shared(toy).module, images(1)
    return [
        module.explain(model, x, method=getattr(classes, method), **options)
        for module, classes in ((ours, our_methods), (theirs, their_methods))
    ]


@pytest.mark.parametrize(
    ("toy", "method", "options"),
    [
        ("linear", "GradCAM", {"target_layer": "features"}),
        ("vgg", "GradCAM", {"expected_class_idx": 0}),
        ("vgg", "LayerCAM", {"expected_class_idx": 2, "target_layer": ["features.0", "features"]}),
        ("deep", "XGradCAM", {"target_layer": "features", "class_names": ["a", "b", "c", "d", "e"]}),
        ("vgg", "ScoreCAM", {"target_layer": "features", "method_kwargs": {"batch_size": 3}}),
    ],
)
def test_the_peers_explanation(toy, method, options):
    found, expected = both(toy, method, **options)
    for field in ("predicted_class_idx", "expected_class_idx", "method", "target_layers", "model", "input_shape"):
        assert getattr(found, field) == getattr(expected, field)
    assert found.class_names == expected.class_names
    torch.testing.assert_close(found.logits, expected.logits, rtol=CLOSE, atol=CLOSE)
    assert list(found.cams) == list(expected.cams)
    for one, maps in found.cams.items():
        assert len(maps) == len(expected.cams[one])
        for a, b in zip(maps, expected.cams[one], strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=CLOSE)
    assert max(float(one.max()) for maps in found.cams.values() for one in maps) > 0.9


def test_the_peers_files(tmp_path):
    """All of them, in contents too: overlays within one level, for maps may differ by rounding."""
    folders = []
    for one, name in zip(both("vgg", expected_class_idx=1, target_layer="features"), ("ours", "theirs"), strict=True):
        folders.append(one.save(tmp_path / name, PICTURE, alpha=0.4))
    found, expected = folders
    names = sorted(path.name for path in found.iterdir())
    assert names == sorted(path.name for path in expected.iterdir())
    assert len(names) == 1 + 3 * len(both("vgg", expected_class_idx=1)[0].cams)
    for name in names:
        if name.endswith(".png"):
            a, b = (np.asarray(Image.open(folder / name)).astype(int) for folder in folders)
            assert np.abs(a - b).max() <= 1, name
        elif name.endswith(".npy"):
            np.testing.assert_allclose(np.load(found / name), np.load(expected / name), atol=CLOSE)
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in folders]
    assert manifests[0].pop("versions")["torchcam"] == "0.5.0"
    del manifests[1]["versions"]
    assert rounded(manifests[0]) == rounded(manifests[1])


def rounded(value):
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return (
        [rounded(one) for one in value]
        if isinstance(value, list)
        else round(value, 4)
        if isinstance(value, float)
        else value
    )


def test_a_map_of_several_layers_names_all_of_them(tmp_path):
    found = ours.explain(
        shared("vgg").module, images(1), method=our_methods.RefineCAM, target_layer=["features.0", "features"]
    )
    assert found.target_layers == ("features.0", "features")
    (only,) = found.cams[found.predicted_class_idx]
    assert 0 <= only.min() < only.max() <= 1
    folder = found.save(tmp_path / "refined", PICTURE)
    (artifact,) = json.loads((folder / "manifest.json").read_text())["classes"][str(found.predicted_class_idx)][
        "artifacts"
    ]
    assert artifact["target_layers"] == ["features.0", "features"]
    with pytest.raises(TypeError, match="extractor class"):
        both("vgg", "RefineCAM", target_layer=["features.0", "features"])


def test_the_layer_is_found_for_pictures_of_this_size():
    """torchcam looks with 224 x 224 pixels for all classes but GradCAM, and three channels."""
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 8, 8), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 3),
    ).eval()  # fmt: skip
    x = torch.randn(1, 1, 8, 8)
    found = ours.explain(model, x, method=our_methods.LayerCAM)
    assert found.target_layers == ours.explain(model, x).target_layers == ("1",)
    with pytest.raises(RuntimeError, match="channels"):
        theirs.explain(model, x, method=their_methods.LayerCAM)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
def test_the_model_and_the_input_stay_as_they_were(mode):
    model = copy.deepcopy(shared("vgg").module)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    model.requires_grad_(False)
    x, before = images(1), copy.deepcopy(model.state_dict())
    with mode():
        found = ours.explain(model, x, expected_class_idx=0)
        with pytest.raises(ValueError, match="output range"):
            ours.explain(model, x, expected_class_idx=99)
    assert len(found.cams) in (1, 2)
    assert not x.requires_grad
    assert x.grad is None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(bool((parameter.grad == 1).all()) for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float64])
def test_other_precisions_can_be_saved(precision, tmp_path):
    model = copy.deepcopy(shared("linear").module).to(precision)
    found = ours.explain(model, images(1).to(precision), target_layer="features")
    assert found.cams[found.predicted_class_idx][0].dtype == torch.float32
    assert (found.save(tmp_path / "half", PICTURE) / "manifest.json").exists()


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"model": None}, TypeError, "got NoneType"),
        ({"model": copy.deepcopy(shared("vgg").module).train()}, ValueError, "model.eval"),
        ({"input_tensor": None}, TypeError, "Tensor"),
        ({"input_tensor": images(2)}, ValueError, r"\(2, 3, 20, 28\)"),
        ({"input_tensor": images(1).to(torch.uint8)}, ValueError, "use .float"),
        ({"expected_class_idx": True}, TypeError, "True"),
        ({"expected_class_idx": -1}, ValueError, "output range, 0 to"),
        ({"class_names": ["a"]}, ValueError, "classes"),
        ({"method": torch.nn.Module}, TypeError, "extractor class"),
        ({"method": "GradCAM"}, TypeError, "'GradCAM'"),
        ({"method_kwargs": [1]}, TypeError, "mapping"),
        ({"method_kwargs": {"target_layer": "features"}}, ValueError, "directly"),
        ({"target_layer": "nowhere"}, ValueError, "nowhere"),
    ],
)
def test_bad_input(change, error, says):
    given = {"model": shared("vgg").module, "input_tensor": images(1), **change}
    with pytest.raises(error, match=says):
        ours.explain(given.pop("model"), given.pop("input_tensor"), **given)


def test_nothing_stays_of_a_folder_that_failed(tmp_path):
    found = both("linear", target_layer="features")[0]
    with pytest.raises(ValueError, match="alpha"):
        found.save(tmp_path / "new", PICTURE, alpha=1)
    assert not (tmp_path / "new").exists()
    found.save(tmp_path / "new", PICTURE)
    with pytest.raises(FileExistsError, match="give a new one"):
        found.save(tmp_path / "new", PICTURE)
    with pytest.raises(TypeError, match="PIL image"):
        found.save(tmp_path / "other", np.asarray(PICTURE))
