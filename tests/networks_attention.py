"""Small transformers of the kinds there are, each with its steps in float64 for `formulas_attention.py`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from tests.formulas_attention import Block, Steps
from tests.networks import CLASSES, SIZE, settle
from tests.networks_modules import Vit


class Transformer(NamedTuple):
    module: nn.Module
    steps: Steps
    size: tuple[int, int]

    def images(self, batch: int = 2) -> Tensor:
        return torch.randn(batch, 3, *self.size, generator=torch.Generator().manual_seed(7))


def one(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A function of a batch, of one."""
    return lambda x: function(x[None])[0]


def made(module: nn.Module, seed: int, size: tuple[int, int], steps: Callable[[Any], Steps]) -> Transformer:
    settle(module, seed)
    generator = torch.Generator().manual_seed(seed)
    for value in module.parameters():  # class tokens, positions and registers
        if value.dim() == 3:
            value.data.normal_(0, 0.5, generator=generator)
    return Transformer(module, steps(copy.deepcopy(module).double()), size)


def vit() -> Transformer:
    """Plain softmax, one head, class token."""

    def steps(m: Any) -> Steps:
        def embed(x: Tensor) -> Tensor:
            patches = m.patch_embed(x).flatten(2).transpose(1, 2)
            return torch.cat([m.cls_token, patches], 1) + m.pos_embed

        blocks = [Block(lambda z, b=b: b.qkv(b.norm1(z)), b.proj, lambda z, b=b: b.mlp(b.norm2(z))) for b in m.blocks]
        return Steps(one(embed), blocks, 1, lambda z: m.head(m.norm(z)[0]), (5, 7), 1)

    return made(Vit(), 13, SIZE, steps)


def torchvision_vit() -> Transformer:
    """nn.MultiheadAttention, which asks for no weights: the fused kernel."""

    def steps(m: Any) -> Steps:
        def block(b: Any) -> Block:
            a = b.self_attention
            return Block(
                lambda z: functional.linear(b.ln_1(z), a.in_proj_weight, a.in_proj_bias),
                a.out_proj,
                lambda z: b.mlp(b.ln_2(z)),
            )

        def embed(x: Tensor) -> Tensor:
            return torch.cat([m.class_token, m._process_input(x)], 1) + m.encoder.pos_embedding

        blocks = [block(b) for b in m.encoder.layers]
        return Steps(one(embed), blocks, 2, lambda z: m.heads(m.encoder.ln(z)[0]), (4, 4), 1)

    return made(torchvision.models.VisionTransformer(32, 8, 3, 2, 12, 24, num_classes=CLASSES), 21, (32, 32), steps)


def timm_steps(m: Any) -> Steps:
    def block(b: Any) -> Block:
        return Block(lambda z: b.attn.qkv(b.norm1(z)), b.attn.proj, lambda z: b.mlp(b.norm2(z)))

    def embed(x: Tensor) -> Tensor:
        return m._pos_embed(m.patch_embed(x))

    def end(z: Tensor) -> Tensor:
        return m.forward_head(m.norm(z[None]))[0]

    token = m.cls_token is not None
    return Steps(one(embed), [block(b) for b in m.blocks], 3, end, (5, 7), m.num_prefix_tokens, token)


def timm_vit(**options: Any) -> nn.Module:
    return timm.models.VisionTransformer(SIZE, 4, embed_dim=12, depth=3, num_heads=3, num_classes=CLASSES, **options)


def timm_registers() -> Transformer:
    """scaled_dot_product_attention, class token and registers."""
    return made(timm_vit(reg_tokens=2), 22, SIZE, timm_steps)


def timm_pooled() -> Transformer:
    """No prefix token: the mean of the cells decides."""
    return made(timm_vit(class_token=False, global_pool="avg"), 23, SIZE, timm_steps)


class HeadsOfItsOwn(nn.Module):
    """Attention as Hugging Face writes it: separate q, k, v, a softmax module, its output in a tuple."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(12), nn.LayerNorm(12)
        self.query, self.key, self.value, self.proj = (nn.Linear(12, 12) for _ in range(4))
        self.softmax, self.fused = nn.Softmax(dim=-1), fused
        self.mlp = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))

    def qkv(self, z: Tensor) -> Tensor:
        z = self.norm1(z)
        return torch.cat([self.query(z), self.key(z), self.value(z)], -1)

    def forward(self, z: Tensor) -> tuple[Tensor, None]:
        q, k, v = (part.unflatten(-1, (2, 6)).transpose(1, 2) for part in self.qkv(z).chunk(3, -1))
        if self.fused:
            mixed = functional.scaled_dot_product_attention(query=q, key=k, value=v, scale=6**-0.5, is_causal=False)
        else:
            mixed = self.softmax(q @ k.transpose(-1, -2) / 6**0.5).matmul(v)
        z = z + self.proj(mixed.transpose(1, 2).flatten(2))
        return z + self.mlp(self.norm2(z)), None


class Hugging(nn.Module):
    """A dict of logits; the blocks in a ModuleList; two prefix tokens, of which the first decides."""

    def __init__(self, fused: bool = False) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, 4)
        self.cls_token, self.distillation = (nn.Parameter(torch.zeros(1, 1, 12)) for _ in range(2))
        self.layer = nn.ModuleList(HeadsOfItsOwn(fused) for _ in range(2))
        self.classifier = nn.Linear(12, CLASSES)

    def embed(self, x: Tensor) -> Tensor:
        prefix = torch.cat([self.cls_token, self.distillation], 1).expand(len(x), -1, -1)
        return torch.cat([prefix, self.patches(x).flatten(2).transpose(1, 2)], 1)

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        z = self.embed(pixel_values)
        for layer in self.layer:
            z = layer(z)[0]
        return {"logits": self.classifier(z[:, 0])}


def hugging(fused: bool = False) -> Transformer:
    def steps(m: Any) -> Steps:
        blocks = [Block(b.qkv, b.proj, lambda z, b=b: b.mlp(b.norm2(z))) for b in m.layer]
        return Steps(one(m.embed), blocks, 2, lambda z: m.classifier(z[0]), (5, 7), 2)

    return made(Hugging(fused), 24, SIZE, steps)


BUILDERS: dict[str, Callable[[], Transformer]] = {
    "vit": vit,
    "torchvision": torchvision_vit,
    "timm_registers": timm_registers,
    "timm_pooled": timm_pooled,
    "hugging": hugging,
    "hugging_fused": lambda: hugging(fused=True),
}
