"""SESS: maps of windows that slide over the image at several scales, joined in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from fastcam.model.outputs import widen

from .base import Meta
from .call import Call
from .windows import Window, gaussian_blur, place, starts

SCALES = 12
STEP = 2 / 7  # 64 of 224 pixels
ROUNDING = 1e-6  # of the cells where a map has its minimum, some are a little above zero and would count as seen
BLUR = (11, 5.0)  # side and standard deviation in pixels, as OpenCV's GaussianBlur


@dataclass(frozen=True)
class Sess(Meta):
    """Saliency enhancing with scaling and sliding (Tursun 2022): objects of all sizes, and several of them.

    The image is resized to several scales and a window slides over each. A window's map, times its score divided by the
    best window's, is put back at its place; a pixel takes the mean of the values above `theta` there. Scores are
    softmax probabilities of the class, of callables what they give, at least 0. Map and score share one forward,
    unless windows are left out of a method that runs many.

    Args:
        base: the method inside.
        scales: pixels of the shorter side at each scale; None is 12 of them from the window's size on, by 2/7 of it
            (224, 288, ... 928).
        window: side in pixels; None is the images' shorter side. The paper has 224.
        stride: pixels between windows; None is the window's side. The last ones are moved back into the image.
        pre_filter: share of the windows, those with the lowest scores, that are left out.
        theta: what values must be above to count in the mean.
        fusion: "mean" or "max".
        blur: whether to blur the joined map, 11 x 11, sigma 5.

    Raises:
        ValueError: a value out of range; when images are given, a window larger than a scaled image.
    """

    _: KW_ONLY
    scales: Sequence[int] | None = None
    window: int | None = None
    stride: int | None = None
    pre_filter: float = 0.0
    theta: float = 0.0
    fusion: str = "mean"
    blur: bool = True

    formula: ClassVar[str] = "mean over windows r with value > theta of p_r / max p * up(m(x_r))"
    paper: ClassVar[str] = "Tursun 2022, arXiv:2207.01769"
    cost: ClassVar[str] = "1 F + windows x R (122 by default); pre_filter q of methods of many forwards: (1 - q) R"

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        for name in ("window", "stride"):
            value = getattr(self, name)
            if value is not None and not _positive(value):
                raise ValueError(f"sess: {name}={value!r} must be a positive number of pixels, or None")
        if self.scales is not None and (
            isinstance(self.scales, str) or not self.scales or not all(map(_positive, self.scales))
        ):
            raise ValueError(f"sess: scales={self.scales!r} must be a list of positive numbers of pixels, or None")
        if not 0 <= self.pre_filter < 1:
            raise ValueError(f"sess: pre_filter={self.pre_filter!r} must be at least 0 and below 1, a share of windows")
        if not 0 <= self.theta < 1:
            raise ValueError(f"sess: theta={self.theta!r} must be at least 0 and below 1")
        if self.fusion not in ("mean", "max"):
            raise ValueError(f"sess: fusion={self.fusion!r} is not one of 'mean', 'max'")

    def windows(self, height: int, width: int) -> list[Window]:
        """The windows of an image of this size, scale by scale, in rows.

        Raises:
            ValueError: a window larger than a scaled image.
        """
        short = min(height, width)
        side = self.window or short
        given = self.scales
        if given is None and side > short:
            raise ValueError(
                f"sess: a window of {side} pixels is larger than the images ({height}x{width}); give a smaller window, "
                f"or scales= of at least {side}"
            )
        scales = given or [side + i * round(side * STEP) for i in range(SCALES)]
        if min(scales) < side:
            raise ValueError(
                f"sess: a window of {side} pixels is larger than the image at scale {min(scales)}; give scales of at "
                f"least {side}, or window={min(scales)}"
            )
        found = []
        for scale in scales:
            size = (scale, int(scale * width / height)) if height <= width else (int(scale * height / width), scale)
            rows, columns = (starts(length, side, self.stride or side) for length in size)
            found += [Window(top, left, size) for top in rows for left in columns]
        return found

    def combine(self, call: Call) -> Tensor:
        """Image by image: the maps of one image's windows are held, no others."""
        joined = []
        for b in range(len(call.images)):
            joined.append(Slides(self, call, b).joined())
        fused = torch.stack(joined)
        return gaussian_blur(fused, *BLUR) if self.blur else fused


