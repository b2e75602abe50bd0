"""What torchcam's metrics share: a batch is scored and explained, and sums of what comes of it stay on the device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from .choices import Callables, Classes, classes_of
from .methods._utils import _model_eval
from .methods.core import OutputTarget, _resolve_targets

INTERPOLATIONS = {1: "linear", 2: "bilinear", 3: "trilinear"}  # by the number of spatial axes

Choice = Classes | Callables
ClassIndex = int | list[int] | None
Targets = OutputTarget | list[OutputTarget] | None


class Extractor(Protocol):
    """What a metric asks of an extractor; torchcam's own classes have it too."""

    @property
    def model(self) -> nn.Module:
        """The network whose outputs are scored."""
        ...

    def __call__(self, class_idx: ClassIndex = None, scores: Any = None, **kwargs: Any) -> list[Tensor]:
        """Maps (N, h, w) of the last forward, one tensor a layer."""
        ...

    def fuse_cams(self, cams: list[Tensor]) -> Tensor:
        """One map (N, h, w) of several layers'."""
        ...

    def _hooks_off(self) -> contextlib.AbstractContextManager[None]: ...


class Sums:
    """Scores a batch with the extractor's hooks live, explains it, and adds up what a subclass makes of the maps."""

    def __init__(self, cam_extractor: Extractor, logits_fn: Callable[[Any], Any] | None = None) -> None:
        self.cam_extractor = cam_extractor
        self.logits_fn = logits_fn
        self.reset()

    def update(self, input_tensor: Tensor, class_idx: ClassIndex = None, *, targets: Targets = None) -> None:
        """Add a batch.

        Args:
            input_tensor: (N, C, *space) as the model takes it.
            class_idx: one class for all, one an image, or None for the predicted ones.
            targets: a callable from one image's output to its score, for all, or one an image; in place of classes.

        Raises:
            ValueError: both classes and targets, a class out of range, another number of them than images, or an
                input of more than three spatial axes or of none.
            TypeError: classes or targets of another kind.
        """
        if targets is not None and class_idx is not None:
            raise ValueError("provide either class_idx or targets, not both")
        with _model_eval(self.cam_extractor.model), torch.inference_mode(False), torch.enable_grad():
            x = input_tensor.clone() if input_tensor.is_inference() else input_tensor
            output = self._output(x)
            choice: Choice
            if targets is None:
                given, choice = classes_of(output, class_idx)
                maps = self.cam_extractor(given, output)
            else:
                choice = Callables(_resolve_targets(targets, len(x)))
                maps = self.cam_extractor(scores=output, targets=choice.functions)
            cam = self.cam_extractor.fuse_cams(maps).detach()
            scores, x = choice(output).detach(), x.detach()
            del output  # and with it the graph
            broken = cam.flatten(1).isnan().any(1)
            cam = resized(cam.masked_fill(broken.view(-1, *[1] * (cam.dim() - 1)), 0), tuple(x.shape[2:]))
            with self.cam_extractor._hooks_off(), torch.inference_mode():
                own = self._measure(x, cam, scores, choice)
                # On the device of the scores, in double precision where it has that; NaN maps count as nothing.
                columns, left_out = torch.stack([*own, torch.ones_like(own[0])], 1), broken.to(own[0].device)
                found = torch.cat([columns.where(~left_out[:, None], 0).sum(0), left_out.sum()[None].to(columns)])
        with torch.inference_mode(False):
            self._found = found.clone() if self._found is None else self._found.to(found.device) + found

    def reset(self) -> None:
        """Forget all that was added."""
        self._found: Tensor | None = None

    @property
    def total(self) -> int:
        """Images that were counted."""
        return round(self._sum(-2))

    @property
    def nan_count(self) -> int:
        """Images that were left out, for their map holds NaN."""
        return round(self._sum(-1))

    def _sum(self, which: int) -> float:
        return 0.0 if self._found is None else float(self._found[which])

    def _means(self) -> list[float]:
        if self.total == 0:
            raise AssertionError("you need to update the metric before getting the summary")
        *sums, total, _ = [] if self._found is None else self._found.tolist()
        return [one / total for one in sums]

    def _output(self, x: Tensor) -> Any:
        output = self.cam_extractor.model(x)
        return output if self.logits_fn is None else self.logits_fn(output)

    def _measure(self, x: Tensor, cam: Tensor, scores: Tensor, choice: Choice) -> list[Tensor]:
        """What is added up, (N,) each.

        Args:
            x: (N, C, *space)
            cam: (N, *space)
            scores: (N,) of x.
            choice: from the outputs of some rows to their scores.
        """
        raise NotImplementedError


def wide(scores: Tensor) -> Tensor:
    """In double precision, or in single where the device has no other."""
    return scores.to(torch.float32 if scores.device.type == "mps" else torch.float64)


def resized(cam: Tensor, size: tuple[int, ...]) -> Tensor:
    """Maps (N, *cells) at the input's size, by linear interpolation along each axis, in float32 at least."""
    if len(size) not in INTERPOLATIONS:
        raise ValueError(f"only 1D, 2D, and 3D spatial inputs are supported, got {len(size)} spatial axes")
    maps = cam.to(torch.promote_types(cam.dtype, torch.float32))[:, None]
    return interpolate(maps, size, mode=INTERPOLATIONS[len(size)], align_corners=False)[:, 0]
