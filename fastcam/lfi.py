"""LFI-CAM's network: a backbone with a branch that learns which channels matter, and attends to their map."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from .methods.learned import attention, seen
from .model.capture import evaluation
from .model.forward import Forward
from .model.layers import One, find_one
from .model.network import Network
from .model.outputs import first_tensor, replace_first
from .model.tokens import find_layout, gives_features_last

CONVOLUTIONS = 4
SIZE = 224  # pixels of the image that finds the layer, where no example is given


class Importance(nn.Sequential):
    """Four 3x3 convolutions without bias, each with batch norm and ReLU; all have the layer's channels."""

    def __init__(self, channels: int) -> None:
        blocks = [
            [nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
            for _ in range(CONVOLUTIONS)
        ]
        super().__init__(*[module for block in blocks for module in block])
        for module in self:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class Attention(nn.Module):
    """A (1 + map): activations (B, C, h, w), and what the importance branch gave for them, to (B, C, h, w)."""

    def forward(self, a: Tensor, e: Tensor) -> Tensor:
        """Raise the activations where the map is high."""
        return a + a * attention(a, e)


class LFI(nn.Module):
    """logits = rest(A (1 + M)), M = relu(Σ_k w_k A_k) in [0, 1], w learned from the image: Lee 2021, arXiv:2105.00937.

    A is what a layer of the backbone gives; w = softmax(mean E), E a stack of convolutions over A times the image.
    Train it like any classifier, with cross-entropy on its logits; then `CAM(model, "lficam")` gives M. Every other
    method explains it too, by default at `attention`, where A (1 + M) is.

    The stack is that of the authors' ImageNet file; their other files leave out two of its four ReLUs. What follows the
    layer is the backbone's own, which the authors' files rebuild for each architecture.

    Args:
        backbone: a classifier, such as torchvision's or timm's; trained along, and not changed in structure.
        layer: its name or module; None is the last spatial map.
        classes: how many classes to tell apart; then a copy of the backbone gets a new last layer of this size. None
            keeps the backbone and its classes.
        example: images (B, C, H, W) that show which size the backbone takes; None is one of 224 x 224.

    Raises:
        TypeError: a backbone that is no `nn.Module`.
        ValueError: no such layer, no spatial map there, or no last layer to replace.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from fastcam import CAM, LFI
        >>> pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> net = LFI(nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), pool, nn.Linear(8, 5)), classes=2)
        >>> net(torch.rand(2, 3, 32, 32)).shape, CAM(net, "lficam")(torch.rand(2, 3, 32, 32)).shape
        (torch.Size([2, 2]), torch.Size([2, 32, 32]))
    """

    def __init__(
        self, backbone: nn.Module, layer: One | None = None, classes: int | None = None, example: Tensor | None = None
    ) -> None:
        super().__init__()
        forward = _watched(backbone, layer, example)
        self.layer = forward.captured.name
        self.backbone = backbone if classes is None else _with_classes(backbone, forward, classes)
        like = forward.captured.output
        self.importance = Importance(forward.captured.maps.shape[1]).to(device=like.device, dtype=like.dtype)
        self.attention = Attention()

    def forward(self, images: Tensor) -> Tensor:
        """The logits.

        Args:
            images: (B, C, H, W)

        Returns:
            What the backbone gives, (B, classes).
        """

        def attend(module: nn.Module, _: Any, output: Any) -> Any:
            tensor = first_tensor(output)
            assert tensor is not None
            # Without the batch, which may be a symbol, and without the cache, which torch.compile warns of.
            shape, size = (1, *tensor.shape[1:]), tuple(images.shape[2:])
            layout = find_layout.__wrapped__(shape, size, gives_features_last(module))
            if layout is None:
                raise ValueError(
                    f"layer {self.layer!r} has no spatial map for images of {'x'.join(map(str, images.shape[2:]))}; "
                    "give larger images, or attend to an earlier layer"
                )
            a = layout.maps(tensor)
            raised = self.attention(a, self.importance(seen(a, images)))
            return replace_first(output, layout.output(raised, tensor))

        handle = self.backbone.get_submodule(self.layer).register_forward_hook(attend)
        try:
            return self.backbone(images)
        finally:
            handle.remove()


def _watched(backbone: nn.Module, layer: One | None, example: Tensor | None) -> Forward:
    """A forward of the backbone at the layer."""
    network = Network(backbone)
    layer = find_one(network.model, layer, "LFI attends to one layer")
    if example is None:
        weight = next(backbone.parameters(), torch.empty(0))
        first = next((m for m in backbone.modules() if isinstance(m, nn.Conv2d)), None)
        channels = 3 if first is None else first.in_channels * (1 if first.groups == 1 else first.groups)
        example = torch.zeros(1, channels, SIZE, SIZE, device=weight.device, dtype=weight.dtype)
    with evaluation(network.model), torch.inference_mode(False), torch.no_grad():
        (forward,) = network.forward(example, (), {}, layer, grad=False)
    return forward


def _with_classes(backbone: nn.Module, forward: Forward, classes: int) -> nn.Module:
    """A copy of the backbone with a new last layer."""
    if not isinstance(classes, int) or isinstance(classes, bool) or classes < 1:
        raise ValueError(f"classes must be a positive int or None, got {classes!r}")
    outputs = forward.logits.shape[1] if isinstance(forward.logits, Tensor) and forward.logits.dim() == 2 else None
    last = [
        (name, module)
        for name, module in backbone.named_modules()
        if (isinstance(module, nn.Linear) and module.out_features == outputs)
        or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.out_channels == outputs)
    ]
    if not last or not last[-1][0]:
        raise ValueError(
            f"{type(backbone).__name__} has no linear layer of {outputs} outputs to replace; build it with {classes} "
            "classes and leave classes= out"
        )
    name, old = last[-1]
    copied = copy.deepcopy(backbone)
    bias = old.bias is not None
    if isinstance(old, nn.Linear):
        new: nn.Module = nn.Linear(old.in_features, classes, bias)
    else:
        assert isinstance(old, nn.Conv2d)
        new = nn.Conv2d(old.in_channels, classes, 1, bias=bias)
    parent, _, child = name.rpartition(".")
    setattr(copied.get_submodule(parent), child, new.to(device=old.weight.device, dtype=old.weight.dtype))
    return copied
