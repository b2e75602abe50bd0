"""torchcam's extractors around another one: products of several layers, differences of several classes."""

from __future__ import annotations

import contextlib
import math
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fastcam.compat.torchcam.methods.arithmetic import largest, min_max, require_cams, resized
from fastcam.compat.torchcam.methods.comparisons import classes_of, is_class, references_of
from fastcam.compat.torchcam.methods.core import _CAM, Layer
from fastcam.compat.torchcam.methods.layer_gradients import GradCAM, GradCAMpp, LayerCAM, _GradCAM
from fastcam.compat.torchcam.methods.scores import Classes, Targets

Own = TypeVar("Own", bound="_CAMWrapper")
References = int | list[int] | list[list[int]]


class _CAMWrapper:
    """Hands on to `base_cam` what it does not do itself; the hooks are those of `base_cam`."""

    base_cam: _CAM

    def __init__(self, base_cam: _CAM) -> None:
        self.base_cam = base_cam

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.base_cam.model

    @property
    def target_names(self) -> list[str]:
        """The names of the target layers."""
        return self.base_cam.target_names

    def enable_hooks(self) -> None:
        """See `_CAM`."""
        self.base_cam.enable_hooks()

    def disable_hooks(self) -> None:
        """See `_CAM`."""
        self.base_cam.disable_hooks()

    def reset_hooks(self) -> None:
        """See `_CAM`."""
        self.base_cam.reset_hooks()

    def remove_hooks(self) -> None:
        """See `_CAM`."""
        self.base_cam.remove_hooks()

    def _hooks_off(self) -> contextlib.AbstractContextManager[None]:
        return self.base_cam._hooks_off()

    def __enter__(self: Own) -> Own:
        return self

    def __exit__(
        self,
        exct_type: type[BaseException] | None,
        exce_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.base_cam.__exit__(exct_type, exce_value, traceback)


class RefineCAM(_CAMWrapper):
    """prod_l up(m_l), the product of several layers' maps in [0, 1] at the size of the largest (arXiv:2605.14641).

    Args:
        model: see `_CAM`.
        target_layer: two layers or more.
        input_shape: see `_CAM`.
        base_method: the extractor whose maps are multiplied.
        **base_kwargs: of that one.

    Raises:
        ValueError: fewer than two layers.
        TypeError: a base method that is no extractor class.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: list[Layer],
        input_shape: tuple[int, ...] = (3, 224, 224),
        *,
        base_method: type[_CAM] = GradCAMpp,
        **base_kwargs: Any,
    ) -> None:
        if not isinstance(target_layer, list) or len(target_layer) < 2:
            raise ValueError("RefineCAM multiplies maps: target_layer must be a list of at least two target layers")
        if not isinstance(base_method, type) or not issubclass(base_method, _CAM):
            raise TypeError(f"base_method must be a CAM extractor class, such as GradCAMpp, not {base_method!r}")
        super().__init__(base_method(model, target_layer, input_shape=input_shape, **base_kwargs))

    def __call__(
        self,
        class_idx: Classes | None = None,
        scores: Any = None,
        normalized: bool = True,
        target_shape: tuple[int, ...] | None = None,
        *,
        targets: Targets | None = None,
        **kwargs: Any,
    ) -> list[Tensor]:
        """One map for all layers; arguments as of the base method, `target_shape` as of `fuse_cams`."""
        cams = self.base_cam(class_idx, scores, True, targets=targets, **kwargs)
        return [self.fuse_cams(cams, target_shape, normalized)]

    def compute_cams(
        self,
        class_idx: Classes | None = None,
        scores: Any = None,
        normalized: bool = True,
        target_shape: tuple[int, ...] | None = None,
        *,
        targets: Targets | None = None,
        **kwargs: Any,
    ) -> list[Tensor]:
        """As a call, without its checks."""
        cams = self.base_cam.compute_cams(class_idx, scores, True, targets=targets, **kwargs)
        return [self.fuse_cams(cams, target_shape, normalized)]

    @staticmethod
    @torch.no_grad()
    def fuse_cams(cams: list[Tensor], target_shape: tuple[int, ...] | None = None, normalized: bool = True) -> Tensor:
        """prod_l up(m_l), m_l the maps scaled to [0, 1]; with `normalized` the product is scaled again.

        Args:
            cams: (N, *space) of each layer.
            target_shape: the size; None is the largest there is.
            normalized: scale the product to [0, 1].

        Returns:
            (N, *target_shape)

        Raises:
            TypeError: no list of tensors.
            ValueError: an empty list.
        """
        require_cams(cams)
        size = target_shape or largest(cams)
        product = torch.stack([resized(min_max(cam), size) for cam in cams]).prod(0)
        return min_max(product) if normalized else product

    def __repr__(self) -> str:
        """The class, the base method and the layers."""
        return f"RefineCAM(base_method={type(self.base_cam).__name__}, target_layer={self.target_names})"


class FinerCAM(_CAMWrapper):
    """The map of y_c - gamma mean_t y_t, what tells class c from others (Zhang 2025, arXiv:2501.11309).

    Args:
        model: see `_CAM`.
        target_layer: see `_CAM`.
        input_shape: see `_CAM`.
        base_method: GradCAM, GradCAMpp or LayerCAM.
        gamma: how much the others count.
        num_references: how many others, those with the scores closest to y_c, where they are not named.
        **base_kwargs: of the base method.

    Raises:
        TypeError: another base method, or an argument of another type.
        ValueError: a negative or infinite gamma, no references.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: Layer | list[Layer] | None = None,
        input_shape: tuple[int, ...] = (3, 224, 224),
        *,
        base_method: type[_GradCAM] = GradCAM,
        gamma: float = 0.6,
        num_references: int = 3,
        **base_kwargs: Any,
    ) -> None:
        if base_method not in (GradCAM, GradCAMpp, LayerCAM):
            raise TypeError(f"base_method must be GradCAM, GradCAMpp, or LayerCAM, not {base_method!r}")
        if isinstance(gamma, bool) or not isinstance(gamma, (int, float)):
            raise TypeError(f"gamma must be a real number, not {gamma!r}")
        if not math.isfinite(gamma) or gamma < 0:
            raise ValueError(f"gamma must be finite and non-negative, not {gamma}")
        if not is_class(num_references):
            raise TypeError(f"num_references must be an integer, not {num_references!r}")
        if num_references < 1:
            raise ValueError(f"num_references must be positive, not {num_references}")
        self.gamma = float(gamma)
        self.num_references = num_references
        super().__init__(base_method(model, target_layer, input_shape=input_shape, **base_kwargs))

    def __call__(
        self,
        class_idx: Classes,
        scores: Tensor | None = None,
        comparison_idx: References | None = None,
        normalized: bool = True,
        **kwargs: Any,
    ) -> list[Tensor]:
        """The map of each target layer for the last forward.

        Args:
            class_idx: a class for all images, or a list with one for each.
            scores: (N, classes), what the model gave in that forward.
            comparison_idx: the other classes: one, a list for all images, or a list of lists with as many each.
            normalized: scale each map to [0, 1].
            **kwargs: `retain_graph`, `eps`.

        Returns:
            (N, *space) a layer.

        Raises:
            ValueError: scores, classes or comparisons that do not fit each other.
            TypeError: the same of other types.
        """
        contrast = self._contrast(class_idx, scores, comparison_idx, kwargs)
        return self.base_cam([0] * len(contrast), contrast, normalized, **kwargs)

    def compute_cams(
        self,
        class_idx: Classes,
        scores: Tensor | None = None,
        comparison_idx: References | None = None,
        normalized: bool = True,
        **kwargs: Any,
    ) -> list[Tensor]:
        """As a call, without the base method's checks."""
        contrast = self._contrast(class_idx, scores, comparison_idx, kwargs)
        return self.base_cam.compute_cams([0] * len(contrast), contrast, normalized, **kwargs)

    def _contrast(self, class_idx: Any, scores: Any, comparison_idx: Any, kwargs: dict[str, Any]) -> Tensor:
        """y_c - gamma mean_t y_t of each image, as scores of one class. (N, 1)"""
        if kwargs.get("targets") is not None:
            raise ValueError("FinerCAM does not support targets: it compares classes; pass class_idx")
        if scores is None:
            raise ValueError("the model output scores is required: pass scores=model(inputs)")
        if not isinstance(scores, Tensor):
            raise TypeError(f"scores must be a tensor, not a {type(scores).__name__}")
        if scores.dim() != 2 or not len(scores):
            raise ValueError(f"scores must be of shape (images, classes), not {tuple(scores.shape)}")
        if scores.shape[1] < 2:
            raise ValueError("scores of one class leave no comparison class for FinerCAM")
        classes = classes_of(class_idx, *scores.shape)
        rows = None if comparison_idx is None else references_of(comparison_idx, classes, scores.shape[1])
        assert isinstance(self.base_cam, _GradCAM)
        scores = self.base_cam._with_graph(scores)
        with torch.inference_mode(False), torch.enable_grad():
            own = torch.tensor(classes, device=scores.device)[:, None]
            if rows is None:
                away = (scores.detach() - scores.detach().gather(1, own)).abs().scatter(1, own, math.inf)
                count = min(self.num_references, scores.shape[1] - 1)
                others = away.topk(count, dim=1, largest=False).indices
            else:
                others = torch.tensor(rows, device=scores.device)
            return scores.gather(1, own) - self.gamma * scores.gather(1, others).mean(1, keepdim=True)

    def fuse_cams(self, cams: list[Tensor], target_shape: tuple[int, ...] | None = None) -> Tensor:
        """See the base method's."""
        return self.base_cam.fuse_cams(cams, target_shape)

    def __repr__(self) -> str:
        """The class, the base method, the layers and the options."""
        return (
            f"FinerCAM(base_method={type(self.base_cam).__name__}, target_layer={self.target_names}, "
            f"gamma={self.gamma}, num_references={self.num_references})"
        )
