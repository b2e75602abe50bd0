"""What makes a network call pixels a class: Grad-CAM of semantic segmentation, written for pytorch-grad-cam.

    pip install 'fastcam[examples]'
    python examples/gradcam_segmentation.py --pretrained --category 8

The target is the sum of a class's scores over the pixels that the network gave to that class. torchvision's networks
return a dict; a wrapper picks what is to be explained. Without `--pretrained` or `--weights` the network is random,
which shows the calls and runs offline, but explains nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

from fastcam.compat.pytorch_grad_cam import GradCAM, SegEigenCAM
from fastcam.compat.pytorch_grad_cam.utils.image import preprocess_image, show_cam_on_image
from fastcam.compat.pytorch_grad_cam.utils.model_targets import SemanticSegmentationTarget

METHODS = {"gradcam": GradCAM, "segeigencam": SegEigenCAM}


class Scores(nn.Module):
    """The scores (B, classes, H, W) of a segmentation network that returns them under "out"."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, classes, H, W)"""
        return self.model(x)["out"]


def main(arguments: Sequence[str] | None = None) -> np.ndarray:
    """Write the overlay; the map (H, W)."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--image", default=str(files("fastcam.data") / "chelsea.jpg"))
    parser.add_argument("--method", choices=METHODS, default="gradcam")
    parser.add_argument("--category", type=int, default=None, help="of Pascal VOC's 21, 8 is cat; else the commonest")
    parser.add_argument("--size", type=int, default=128, help="pixels of each side (default 128)")
    parser.add_argument("--pretrained", action="store_true", help="download torchvision's weights")
    parser.add_argument("--weights", help="a file with the model's state dict")
    parser.add_argument("--output", type=Path, default=Path("segmentation_cam.png"))
    given = parser.parse_args(arguments)

    torch.manual_seed(0)
    weights = "DEFAULT" if given.pretrained else None
    model = deeplabv3_mobilenet_v3_large(weights=weights, weights_backbone=None)
    if given.weights:
        model.load_state_dict(torch.load(given.weights, map_location="cpu", weights_only=True))
    model = Scores(model).eval()
    picture = Image.open(given.image).convert("RGB").resize((given.size, given.size))
    rgb_img = np.float32(picture) / 255
    input_tensor = preprocess_image(rgb_img, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])

    with torch.no_grad():
        labels = model(input_tensor)[0].argmax(0)
    category = int(labels.flatten().mode().values) if given.category is None else given.category
    mask = np.float32((labels == category).numpy())
    if not mask.any():
        raise SystemExit(f"no pixel was given to class {category}; found: {sorted(set(labels.flatten().tolist()))}")

    targets = [SemanticSegmentationTarget(category, mask)]
    target_layers = [model.model.backbone["16"]]
    with METHODS[given.method](model=model, target_layers=target_layers) as cam:
        grayscale_cam = cam(input_tensor=input_tensor, targets=targets)[0, :]

    Image.fromarray(show_cam_on_image(rgb_img, grayscale_cam, use_rgb=True)).save(given.output)
    known = "" if given.pretrained or given.weights else ", random weights"
    print(f"{given.method} of class {category}, {mask.mean():.0%} of the pixels{known}: {given.output}")
    return grayscale_cam


if __name__ == "__main__":
    main()
