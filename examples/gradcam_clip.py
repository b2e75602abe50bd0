"""Which part of a picture a text is like: class activation maps of CLIP's similarity, written for pytorch-grad-cam.

    pip install 'fastcam[examples]' transformers
    python examples/gradcam_clip.py --pretrained --prompts "a cat" "a cup of coffee"

A wrapper turns the two towers into a classifier whose classes are the prompts: images (B, 3, H, W) -> probabilities
(B, prompts). Then one batch holds the picture once a prompt, with one target each. Without `--pretrained` the towers
are small and random, and need no transformers: this shows the calls and runs offline, but explains nothing.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from fastcam.compat.pytorch_grad_cam import GradCAM
from fastcam.compat.pytorch_grad_cam.utils.image import preprocess_image, show_cam_on_image
from fastcam.compat.pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

NAME = "openai/clip-vit-base-patch32"
WIDTH, WORDS = 64, 512  # of the small towers


class SmallTowers(nn.Module):
    """softmax_p(10 cos(image, text_p)) of a small transformer and a bag of words, both random."""

    def __init__(self, prompts: Sequence[str], size: int) -> None:
        super().__init__()
        self.vision = timm.create_model(
            "vit_tiny_patch16_224", img_size=size, embed_dim=WIDTH, num_heads=2, depth=4, num_classes=WIDTH
        )
        self.words = nn.Embedding(WORDS, WIDTH)
        self.prompts = [torch.tensor([zlib.crc32(w.encode()) % WORDS for w in text.split()]) for text in prompts]
        self.layer = self.vision.blocks[-1].norm1

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, prompts)"""
        texts = torch.stack([self.words(ids).mean(0) for ids in self.prompts])
        return (10 * normalize(self.vision(images)) @ normalize(texts).T).softmax(1)


class Clip(nn.Module):
    """softmax_p of the similarity of an image to each prompt, by transformers' CLIP."""

    def __init__(self, prompts: Sequence[str]) -> None:
        super().__init__()
        from transformers import CLIPModel, CLIPTokenizerFast

        self.clip = CLIPModel.from_pretrained(NAME)
        self.texts = dict(CLIPTokenizerFast.from_pretrained(NAME)(list(prompts), return_tensors="pt", padding=True))
        self.layer = self.clip.vision_model.encoder.layers[-1].layer_norm1

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, prompts)"""
        return self.clip(pixel_values=images, **self.texts).logits_per_image.softmax(1)


def reshape_transform(tensor: Tensor) -> Tensor:
    """(B, 1 + n n, C) -> (B, C, n, n)"""
    side = int((tensor.shape[1] - 1) ** 0.5)
    return tensor[:, 1:].reshape(tensor.size(0), side, side, -1).permute(0, 3, 1, 2)


def main(arguments: Sequence[str] | None = None) -> np.ndarray:
    """Write one overlay a prompt; the maps (prompts, H, W)."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--image", default=str(files("fastcam.data") / "chelsea.jpg"))
    parser.add_argument("--prompts", nargs="+", default=["a cat", "a cup of coffee"])
    parser.add_argument("--size", type=int, default=224, help="pixels of each side (default 224)")
    parser.add_argument("--pretrained", action="store_true", help=f"download {NAME}")
    parser.add_argument("--output", type=Path, default=Path("clip_cam"), help="folder (default clip_cam)")
    given = parser.parse_args(arguments)

    torch.manual_seed(0)
    model = (Clip(given.prompts) if given.pretrained else SmallTowers(given.prompts, given.size)).eval()
    picture = Image.open(given.image).convert("RGB").resize((given.size, given.size))
    rgb_img = np.float32(picture) / 255
    one = preprocess_image(rgb_img, mean=[0.481, 0.458, 0.408], std=[0.269, 0.261, 0.276])
    input_tensor = one.repeat(len(given.prompts), 1, 1, 1)

    targets = [ClassifierOutputTarget(place) for place in range(len(given.prompts))]
    with GradCAM(model=model, target_layers=[model.layer], reshape_transform=reshape_transform) as cam:
        grayscale_cams = cam(input_tensor=input_tensor, targets=targets)
        shares = cam.outputs[0].tolist()

    given.output.mkdir(parents=True, exist_ok=True)
    for text, grayscale_cam in zip(given.prompts, grayscale_cams, strict=True):
        overlay = show_cam_on_image(rgb_img, grayscale_cam, use_rgb=True)
        Image.fromarray(overlay).save(given.output / f"{text.replace(' ', '_')}.png")
    known = "" if given.pretrained else " (random weights)"
    told = ", ".join(f"{text!r} {share:.2f}" for text, share in zip(given.prompts, shares, strict=True))
    print(f"gradcam of {told}{known}: {len(shares)} overlays in {given.output}")
    return grayscale_cams


if __name__ == "__main__":
    main()
