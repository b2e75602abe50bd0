"""What a Faster R-CNN's boxes stand on: EigenCAM and Ablation-CAM of a detector, written for pytorch-grad-cam.

    pip install 'fastcam[examples]'
    python examples/gradcam_detection.py --pretrained --threshold 0.9
    python examples/gradcam_detection.py --pretrained --method ablationcam --ratio 0.1

The scores of boxes have no gradient worth having, so both methods do without. The layer is the whole backbone, whose
output is a dict of pyramid levels; `fasterrcnn_reshape_transform` joins them into one stack of maps. The target asks
how well the boxes found at first are still found. The map is shown as it is, and scaled anew inside each box.
Without `--pretrained` the detector is random: its boxes mean nothing, which shows the calls and runs offline.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from fastcam.compat.pytorch_grad_cam import AblationCAM, EigenCAM
from fastcam.compat.pytorch_grad_cam.ablation_layer import AblationLayerFasterRCNN
from fastcam.compat.pytorch_grad_cam.utils.image import scale_cam_image, show_cam_on_image
from fastcam.compat.pytorch_grad_cam.utils.model_targets import FasterRCNNBoxScoreTarget
from fastcam.compat.pytorch_grad_cam.utils.reshape_transforms import fasterrcnn_reshape_transform

BOXES = 3  # at most


def inside(boxes: np.ndarray, grayscale_cam: np.ndarray) -> np.ndarray:
    """The map scaled to [0, 1] inside each box on its own, zero outside; where boxes overlap the larger value."""
    result = np.zeros_like(grayscale_cam)
    for x1, y1, x2, y2 in boxes:
        part = scale_cam_image(grayscale_cam[None, y1:y2, x1:x2].copy())[0]
        result[y1:y2, x1:x2] = np.maximum(result[y1:y2, x1:x2], part)
    return result


def main(arguments: Sequence[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Write two overlays; the map, and the map inside the boxes, each (H, W)."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--image", default=str(files("fastcam.data") / "coffee.jpg"))
    parser.add_argument("--method", choices=("eigencam", "ablationcam"), default="eigencam")
    parser.add_argument("--ratio", type=float, default=0.01, help="of channels to ablate (default 0.01)")
    parser.add_argument("--threshold", type=float, default=0.0, help=f"of scores; the best {BOXES} boxes above it")
    parser.add_argument("--side", type=int, default=192, help="pixels of the shorter side (default 192)")
    parser.add_argument("--pretrained", action="store_true", help="download torchvision's COCO weights")
    parser.add_argument("--output", type=Path, default=Path("detection_cam"), help="folder (default detection_cam)")
    given = parser.parse_args(arguments)

    torch.manual_seed(0)
    model = fasterrcnn_resnet50_fpn(
        weights="DEFAULT" if given.pretrained else None,
        weights_backbone=None,
        min_size=given.side,
        rpn_post_nms_top_n_test=100,
        box_score_thresh=given.threshold,
        box_detections_per_img=BOXES,
    ).eval()
    picture = Image.open(given.image).convert("RGB")
    picture.thumbnail((2 * given.side, given.side))
    rgb_img = np.float32(picture) / 255
    input_tensor = torch.from_numpy(rgb_img).permute(2, 0, 1)[None]
    with torch.no_grad():
        found = model(input_tensor)[0]
    boxes = np.int32(found["boxes"].numpy())
    boxes = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
    if not len(boxes):
        raise SystemExit(f"no box above {given.threshold}; lower --threshold")

    targets = [FasterRCNNBoxScoreTarget(labels=found["labels"].numpy(), bounding_boxes=found["boxes"].numpy())]
    layer = [model.backbone]
    if given.method == "eigencam":
        cam = EigenCAM(model, layer, reshape_transform=fasterrcnn_reshape_transform)
    else:
        cam = AblationCAM(
            model,
            layer,
            reshape_transform=fasterrcnn_reshape_transform,
            ablation_layer=AblationLayerFasterRCNN(),
            ratio_channels_to_ablate=given.ratio,
        )
    grayscale_cam = cam(input_tensor, targets=targets)[0, :]

    given.output.mkdir(parents=True, exist_ok=True)
    boxed = inside(boxes, grayscale_cam)
    for name, mask in (("whole", grayscale_cam), ("inside", boxed)):
        overlay = Image.fromarray(show_cam_on_image(rgb_img, mask, use_rgb=True))
        for box in boxes:
            ImageDraw.Draw(overlay).rectangle([int(value) for value in box], outline="white")
        overlay.save(given.output / f"{name}.png")
    known = "" if given.pretrained else ", random weights"
    print(f"{given.method} of {len(boxes)} boxes of Faster R-CNN{known}: two overlays in {given.output}")
    return grayscale_cam, boxed


if __name__ == "__main__":
    main()
