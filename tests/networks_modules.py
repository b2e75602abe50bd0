"""The small networks that are more than a chain of layers; `networks.py` says where each is cut."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 5


def stem(channels: int, last: nn.Module, stride: int = 4) -> nn.Sequential:
    """Image -> (channels, 20/stride, 28/stride)."""
    return nn.Sequential(
        nn.Conv2d(3, 8, stride, stride),
        nn.ReLU(),
        nn.Conv2d(8, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        last,
    )


class Inplace(nn.Module):
    """DenseNet: `functional.relu(features, inplace=True)` overwrites the layer's own output."""

    def __init__(self) -> None:
        super().__init__()
        self.features = stem(12, nn.Identity())[:-1]
        self.classifier = nn.Linear(12, CLASSES)

    def head(self, x: Tensor) -> Tensor:
        return self.features(x)

    def after(self, a: Tensor, x: Tensor) -> Tensor:
        return self.classifier(functional.relu(a, inplace=True).mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.head(x), x)


class Residual(nn.Module):
    """A residual block after the stem, then mean and Linear; any of its layers may be asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = stem(12, nn.ReLU())
        self.conv1 = nn.Conv2d(12, 12, 3, padding=1)
        self.conv2 = nn.Conv2d(12, 12, 3, padding=1)
        self.fc = nn.Linear(12, CLASSES)

    def finish(self, a: Tensor, branch: Tensor) -> Tensor:
        return self.fc(functional.relu(a + branch).mean((2, 3)))

    def after_stem(self, a: Tensor, x: Tensor) -> Tensor:
        return self.finish(a, self.conv2(functional.relu(self.conv1(a))))

    def to_branch(self, x: Tensor) -> Tensor:
        return self.conv1(self.stem(x))

    def after_branch(self, a: Tensor, x: Tensor) -> Tensor:
        return self.finish(self.stem(x), self.conv2(functional.relu(a)))

    def forward(self, x: Tensor) -> Tensor:
        return self.after_stem(self.stem(x), x)


class Swin(nn.Module):
    """Channels last: blocks over (B, h, w, C), LayerNorm, mean over the cells, Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, 4)
        self.block = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, CLASSES)

    def to_block(self, x: Tensor) -> Tensor:
        return self.block(self.patch(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def after(self, a: Tensor, x: Tensor) -> Tensor:
        return self.head(self.norm(a.permute(0, 2, 3, 1)).mean((1, 2)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.block(self.patch(x).permute(0, 2, 3, 1))).mean((1, 2)))


class Attention(nn.Module):
    """One transformer block over (B, 1 + cells, 12)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(12), nn.LayerNorm(12)
        self.qkv, self.proj = nn.Linear(12, 36), nn.Linear(12, 12)
        self.mlp = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))

    def forward(self, t: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(t)).chunk(3, dim=-1)
        t = t + self.proj(torch.softmax(q @ k.transpose(1, 2) / 12**0.5, -1) @ v)
        return t + self.mlp(self.norm2(t))


class Vit(nn.Module):
    """Patches, class token, positions, two blocks, and the class token alone decides."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 12, 4, 4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 12))
        self.pos_embed = nn.Parameter(torch.zeros(1, 36, 12))
        self.blocks = nn.Sequential(Attention(), Attention())
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, CLASSES)

    def tokens(self, x: Tensor) -> Tensor:
        patches = self.patch_embed(x).flatten(2).transpose(1, 2)
        t = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], 1) + self.pos_embed
        return self.blocks[0](t)

    def grid(self, x: Tensor) -> Tensor:
        return self.tokens(x)[:, 1:].transpose(1, 2).unflatten(2, (5, 7))

    def after(self, a: Tensor, x: Tensor) -> Tensor:
        t = torch.cat([self.tokens(x)[:, :1], a.flatten(2).transpose(1, 2)], 1)
        return self.head(self.norm(self.blocks[1](t))[:, 0])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks[1](self.tokens(x)))[:, 0])


class Twice(nn.Module):
    """The same ReLU before and after the last convolution, as in torchvision's residual blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = stem(12, nn.Identity())
        self.conv = nn.Conv2d(12, 12, 3, padding=1)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(12, CLASSES)

    def last(self, x: Tensor) -> Tensor:
        return self.relu(self.conv(self.relu(self.stem(x))))

    def after(self, a: Tensor, x: Tensor) -> Tensor:
        return self.fc(a.mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.last(x), x)


class Joined(nn.Module):
    """Two pictures and a number in, a map of scores out: (N, classes, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, padding=1)
        self.relu = nn.ReLU()
        self.head = nn.Linear(6, 8)

    def forward(self, x: Tensor, y: Tensor, scale: float = 1.0) -> Tensor:
        a = self.relu(self.conv(torch.cat([x, y], 1)))
        return (scale * self.head(a.mean((2, 3)))).unflatten(1, (4, 2))
