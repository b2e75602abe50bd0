"""torchcam's extractors without gradients: CAM, and those that score the input under its activation maps."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import fastcam
from fastcam.compat.torchcam.methods.arithmetic import min_max, resized, widen
from fastcam.compat.torchcam.methods.core import _CAM, Layer
from fastcam.compat.torchcam.methods.engine import ours, output_for, target_for
from fastcam.compat.torchcam.methods.hooks import Hook, alone
from fastcam.compat.torchcam.methods.scores import Classes, Targets, _resolve_targets, _target_scores, per_sample

__all__ = ["CAM", "ISCAM", "SSCAM", "ScoreCAM"]

logger = logging.getLogger(__name__)
BATCH = 32


class CAM(_CAM):
    """w_k = the weight of feature k in the linear layer that reads the pooled map (Zhou 2016, arXiv:1512.04150).

    Negative values are kept, as in torchcam.

    Args:
        model: see `_CAM`.
        target_layer: one layer.
        fc_layer: the linear layer or 1x1 convolution, or its name; None is the only `nn.Linear` of the model.
        input_shape: see `_CAM`.
        **kwargs: see `_CAM`.

    Raises:
        ValueError: several target layers; no linear layer, or several.
        TypeError: an argument of another type.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: Layer | list[Layer] | None = None,
        fc_layer: Layer | None = None,
        input_shape: tuple[int, ...] = (3, 224, 224),
        **kwargs: Any,
    ) -> None:
        if isinstance(target_layer, list) and len(target_layer) > 1:
            raise ValueError(f"CAM explains one layer, not {len(target_layer)}: that which is pooled for `fc_layer`")
        super().__init__(model, target_layer, input_shape, **kwargs)
        try:
            self._fc_weights = self._weights_of(fc_layer)
        except (TypeError, ValueError):
            self.remove_hooks()
            raise

    def _weights_of(self, fc_layer: Any) -> Tensor:
        """(classes, C)"""
        if fc_layer is None:
            names = [name for name, module in self.submodule_dict.items() if isinstance(module, nn.Linear)]
            if len(names) != 1:
                raise ValueError(f"the model has {len(names)} linear layers, not one; pass `fc_layer`")
            logger.warning(f"`fc_layer` was not given and is taken to be '{names[0]}'")
            fc_layer = names[0]
        if isinstance(fc_layer, nn.Module):
            fc_layer = self._resolve_layer_name(fc_layer)
        if not isinstance(fc_layer, str):
            raise TypeError(f"`fc_layer` takes a module or its name, not {fc_layer!r}")
        weight = getattr(self.submodule_dict.get(fc_layer), "weight", None)
        if not isinstance(weight, Tensor) or weight[0, 0].numel() != 1:
            raise ValueError(f"`fc_layer` {fc_layer!r} is no linear layer or 1x1 convolution of the model")
        return weight.detach().flatten(1)

    @torch.no_grad()
    def _get_weights(self, class_idx: Any, scores: Any = None, **kwargs: Any) -> list[Tensor]:
        channels = self._activations()[0].shape[1]
        if channels != self._fc_weights.shape[1]:
            raise ValueError(
                f"`fc_layer` reads {self._fc_weights.shape[1]} features, layer {self.target_names[0]!r} has {channels} "
                "channels; name the layer that is pooled for it"
            )
        return [self._fc_weights[class_idx, :].view(-1, channels)]