@dataclass
class Slides:
    """The windows of one image of the batch.

    Attributes:
        sess: with its options.
        call: what was asked.
        image: which image.
    """

    sess: Sess
    call: Call
    image: int

    @cached_property
    def windows(self) -> list[Window]:
        """All of them."""
        return self.sess.windows(*self.size)

    @property
    def size(self) -> tuple[int, int]:
        """Of the image."""
        return int(self.call.images.shape[-2]), int(self.call.images.shape[-1])

    @property
    def side(self) -> int:
        """Of a window."""
        return self.sess.window or min(self.size)

    def cut(self, which: Sequence[int]) -> Tensor:
        """Windows by number: (n, C, side, side)."""
        return torch.stack([self._cut(self.windows[i]) for i in which])

    def _cut(self, window: Window) -> Tensor:
        if window.size not in self._scaled:
            self._scaled.clear()  # windows come scale by scale
            x = widen(self.call.images[self.image : self.image + 1])
            same, shrinks = window.size == self.size, window.size[0] < self.size[0]  # which alone antialiasing changes
            self._scaled[window.size] = (
                x if same else interpolate(x, window.size, mode="bilinear", align_corners=False, antialias=shrinks)
            )
        rows, columns = slice(window.top, window.top + self.side), slice(window.left, window.left + self.side)
        return self._scaled[window.size][0, :, rows, columns]

    @cached_property
    def _scaled(self) -> dict[tuple[int, int], Tensor]:
        return {}

    def joined(self) -> Tensor:
        """The image's map (T, H, W)."""
        call, sess, count = self.call, self.sess, len(self.windows)
        kept: Tensor | None = None
        if sess.pre_filter and call.runs_many:
            with torch.no_grad():
                kept = self._kept(self._scores())
        which = list(range(count)) if kept is None else kept.any(1).nonzero().flatten().tolist()
        placed: list[tuple[slice, slice, Tensor]] = []  # a tenth of what the windows' own maps would take
        scores: list[Tensor] = []
        image = torch.full((len(which),), self.image)
        for seen in call.stream(image, lambda start, stop: self.cut(which[start:stop])):
            windows = [self.windows[i] for i in which[seen.start : seen.start + len(seen.maps)]]
            placed += [place(*one, self.size) for one in zip(seen.maps, windows, strict=True)]
            scores += call.score(seen.logits, seen.image)
        s = torch.stack(scores).clamp_min(0)  # (windows, T)
        s = s if call.differentiable else s.detach()
        chosen = self._kept(s) if kept is None else kept[which].to(s.device)
        best = s.amax(0)
        weights = torch.where(best > 0, s / torch.where(best > 0, best, 1), 1) * chosen
        return self._fused(placed, weights)

    def _scores(self) -> Tensor:
        """(windows, T) by forwards alone."""
        call, side, count = self.call, self.side, len(self.windows)
        like = call.images.new_empty((1, call.images.shape[1], side, side))
        target, image = call.target, self.image

        def fill(start: int, stop: int, out: Tensor) -> None:
            out.copy_(self.cut(range(start, stop)))

        def others(value: Any) -> Any:
            whole = isinstance(value, Tensor) and value.dim() and len(value) == len(call.images)
            return value[image : image + 1] if whole else value

        def score(logits: Any, start: int, stop: int) -> Tensor:
            return target.score_of(logits if target.classes is None else widen(logits).softmax(1), image)

        args, named = tuple(map(others, call.args)), {name: others(v) for name, v in call.kwargs.items()}
        return call.cam.scorer.stream(like, count, fill, score, args, named).T

    def _kept(self, scores: Tensor) -> Tensor:
        """Which windows are not left out, for each target. (windows, T) -> bool"""
        order = scores.argsort(dim=0, stable=True)
        dropped = int(len(scores) * self.sess.pre_filter)
        kept = torch.ones_like(scores, dtype=torch.bool)
        return kept.scatter(0, order[:dropped], False)

    def _fused(self, placed: list[tuple[slice, slice, Tensor]], weights: Tensor) -> Tensor:
        """The mean of the maps at their places times their weights (windows, T), above theta; or the largest."""
        height, width = self.size
        total = placed[0][2].new_zeros((weights.shape[1], height, width))
        counts = torch.zeros_like(total)
        for (rows, columns, values), weight in zip(placed, weights.to(total), strict=True):
            weighed = values * weight[:, None, None]
            if self.sess.fusion == "max":
                around = (columns.start, width - columns.stop, rows.start, height - rows.stop)
                total = total.maximum(pad(weighed, around))
                continue
            above = weighed > self.sess.theta + ROUNDING
            total[:, rows, columns] += weighed * above
            counts[:, rows, columns] += above
        return total if self.sess.fusion == "max" else total / counts.clamp_min(1)


def _positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
