"""`SESS`: maps of windows that slide over the image at several scales, joined in one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fastcam import CAM, Sess
from fastcam.compat.pytorch_grad_cam.asking import Asked, Inputs, asked, class_of, predicted
from fastcam.compat.pytorch_grad_cam.base_cam import BaseCAM
from fastcam.compat.pytorch_grad_cam.drawing import engine_serves, overridden
from fastcam.compat.pytorch_grad_cam.gradients import GradCAM
from fastcam.compat.pytorch_grad_cam.recorded import in_numpy
from fastcam.compat.pytorch_grad_cam.utils.image import scale_cam_image
from fastcam.meta.windows import gaussian_blur, place
from fastcam.model.capture import evaluation
from fastcam.model.outputs import select, widen

BLUR = (11, 5.0)
ROUNDING = 1e-6  # where a map has its minimum some cells are a little above it, and would count as seen


class SESS:
    """The mean of the maps of windows times their scores, each at its place: Tursun 2022, arXiv:2207.01769.

    Args:
        model: see `BaseCAM`.
        target_layers: see `BaseCAM`.
        reshape_transform: see `BaseCAM`.
        base_method: the class that draws a window's map.
        scales: pixels of the image's shorter side at each scale; None is `num_scales` of them.
        num_scales: from the window's size on.
        scale_step_ratio: by this share of the window's size.
        window_size: pixels of a window's side; None is the image's shorter side.
        step_size: pixels between windows; None is the window's side.
        pre_filter_ratio: the share of windows, those that score lowest, that are left out.
        theta: what values must exceed to count in the mean.
        pool: "mean" or "max".
        smooth: whether to blur the joined map, 11 x 11, sigma 5.
        use_softmax_scores: whether a window's score is the target of the softmax of the outputs, or of the outputs.
        batch_size: windows of a forward.
        **kwargs: of the base method.

    Raises:
        ValueError: a value out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Any], Tensor] | None = None,
        base_method: Callable[..., Any] = GradCAM,
        scales: Sequence[int] | None = None,
        num_scales: int = 12,
        scale_step_ratio: float = 2.0 / 7.0,
        window_size: int | None = None,
        step_size: int | None = None,
        pre_filter_ratio: float = 0.0,
        theta: float = 0.0,
        pool: str = "mean",
        smooth: bool = True,
        use_softmax_scores: bool = True,
        batch_size: int = 32,
        **kwargs: Any,
    ) -> None:
        if num_scales < 1:
            raise ValueError(f"num_scales must be at least 1, got {num_scales!r}")
        self.base_cam = base_method(model, target_layers, reshape_transform, **kwargs)
        self.model = self.base_cam.model
        self.device = self.base_cam.device
        self.scales = scales
        self.num_scales = num_scales
        self.scale_step_ratio = scale_step_ratio
        self.window_size = window_size
        self.step_size = step_size
        self.pre_filter_ratio = pre_filter_ratio
        self.theta = theta
        self.pool = pool
        self.smooth = smooth
        self.use_softmax_scores = use_softmax_scores
        self.batch_size = batch_size
        self.outputs: Any = None
        self._plan(224, 224)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As `forward`."""
        return self.forward(*args, **kwargs)

    def get_scales(self, window_size: int) -> list[int]:
        """Pixels of the image's shorter side at each scale."""
        if self.scales is not None:
            return list(self.scales)
        return [window_size + i * round(window_size * self.scale_step_ratio) for i in range(self.num_scales)]

    def forward(
        self, input_tensor: Tensor, targets: Any = None, eigen_smooth: bool = False, *, as_tensor: bool | None = None
    ) -> Any:
        """The maps of a batch; arguments as `BaseCAM.__call__`.

        Returns:
            (B, H, W)
        """
        cam = self.base_cam
        inputs = Inputs.of(input_tensor, (), None, cam.device)
        if inputs.args or inputs.kwargs:
            raise TypeError("SESS cuts windows out of images alone, and the model has further inputs; use GradCAM")
        images = inputs.images
        wanted = asked(targets, len(images))
        maps = self._in_engine(images, wanted, eigen_smooth)
        if maps is None:
            maps = self._by_windows(images, wanted, eigen_smooth)
        tensors = getattr(cam, "as_tensor", False) if as_tensor is None else as_tensor
        return maps if tensors else in_numpy(maps)

    def _plan(self, height: int, width: int) -> Sess:
        side = self.window_size or min(height, width)
        return Sess(
            "gradcam",
            scales=self.get_scales(side),
            window=side,
            stride=self.step_size,
            pre_filter=self.pre_filter_ratio,
            theta=self.theta,
            fusion=self.pool,
            blur=self.smooth,
        )

    def _in_engine(self, images: Tensor, wanted: Asked, eigen_smooth: bool) -> Tensor | None:
        """By the engine, which takes map and score from one forward; None where its scores would be other ones."""
        cam = self.base_cam
        if not isinstance(cam, BaseCAM) or overridden(cam, "__call__", "forward", "aggregate_multi_layers"):
            return None
        if not engine_serves(cam, eigen_smooth) or not cam._clipped or len(cam.target_layers) != 1:
            return None
        classes = all(class_of(one) is not None for column in wanted.columns or [] for one in column)
        specs = wanted.specs()
        if not self.use_softmax_scores or not classes or len(specs) > 1 or cam._method_is_at_input:
            return None
        height, width = images.shape[-2:]
        plan = self._plan(height, width).changed({"base": cam._method})
        engine = CAM(
            cam.model,
            plan,
            cam.target_layers,
            batch_size=self.batch_size,
            output=cam._output,
            reshape=cam.activations_and_grads.reshape_transform,
            combine="eigen" if eigen_smooth and not cam._gives_map else "sum",
            **cam._options(),
        )
        with torch.no_grad():
            found = engine.explain(images, target=specs[0])
        self.outputs = found.logits
        return found.maps

    def _by_windows(self, images: Tensor, wanted: Asked, eigen_smooth: bool) -> Tensor:
        """Window by window, by the base method's own call."""
        output = getattr(self.base_cam, "_output", None)
        with evaluation(self.model), torch.no_grad():
            self.outputs = select(self.model(images), output)
        columns = [predicted(self.outputs)] if wanted.columns is None else wanted.columns
        maps = torch.stack(
            [
                torch.stack(
                    [self._of_image(images[b : b + 1], one, eigen_smooth, output) for b, one in enumerate(column)]
                )
                for column in columns
            ],
            1,
        )
        maps = gaussian_blur(maps, *BLUR) if self.smooth else maps
        maps = scale_cam_image(maps.flatten(0, 1)).view(maps.shape)
        return maps[:, 0] if wanted.single else maps

    def _of_image(self, image: Tensor, target: Any, eigen_smooth: bool, output: Any) -> Tensor:
        height, width = image.shape[-2:]
        side = self.window_size or min(height, width)
        windows = self._plan(height, width).windows(height, width)
        cut = []
        for size in dict.fromkeys(window.size for window in windows):
            same, shrinks = size == (height, width), size[0] < height
            scaled = image if same else interpolate(image, size, mode="bilinear", antialias=shrinks)
            for window in (one for one in windows if one.size == size):
                cut.append(scaled[:, :, window.top : window.top + side, window.left : window.left + side])
        patches = torch.cat(cut)
        scores = torch.cat([self._scores(rows, target, output) for rows in patches.split(self.batch_size)]).clamp_min(0)
        order = scores.argsort(stable=True)[int(len(scores) * self.pre_filter_ratio) :]
        top = scores[order[-1]]
        weights = scores / top if top > 0 else torch.ones_like(scores)
        total, counts = image.new_zeros(height, width), image.new_zeros(height, width)
        for rows in order.split(self.batch_size):
            given = self.base_cam(patches[rows], [target] * len(rows), eigen_smooth=eigen_smooth)
            for index, own in zip(rows.tolist(), torch.as_tensor(given).to(image), strict=True):
                across, along, values = place(own[None] * weights[index], windows[index], (height, width))
                at = (across, along)
                if self.pool == "max":
                    total[at] = total[at].maximum(values[0])
                    continue
                above = values[0] > self.theta + ROUNDING
                total[at] += values[0] * above
                counts[at] += above
        return total if self.pool == "max" else total / counts.clamp_min(1)

    def _scores(self, rows: Tensor, target: Any, output: Any) -> Tensor:
        with evaluation(self.model), torch.no_grad():
            outputs = select(self.model(rows), output)
            outputs = widen(outputs).softmax(-1) if self.use_softmax_scores else outputs
            return target(outputs).float().flatten()

    def __enter__(self) -> SESS:
        """The object itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Forget activations and gradients; an exception goes on."""
        self.base_cam.activations_and_grads.release()
