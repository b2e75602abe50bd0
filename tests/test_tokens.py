"""Token grids and class tokens."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastcam import CAM
from fastcam.model.tokens import Layout, find_layout


class SelfAttention(nn.Module):
    """One head."""

    def __init__(self, width):
        super().__init__()
        self.mix = nn.Linear(width, 3 * width)

    def forward(self, x):
        q, k, v = self.mix(x).chunk(3, -1)
        return (q @ k.mT).softmax(-1) @ v


class Block(nn.Module):
    """Registers its attention before the norm that it reads, as Hugging Face's layers do."""

    def __init__(self, width):
        super().__init__()
        self.attention, self.norm = SelfAttention(width), nn.LayerNorm(width)

    def forward(self, x):
        return x + self.attention(self.norm(x))


class Tokens(nn.Module):
    """Patches and a class token, which is all that the head reads."""

    def __init__(self, width=8):
        super().__init__()
        self.embed = nn.Conv2d(3, width, 4, 4)
        self.embeddings = nn.Module()
        self.embeddings.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.blocks = nn.ModuleList([Block(width), Block(width)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 4)

    def forward(self, x):
        patches = self.embed(x).flatten(2).mT
        x = torch.cat([self.embeddings.cls_token.expand(len(patches), -1, -1), patches], 1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def test_class_tokens_are_explained_where_patches_still_count():
    torch.manual_seed(0)
    model, x = Tokens().eval(), torch.rand(2, 3, 24, 32)
    explanation = CAM(model, "hirescam").explain(x)
    assert explanation.layer == ["blocks.1.norm"]
    assert explanation.raw.shape == (2, 6, 8)
    assert float(explanation.raw.abs().amax()) > 0
    with pytest.warns(UserWarning, match="reads the class token alone"):
        assert not CAM(model, "gradcam", "norm").explain(x).raw.any()


@pytest.mark.parametrize(
    ("shape", "size", "layout"),
    [
        ((2, 512, 7, 7), (224, 224), Layout("maps", (7, 7))),
        ((2, 7, 7, 768), (224, 224), Layout("last", (7, 7))),
        ((2, 8, 5, 7), (20, 28), Layout("maps", (5, 7))),
        ((2, 5, 7, 8), (20, 28), Layout("last", (5, 7))),
        ((1, 197, 192), (224, 224), Layout("tokens", (14, 14), 1)),
        ((1, 198, 192), (224, 224), Layout("tokens", (14, 14), 2)),
        ((1, 201, 192), (224, 224), Layout("tokens", (14, 14), 5)),
        ((1, 196, 192), (224, 224), Layout("tokens", (14, 14), 0)),
        ((1, 33, 64), (64, 128), Layout("tokens", (4, 8), 1)),
        ((1, 512, 1, 1), (224, 224), None),
        ((1, 1000), (224, 224), None),
    ],
)
def test_layouts(shape, size, layout):
    assert find_layout(shape, size) == layout
    if layout is not None:
        output = torch.randn(shape)
        maps = layout.maps(output)
        assert maps.shape[-2:] == layout.size
        assert torch.equal(layout.output(maps, output), output)
