"""The base of torchcam's extractors: hooks that note what a layer gives, and maps made of it when asked for."""

from __future__ import annotations

import contextlib
import difflib
import logging
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fastcam.compat import strict_compat as strict_by_default
from fastcam.compat.torchcam.methods._utils import _model_eval, locate_candidate_layer
from fastcam.compat.torchcam.methods.arithmetic import EPS, largest, min_max, require_cams, resized, widen
from fastcam.compat.torchcam.methods.hooks import Hook
from fastcam.compat.torchcam.methods.scores import Classes, OutputTarget, Targets, _resolve_targets, _target_scores

__all__ = ["_CAM", "OutputTarget", "_resolve_targets", "_target_scores"]

logger = logging.getLogger(__name__)
Layer = nn.Module | str
Own = TypeVar("Own", bound="_CAM")


class _CAM:
    """relu(sum_k w_k A_k) of each target layer; a subclass says what w is, in `_get_weights`.

    Args:
        model: the network; only hooks are added to it, until `remove_hooks`, the end of a `with`, or `del`.
        target_layer: a module or its name, or a list of them; None finds one, see `locate_candidate_layer`.
        input_shape: of one input, where a layer is to be found.
        enable_hooks: whether the hooks take note from the start.
        reshape_transform: what a layer gives -> (N, C, *space), for layers of tokens or with channels last.
        strict_compat: whether torchcam's values are given where ours differ and its do no harm, see
            `fastcam.compat.differences`; None is the setting of `fastcam.compat.strict_compat`.

    Raises:
        ValueError: no such layer in the model.
        TypeError: an argument of another type.
    """

    _relu = False  # whether negative values are cut before the maps are scaled
    _score_used = False  # whether the model's output must be passed
    _targets_supported = False
    _hands_on_copies = False  # whether the network goes on with a copy of what the layer gave

    def __init__(
        self,
        model: nn.Module,
        target_layer: Layer | list[Layer] | None = None,
        input_shape: tuple[int, ...] = (3, 224, 224),
        enable_hooks: bool = True,
        reshape_transform: Callable[[Tensor], Tensor] | None = None,
        *,
        strict_compat: bool | None = None,
    ) -> None:
        self.hook_handles: list[RemovableHandle] = []
        if reshape_transform is not None and not callable(reshape_transform):
            raise TypeError(
                f"`reshape_transform` must be a function of what the layer gives, not {reshape_transform!r}"
            )
        if reshape_transform is not None and target_layer is None:
            raise ValueError("`reshape_transform` is made for one layer: pass `target_layer` as well")
        self.submodule_dict = dict(model.named_modules())
        self.target_names = self._names_of(model, target_layer, input_shape)
        missing = [name for name in self.target_names if name not in self.submodule_dict]
        if missing:
            close = [name for one in missing for name in difflib.get_close_matches(one, self.submodule_dict)]
            hint = f"did you mean {close}?" if close else "`model.named_modules()` lists those it has"
            raise ValueError(f"unknown `target_layer` names, the model has no {missing}; {hint}")
        self.model = model
        self._reshape_transform = reshape_transform
        self._strict = strict_by_default() if strict_compat is None else strict_compat
        self._hooks_enabled = enable_hooks
        self.reset_hooks()
        for idx, name in enumerate(self.target_names):
            self.hook_handles.append(self.submodule_dict[name].register_forward_hook(Hook(self, "_hook_a", idx)))

    def _names_of(
        self, model: nn.Module, target_layer: Layer | list[Layer] | None, input_shape: tuple[int, ...]
    ) -> list[str]:
        """The names of the layers asked for."""
        if target_layer is None:
            found = locate_candidate_layer(model, input_shape)
            if found is None:
                raise ValueError("no layer gives a map of several cells: specify `target_layer`, or mend `input_shape`")
            logger.warning(f"`target_layer` was not given and is taken to be '{found}'")
            return [found]
        layers = target_layer if isinstance(target_layer, list) else [target_layer]
        if not all(isinstance(layer, (str, nn.Module)) for layer in layers):
            raise TypeError(f"`target_layer` takes a module, its name, or a list of them, not {target_layer!r}")
        return [layer if isinstance(layer, str) else self._resolve_layer_name(layer) for layer in layers]

    def _resolve_layer_name(self, target_layer: nn.Module) -> str:
        """The name under which the model holds this module."""
        for name, module in self.submodule_dict.items():
            if module is target_layer:
                return name
        raise ValueError(f"this {type(target_layer).__name__} is not a module of the model; pass one, or its name")

    def _hook_a(self, _: nn.Module, _input: Any, output: Any, idx: int = 0) -> Any:
        """Keep what the layer gave; a copy, where an in-place operation behind the layer might change it."""
        if not self._hooks_enabled:
            return
        shown = output if self._reshape_transform is None else self._reshape_transform(output)
        if not isinstance(shown, Tensor):
            raise TypeError(
                f"layer {self.target_names[idx]!r} gives a {type(shown).__name__} and no tensor; name a layer that "
                "gives a tensor, or pass a `reshape_transform` that picks one"
            )
        keep = self._strict or self._hands_on_copies
        self.hook_a[idx] = shown.detach() if keep else shown.detach().clone()

    def enable_hooks(self) -> None:
        """Take note of forwards."""
        self._hooks_enabled = True

    def disable_hooks(self) -> None:
        """Take no note of forwards until `enable_hooks`."""
        self._hooks_enabled = False

    def reset_hooks(self) -> None:
        """Forget what the layers gave."""
        self.hook_a: list[Tensor | None] = [None] * len(self.target_names)
        self.hook_g: list[Tensor | None] = [None] * len(self.target_names)

    def remove_hooks(self) -> None:
        """Take the hooks off the model."""
        for handle in self.hook_handles:
            handle.remove()
        self.hook_handles.clear()

    @contextlib.contextmanager
    def _hooks_off(self) -> Iterator[None]:
        before, self._hooks_enabled = self._hooks_enabled, False
        try:
            yield
        finally:
            self._hooks_enabled = before

    @contextlib.contextmanager
    def _eval_mode(self) -> Iterator[None]:
        with _model_eval(self.model):
            yield

    def __enter__(self: Own) -> Own:
        return self

    def __exit__(
        self,
        exct_type: type[BaseException] | None,
        exce_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove_hooks()
        self.reset_hooks()

    def __del__(self) -> None:
        """Without an extractor there is nobody to take note."""
        for handle in self.__dict__.get("hook_handles", ()):
            handle.remove()

    _normalize = staticmethod(min_max)

    def _get_weights(self, class_idx: Any, scores: Any = None, **kwargs: Any) -> list[Tensor]:
        """The w_k of each layer: (N, C), (1, C) for all images alike, or (N, C, *space)."""
        raise NotImplementedError(f"{type(self).__name__} does not say how channels are weighed")

    def _precheck(self, class_idx: Any, scores: Any = None, targets: Any = None) -> None:
        """Raise where nothing can be explained."""
        name = type(self).__name__
        if (class_idx is None) == (targets is None):
            raise ValueError(f"{name} takes exactly one of class_idx and targets")
        if targets is not None and not self._targets_supported:
            raise ValueError(f"{name} does not support targets; pass class_idx")
        for layer, a in zip(self.target_names, self.hook_a, strict=True):
            if not isinstance(a, Tensor):
                raise AssertionError(
                    f"layer {layer!r} has seen no forward; run model(inputs) with the hooks enabled before {name}"
                )
            if isinstance(class_idx, list) and len(class_idx) != len(a):
                raise ValueError(f"class_idx has {len(class_idx)} entries for a batch size of {len(a)}; give one each")
        if targets is not None:
            assert self.hook_a[0] is not None
            _resolve_targets(targets, len(self.hook_a[0]))
        else:
            one = [class_idx] if isinstance(class_idx, int) else class_idx
            if not isinstance(one, list) or any(c < 0 for c in one):
                raise ValueError(f"class_idx must be a class of 0 or more, or a list of them, not {class_idx!r}")
        if self._score_used and scores is None:
            raise ValueError(f"{name} differentiates the model output; pass scores=model(inputs)")
        if self._score_used and targets is None and not isinstance(scores, Tensor):
            raise TypeError(f"class_idx needs scores that are a tensor (N, classes), not a {type(scores).__name__}")

    def __call__(
        self,
        class_idx: Classes | None = None,
        scores: Any = None,
        normalized: bool = True,
        *,
        targets: Targets | None = None,
        **kwargs: Any,
    ) -> list[Tensor]:
        """The map of each target layer for the last forward.

        Args:
            class_idx: a class for all images, or a list with one for each.
            scores: what the model gave in that forward; methods that differentiate need it.
            normalized: scale each map to [0, 1].
            targets: in place of a class, a callable from one sample of the output to one number, or one an image.
            **kwargs: of the method, such as `retain_graph` or `eps`.

        Returns:
            (N, *space) a layer, at the layer's size, in its dtype and on its device.

        Raises:
            AssertionError: no forward yet.
            ValueError: neither or both of class_idx and targets, or another number of them than images.
        """
        self._precheck(class_idx, scores, targets)
        return self.compute_cams(class_idx, scores, normalized, targets=targets, **kwargs)

    def compute_cams(
        self,
        class_idx: Classes | None = None,
        scores: Any = None,
        normalized: bool = True,
        *,
        targets: Targets | None = None,
        **kwargs: Any,
    ) -> list[Tensor]:
        """As a call, without its checks."""
        if targets is not None:
            kwargs["targets"] = targets
        raws = self._raw_cams(class_idx, scores, **kwargs)
        cams = []
        with torch.no_grad():
            for raw, a in zip(raws, self._activations(), strict=True):
                cam = raw.relu() if self._relu else raw
                cams.append((self._normalize(cam, None, EPS) if normalized else cam).to(a.dtype))
        return cams

    def _activations(self) -> list[Tensor]:
        """What the layers gave; they have seen a forward."""
        return [a for a in self.hook_a if a is not None]

    def _raw_cams(self, class_idx: Any, scores: Any, **kwargs: Any) -> list[Tensor]:
        """sum_k w_k A_k of each layer, NaN taken as zero, in float32 at least. (N, *space)"""
        raws = []
        for weight, a in zip(self._get_weights(class_idx, scores, **kwargs), self._activations(), strict=True):
            wide = widen(weight.detach())
            raws.append(torch.nansum(wide[(..., *[None] * (a.dim() - wide.dim()))] * widen(a), 1))
        return raws

    def _extra_repr(self) -> str:
        return f"target_layer={self.target_names}"

    def __repr__(self) -> str:
        """The class and what it looks at."""
        return f"{type(self).__name__}({self._extra_repr()})"

    @classmethod
    def fuse_cams(cls, cams: list[Tensor], target_shape: tuple[int, ...] | None = None) -> Tensor:
        """The largest value of several layers' maps at each place, all at one size.

        Args:
            cams: (N, *space) of each layer.
            target_shape: the size; None is the largest there is.

        Returns:
            (N, *target_shape)

        Raises:
            TypeError: no list of tensors.
            ValueError: an empty list.
        """
        require_cams(cams)
        if len(cams) == 1:
            return cams[0]
        return cls._fuse_cams(cls._scale_cams(cams), target_shape or largest(cams))

    @staticmethod
    def _scale_cams(cams: list[Tensor]) -> list[Tensor]:
        return cams

    @staticmethod
    def _fuse_cams(cams: list[Tensor], target_shape: tuple[int, ...]) -> Tensor:
        return torch.stack([resized(cam, target_shape) for cam in cams]).max(0).values
