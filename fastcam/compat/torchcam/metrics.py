"""torchcam's metrics of extractors: sums stay on the device, and are read when a number is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastcam.ops import perturb_steps, rank_pixels

from .choices import Callables, Classes
from .methods.core import OutputTarget
from .sums import Choice, Extractor, Sums, wide

__all__ = ["ClassificationMetric", "DeletionInsertionMetric"]

EPS = 1e-7  # torchcam's, beside the score that a drop is divided by


class ClassificationMetric(Sums):
    """Mean of relu(s - m) / s and share of s < m, m the score of the map times the image (Grad-CAM++, eq. 10-11).

    The map is resized to the image as it is. Source: Chattopadhay 2018, arXiv:1710.11063, section 4.1.

    Args:
        cam_extractor: of this package or of torchcam.
        logits_fn: from the model's output to scores, such as `functools.partial(torch.softmax, dim=-1)`; without it
            logits are compared.
    """

    def _measure(self, x: Tensor, cam: Tensor, scores: Tensor, choice: Choice) -> list[Tensor]:
        s, m = wide(scores), wide(choice(self._output(cam.unsqueeze(1).to(x.dtype) * x)))
        return [(s - m).relu() / (s + EPS), (s < m).to(s)]

    @property
    def drop(self) -> float:
        """Sum of the drops."""
        return self._sum(0)

    @property
    def increase(self) -> float:
        """How many scores rose."""
        return self._sum(1)

    def summary(self) -> dict[str, float]:
        """The means: "avg_drop" and "conf_increase".

        Raises:
            AssertionError: nothing was added yet.
        """
        return dict(zip(("avg_drop", "conf_increase"), self._means(), strict=True))


class DeletionInsertionMetric(Sums):
    """Mean areas under the score as pixels go, and as they come, the map's highest first, by trapezoids.

    Source: Petsiuk 2018 (RISE), arXiv:1806.07421; steps of ceil(pixels / steps) pixels over the shares changed.

    Args:
        cam_extractor: of this package or of torchcam.
        logits_fn: from the model's output to scores.
        steps: intervals of a curve at most.
        baseline: what pixels turn into: a tensor that broadcasts to the input, a function of the input, or None for 0.
        batch_size: rows of a forward at most.

    Raises:
        TypeError: an argument of another kind.
        ValueError: `steps` or `batch_size` below 1.
    """

    def __init__(
        self,
        cam_extractor: Extractor,
        logits_fn: Callable[[Any], Any] | None = None,
        *,
        steps: int = 20,
        baseline: Tensor | Callable[[Tensor], Tensor] | None = None,
        batch_size: int = 32,
    ) -> None:
        for name, value in (("steps", steps), ("batch_size", batch_size)):
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be an integer, got {value!r}")
            if value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if baseline is not None and not isinstance(baseline, Tensor) and not callable(baseline):
            raise TypeError(f"baseline must be a tensor, a callable, or None, got {baseline!r}")
        self.steps = steps
        self.baseline = baseline
        self.batch_size = batch_size
        super().__init__(cam_extractor, logits_fn)

    def _measure(self, x: Tensor, cam: Tensor, scores: Tensor, choice: Choice) -> list[Tensor]:
        ranks = rank_pixels(as_pictures(cam[:, None])[:, 0]).flatten(1)
        shares, deletion, insertion = self._curves(x, self._get_baseline(x), ranks, scores, choice)
        return [torch.trapezoid(wide(one), shares.to(wide(one)), dim=1) for one in (deletion, insertion)]

    def _get_baseline(self, input_tensor: Tensor) -> Tensor:
        """What each pixel turns into, of the input's shape; what is repeated is not copied."""
        baseline = self.baseline
        if baseline is None:
            return input_tensor.new_zeros(1).expand_as(input_tensor)
        if not isinstance(baseline, Tensor):
            baseline = baseline(input_tensor)
            if not isinstance(baseline, Tensor):
                raise TypeError(f"baseline callable must return a tensor, got {type(baseline).__name__}")
        try:
            return baseline.detach().to(input_tensor).expand_as(input_tensor)
        except RuntimeError as error:
            raise ValueError(
                f"baseline of shape {tuple(baseline.shape)} must be broadcastable to the input shape "
                f"{tuple(input_tensor.shape)}"
            ) from error

    def _compute_curves(
        self,
        input_tensor: Tensor,
        baseline: Tensor,
        ranks: Tensor,
        target_indices: Tensor | None,
        original_scores: Tensor,
        targets: list[OutputTarget] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Shares of changed pixels (n + 1,), deletion and insertion curves (N, n + 1); ranks (N, pixels)."""
        choice = Callables(targets or []) if target_indices is None else Classes(target_indices)
        with self.cam_extractor._hooks_off(), torch.inference_mode():
            return self._curves(input_tensor.detach(), baseline, ranks, original_scores.detach(), choice)

    def _curves(
        self, x: Tensor, baseline: Tensor, ranks: Tensor, scores: Tensor, choice: Choice
    ) -> tuple[Tensor, Tensor, Tensor]:
        pixels = ranks.shape[1]
        counts = [*range(0, pixels, math.ceil(pixels / self.steps)), pixels]
        shares = torch.tensor(counts, dtype=torch.float32, device=scores.device) / pixels
        images, others = as_pictures(x), as_pictures(baseline)
        places = ranks.to(torch.int32).view(len(x), *images.shape[2:])
        # The rows of each image: all that deletion changes, down to the plain baseline, then insertion up to the image.
        turns = ((images, others, counts[1:]), (others, images, counts[1:-1]))
        own = sum(len(some) for *_, some in turns)
        found = []
        for start in range(0, own * len(x), self.batch_size):
            stop = min(start + self.batch_size, own * len(x))
            rows = torch.empty((stop - start, *x.shape[1:]), dtype=x.dtype, device=x.device)
            written = as_pictures(rows)
            for image in range(start // own, math.ceil(stop / own)):
                first = image * own
                for before, after, some in turns:
                    begin, end = max(start, first), min(stop, first + len(some))
                    if begin < end:
                        one = slice(image, image + 1)
                        taken = some[begin - first : end - first]
                        perturb_steps(before[one], after[one], places[one], taken, written[begin - start : end - start])
                    first += len(some)
            found.append(choice.rows(self._output(rows), start, stop, own))
        curves = torch.cat(found).view(len(x), own)
        deleted, inserted = curves.split([len(some) for *_, some in turns], 1)
        whole = scores.to(curves)[:, None]
        return shares, torch.cat([whole, deleted], 1), torch.cat([deleted[:, -1:], inserted, whole], 1)

    @property
    def deletion(self) -> float:
        """Sum of the areas under deletion curves."""
        return self._sum(0)

    @property
    def insertion(self) -> float:
        """Sum of the areas under insertion curves."""
        return self._sum(1)

    def summary(self) -> dict[str, float]:
        """The means: "deletion_auc" (lower is better) and "insertion_auc" (higher is better).

        Raises:
            AssertionError: nothing was added yet.
        """
        return dict(zip(("deletion_auc", "insertion_auc"), self._means(), strict=True))


def as_pictures(x: Tensor) -> Tensor:
    """Signals (n, C, l) as (n, C, 1, l), volumes (n, C, d, h, w) as (n, C, d*h, w), pictures as they are."""
    return x.unsqueeze(2) if x.dim() == 3 else x.flatten(2, 3) if x.dim() == 5 else x
