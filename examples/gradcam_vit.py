"""Class activation maps of a Vision Transformer with `reshape_transform`, written for pytorch-grad-cam.

    pip install 'fastcam[examples]'
    python examples/gradcam_vit.py --pretrained --method layercam

A transformer's layers give tokens (B, 1 + h w, C), not maps; `reshape_transform` drops the class token and lays the
others on their grid. The layer is the last block's first norm: the class token is all that leaves that block for
the head, so that patches behind its attention have no gradient. Without `--pretrained` or `--weights` the network
is random and small pictures do, which shows the calls and runs offline, but explains nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

from fastcam.compat.pytorch_grad_cam import (
    AblationCAM,
    EigenCAM,
    EigenGradCAM,
    GradCAM,
    GradCAMPlusPlus,
    LayerCAM,
    ScoreCAM,
    XGradCAM,
)
from fastcam.compat.pytorch_grad_cam.ablation_layer import AblationLayerVit
from fastcam.compat.pytorch_grad_cam.utils.image import preprocess_image, show_cam_on_image
from fastcam.compat.pytorch_grad_cam.utils.reshape_transforms import vit_reshape_transform

CLASSES = (GradCAM, GradCAMPlusPlus, XGradCAM, LayerCAM, EigenCAM, EigenGradCAM, ScoreCAM, AblationCAM)
METHODS = {one.__name__.lower(): one for one in CLASSES}
PATCH = 16  # pixels of a side


def main(arguments: Sequence[str] | None = None) -> np.ndarray:
    """Write the overlay; the map (H, W)."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--image", default=str(files("fastcam.data") / "chelsea.jpg"))
    parser.add_argument("--method", choices=METHODS, default="gradcam")
    parser.add_argument("--model", default="deit_tiny_patch16_224", help="of timm, with patches of 16 pixels")
    parser.add_argument("--size", type=int, default=224, help="pixels of each side (default 224)")
    parser.add_argument("--pretrained", action="store_true", help="download timm's weights")
    parser.add_argument("--weights", help="a file with the model's state dict")
    parser.add_argument("--output", type=Path, default=Path("vit_cam.png"))
    given = parser.parse_args(arguments)

    torch.manual_seed(0)
    model = timm.create_model(given.model, pretrained=given.pretrained, img_size=given.size).eval()
    if given.weights:
        model.load_state_dict(torch.load(given.weights, map_location="cpu", weights_only=True))
    picture = Image.open(given.image).convert("RGB").resize((given.size, given.size))
    rgb_img = np.float32(picture) / 255
    input_tensor = preprocess_image(rgb_img, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    grid = given.size // PATCH

    def reshape_transform(tensor: torch.Tensor) -> torch.Tensor:
        return vit_reshape_transform(tensor, height=grid, width=grid)

    more = {"ablation_layer": AblationLayerVit()} if given.method == "ablationcam" else {}
    target_layers = [model.blocks[-1].norm1]
    with METHODS[given.method](model, target_layers, reshape_transform=reshape_transform, **more) as cam:
        cam.batch_size = 32
        grayscale_cam = cam(input_tensor=input_tensor, targets=None)[0, :]
        category = int(cam.outputs.argmax())

    Image.fromarray(show_cam_on_image(rgb_img, grayscale_cam, use_rgb=True)).save(given.output)
    known = "" if given.pretrained or given.weights else ", random weights"
    print(f"{given.method} of {given.model}{known}, class {category}, {grid} x {grid} patches: {given.output}")
    return grayscale_cam


if __name__ == "__main__":
    main()
