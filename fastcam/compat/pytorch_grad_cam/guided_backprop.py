"""Guided backpropagation, Springenberg 2015, arXiv:1412.6806: the model's modules stay in their places."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastcam import CAM


class GuidedBackpropReLU(torch.autograd.Function):
    """max(0, x), whose backward lets through what is positive, where x was."""

    @staticmethod
    def forward(ctx: Any, input_img: Tensor) -> Tensor:
        """Any shape."""
        ctx.save_for_backward(input_img)
        return input_img.clamp_min(0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """The gradient of what went in."""
        (seen,) = ctx.saved_tensors
        return grads[0].clamp_min(0) * (seen > 0)


class GuidedBackpropReLUasModule(nn.Module):
    """`GuidedBackpropReLU` as a layer."""

    def forward(self, input_img: Tensor) -> Tensor:
        """Any shape."""
        return GuidedBackpropReLU.apply(input_img)  # type: ignore[no-any-return]


class GuidedBackpropReLUModel:
    """Guided backpropagation of one image.

    The rule holds for every ReLU that runs, modules and functions, ReLU6 and clamps at 0 too. The model is explained in
    evaluation mode and left as it was; the images get no `.grad`.

    Args:
        model: maps images to (B, classes).
        device: where to, if it is not there; None leaves it where it is.
    """

    def __init__(self, model: nn.Module, device: torch.device | str | None = None) -> None:
        self.model = model
        parameter = next(model.parameters(), None)
        here = torch.device("cpu") if parameter is None else parameter.device
        self.device = here if device is None else torch.device(device)
        if self.device.type != here.type or self.device.index not in (None, here.index):
            self.model.to(self.device)

    def __call__(self, input_img: Tensor, target_category: Any = None, *, as_tensor: bool = False) -> Any:
        """The gradient of a class's score at the first image.

        Args:
            input_img: (B, C, H, W) as the model takes them.
            target_category: the class; None is the one predicted for the first image.
            as_tensor: give a tensor on the model's device.

        Returns:
            (H, W, C), an array.

        Raises:
            ValueError: a model in which no ReLU runs; a class out of range.
        """
        found = CAM(self.model, "guidedbackprop").explain(input_img[:1].to(self.device), target=target_category)
        assert found.attributions is not None
        gradient = found.attributions[0].permute(1, 2, 0)
        return gradient if as_tensor else gradient.float().cpu().numpy()

    def forward(self, input_img: Tensor) -> Any:
        """What the model gives."""
        return self.model(input_img)

    def recursive_replace_relu_with_guidedrelu(self, module_top: nn.Module) -> None:
        """Swaps the ReLU modules below `module_top` for guided ones, for a training loop of one's own."""
        for name, child in module_top.named_children():
            self.recursive_replace_relu_with_guidedrelu(child)
            if type(child).__name__ == "ReLU":
                guided = GuidedBackpropReLUasModule()
                object.__setattr__(guided, "replaced", child)  # not a submodule: it is out of the model meanwhile
                module_top._modules[name] = guided

    def recursive_replace_guidedrelu_with_relu(self, module_top: nn.Module) -> None:
        """Puts the modules that were swapped back in their places."""
        for name, child in module_top.named_children():
            self.recursive_replace_guidedrelu_with_relu(child)
            if isinstance(child, GuidedBackpropReLUasModule):
                module_top._modules[name] = getattr(child, "replaced", None) or nn.ReLU()