class ScoreCAM(_CAM):
    """w_k = softmax_k of the class score of x * H_k, H_k = the resized A_k, scaled before (Wang 2020, alg. 1).

    fastcam runs the masked forwards: constant and repeated channels once, in chunks that fit in memory.

    Args:
        model: see `_CAM`.
        target_layer: see `_CAM`.
        batch_size: rows of a masked forward; at torchcam's own 32 fastcam finds the fastest that 256 MB allow.
        input_shape: see `_CAM`.
        **kwargs: see `_CAM`.
    """

    _relu = True
    _targets_supported = True
    _method = "scorecam"
    _own_way = ("_get_weights", "_masked_input_chunk", "_versions")  # a subclass with its own of these is asked instead

    def __init__(
        self,
        model: nn.Module,
        target_layer: Layer | list[Layer] | None = None,
        batch_size: int = BATCH,
        input_shape: tuple[int, ...] = (3, 224, 224),
        **kwargs: Any,
    ) -> None:
        super().__init__(model, target_layer, input_shape, **kwargs)
        self.hook_handles.append(model.register_forward_pre_hook(Hook(self, "_store_input"), with_kwargs=True))
        self.bs = batch_size

    def _store_input(self, _: nn.Module, input_: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> None:
        """Keep a copy of the images, whose buffer the user may fill again, and the further inputs."""
        if self._hooks_enabled:
            if not input_ or not isinstance(input_[0], Tensor):
                raise TypeError(
                    f"{type(self).__name__} masks the model's first positional input; pass the images there"
                )
            self._input = input_[0].detach().clone()
            self._others = (input_[1:], kwargs or {})

    def _options(self) -> dict[str, Any]:
        """Of fastcam's method."""
        return {}

    def _raw_cams(self, class_idx: Any, scores: Any, **kwargs: Any) -> list[Tensor]:
        if not ours(self, *self._own_way):
            return super()._raw_cams(class_idx, scores, **kwargs)
        targets, raws = kwargs.get("targets"), []
        args, named = self._others
        with self._hooks_off(), alone():
            for name, a in zip(self.target_names, self._activations(), strict=True):
                cam = fastcam.CAM(
                    self.model,
                    self._method,
                    self.submodule_dict[name],  # of a compiled model the names are others
                    batch_size="auto" if self.bs == BATCH else self.bs,
                    normalize="before",
                    reshape=lambda _, a=a: a,
                    output=output_for(targets),
                    **self._options(),
                )
                raws.append(cam.explain(self._input, *args, target=target_for(class_idx, targets), **named).raw)
        return raws

    def _versions(self, masks: Tensor) -> Iterator[tuple[Tensor, float]]:
        """Masks (n, 1, *size) and a factor, one after the other, over which scores are averaged."""
        yield masks, 1.0

    def _masked_input_chunk(self, masks: Tensor, sample_indices: Tensor, buffer: Tensor, slice_: slice) -> Tensor:
        """The masked inputs of some rows, to be scored: subclasses may fill in something else than zeros.

        Args:
            masks: (rows, 1, *size)
            sample_indices: (rows,) which image each is of.
            buffer: to write to.
            slice_: of the rows.
        """
        out = buffer[: slice_.stop - slice_.start]
        return torch.mul(masks[slice_], self._input[sample_indices[slice_]], out=out)

    @torch.no_grad()
    def _get_weights(self, class_idx: Any, scores: Any = None, *, targets: Any = None, **_: Any) -> list[Tensor]:
        """The weights by one chunk of `_masked_input_chunk` after the other, for subclasses that change something."""
        with self._hooks_off(), alone(), self._eval_mode():
            return [self._weigh(a, class_idx, targets) for a in self._activations()]

    def _weigh(self, a: Tensor, class_idx: Classes | None, targets: Targets | None) -> Tensor:
        """(N, C)"""
        images, x = len(a), self._input
        masks = resized(min_max(a, a.dim() - 2).flatten(0, 1), tuple(x.shape[2:]))[:, None].to(x)
        owners = torch.arange(images, device=x.device).repeat_interleave(a.shape[1])
        each = _resolve_targets(targets, images) if targets is not None else None
        buffer = x.new_empty(min(self.bs, len(masks)), *x.shape[1:])
        sums, count = torch.zeros(len(masks), dtype=widen(x).dtype, device=x.device), 0
        for versions, factor in self._versions(masks):
            count += 1
            for start in range(0, len(masks), self.bs):
                rows = slice(start, min(start + self.bs, len(masks)))
                chunk = self._masked_input_chunk(versions, owners, buffer, rows)
                output = self.model(factor * chunk if factor != 1 else chunk)
                if each is not None:
                    sums[rows] += _target_scores(per_sample(output), [each[i] for i in owners[rows].tolist()])
                else:
                    classes = torch.as_tensor(class_idx, device=x.device).expand(images)[owners[rows]]
                    sums[rows] += output.gather(1, classes[:, None])[:, 0]
        return (sums / count).view(images, -1).softmax(1)

    def __repr__(self) -> str:
        """The class and what a forward takes."""
        return f"{type(self).__name__}(batch_size={self.bs})"


class SSCAM(ScoreCAM):
    """w_k = softmax_k of the mean class score of x * (H_k + e_n), e_n ~ N(0, std) (Wang 2020, arXiv:2006.14255).

    The noise is drawn mask by mask, from the seed of `torch.manual_seed`, without a step of torch's own generator;
    `strict_compat=True` draws it there, for all masks at once.

    Args:
        model: see `_CAM`.
        target_layer: see `_CAM`.
        batch_size: see `ScoreCAM`.
        num_samples: noisy masks a channel.
        std: standard deviation of the noise.
        input_shape: see `_CAM`.
        **kwargs: see `_CAM`.
    """

    _method = "sscam"

    def __init__(
        self,
        model: nn.Module,
        target_layer: Layer | list[Layer] | None = None,
        batch_size: int = BATCH,
        num_samples: int = 35,
        std: float = 2.0,
        input_shape: tuple[int, ...] = (3, 224, 224),
        **kwargs: Any,
    ) -> None:
        super().__init__(model, target_layer, batch_size, input_shape, **kwargs)
        self.num_samples = num_samples
        self.std = std
        self._distrib = torch.distributions.Normal(0, std)

    def _options(self) -> dict[str, Any]:
        return {"samples": self.num_samples, "std": self.std, "seed": torch.initial_seed()}

    def _raw_cams(self, class_idx: Any, scores: Any, **kwargs: Any) -> list[Tensor]:
        return (_CAM if self._strict else ScoreCAM)._raw_cams(self, class_idx, scores, **kwargs)

    def _versions(self, masks: Tensor) -> Iterator[tuple[Tensor, float]]:
        shape = (len(self._input), -1, *self._input.shape[2:])
        drawn = masks.view(shape).shape
        for _ in range(self.num_samples):
            yield masks + self._distrib.sample(drawn).to(masks).view(masks.shape), 1.0

    def __repr__(self) -> str:
        """The class and its options."""
        return f"SSCAM(batch_size={self.bs}, num_samples={self.num_samples}, std={self.std})"


class ISCAM(ScoreCAM):
    """w_k = softmax_k of the mean class score of c_i x * H_k, c_i = i (i + 1) / 2N (Naidu 2020, arXiv:2010.03023).

    Args:
        model: see `_CAM`.
        target_layer: see `_CAM`.
        batch_size: see `ScoreCAM`.
        num_samples: N, scales a channel.
        input_shape: see `_CAM`.
        **kwargs: see `_CAM`.
    """

    _method = "iscam"

    def __init__(
        self,
        model: nn.Module,
        target_layer: Layer | list[Layer] | None = None,
        batch_size: int = BATCH,
        num_samples: int = 10,
        input_shape: tuple[int, ...] = (3, 224, 224),
        **kwargs: Any,
    ) -> None:
        super().__init__(model, target_layer, batch_size, input_shape, **kwargs)
        self.num_samples = num_samples

    def _options(self) -> dict[str, Any]:
        return {"samples": self.num_samples}

    def _versions(self, masks: Tensor) -> Iterator[tuple[Tensor, float]]:
        for i in range(1, self.num_samples + 1):
            yield masks, i * (i + 1) / 2 / self.num_samples
