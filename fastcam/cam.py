"""The public objects: `CAM`, `Explanation`, `explain`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from .ask import Question, answer
from .explanation import Explanation, finish
from .fusion import FUSIONS, fuse
from .inputs import check_images, check_rank
from .meta import Meta, resolve
from .model.capture import evaluation
from .model.layers import INPUT, SCALES, LayerSpec, as_list
from .model.layers import find as find_layer
from .model.network import Network
from .model.outputs import Selector
from .model.reshape import Reshape
from .model.tally import counting
from .runtimes import require
from .scorer import Scorer
from .scoring import Budget
from .targets import TargetSpec

COMBINE = ("sum", "eigen")


class CAM:
    """Class activation maps of one model by one method.

    The model is left as it was: training mode, gradients, hooks, random state, also after an exception. It runs
    in evaluation mode, under whatever autocast is active; `no_grad`, `inference_mode` and frozen parameters make
    no difference.

    Args:
        model: maps images (B, C, H, W) to logits (B, classes), or to a tuple, dict or Hugging Face output of them;
            or signals (B, C, L), or volumes (B, C, D, H, W), whose maps are (B, L) and (B, D, H, W).
        method: its name, see `fastcam.list_methods()`; or a meta-method over it, such as `Sess("gradcam")`, by name
            "sess(gradcam)".
        layer: a name, a module, a list of them (fused), or None for the last spatial map; of methods that join
            several layers in one map, None is the last map of each resolution.
        batch_size: rows of a masked forward, or "auto": the fastest that `max_memory` allows, found on the way.
        max_memory: bytes that a masked forward may take above the bare forward; a chunk is as small as that asks
            for. None is 256 MB, or no limit where `batch_size` is given.
        precision: "float32" runs the model as it is, "bfloat16" and "float16" under autocast.
        compile: run masked forwards of the whole model through `torch.compile`; "graphs" records them as CUDA graphs
            instead, one a chunk shape, which stay in the GPU's memory as long as the model. Without it, networks with
            convolutions run as a folded copy (batch norm in the weights, on a CPU also activations and additions in
            the convolutions) where many rows are to be scored; its logits are compared with the model's on every use.
        runtime: what runs masked forwards of the whole model on a CPU: "torch", "onnxruntime" or "openvino". The
            model is exported once, which takes seconds, and its logits are compared with torch's on every use; one
            that cannot be exported runs in torch, after a warning.
        output: what to score in the model's output: a key, an attribute, an index, or a function.
        reshape: what shows the maps in what the layer gives, (B, C, h, w), by picking and ordering its entries; None
            finds the grid of channels-last maps and of tokens by itself.
        combine: how the weighed maps of the channels become one: "sum", or "eigen", their projection on their first
            principal component (pytorch-grad-cam's eigen_smooth), with the sign that agrees with the sum.
        fusion: of the maps of several layers: "mean", "max", "product", or "tanhmax", LayerCAM's own, see
            `fastcam.fusion.fuse`.
        **options: of the method, see `fastcam methods`; of a meta-method what the method inside does not have.

    Raises:
        ValueError: an unknown method, layer, or value of an option; a runtime that is not installed.
        TypeError: a model that is no `nn.Module`, or an option that the method does not have.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from fastcam import CAM
        >>> pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), pool, nn.Linear(8, 5))
        >>> CAM(net, "gradcam")(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 32, 32])
    """

    def __init__(
        self,
        model: nn.Module,
        method: str | Meta = "gradcam",
        layer: LayerSpec = None,
        *,
        batch_size: int | str = "auto",
        max_memory: int | None = None,
        precision: str = "float32",
        compile: bool | str = False,  # noqa: A002 - torch's own word
        runtime: str = "torch",
        output: Selector = None,
        reshape: Reshape | None = None,
        combine: str = "sum",
        fusion: str = "mean",
        **options: Any,
    ) -> None:
        self.metas, self.method, self.options = resolve(method, options)
        self.network = Network(model, output, precision, reshape)
        self.model = model
        self.layer = layer
        if layer is not None:
            if self.method.evidence.at == "input":
                raise ValueError(
                    f"{self.method.name} explains the image itself, at no layer; leave layer={layer!r} out"
                )
            for one in as_list(layer):
                find_layer(self.network.model, one)
        if combine not in COMBINE:
            raise ValueError(f"combine must be one of {', '.join(map(repr, COMBINE))}, got {combine!r}")
        if combine != "sum" and self.method.gives_map:
            raise ValueError(
                f"{self.method.name} gives its map itself and has no weighed channels; leave combine={combine!r} out"
            )
        if fusion not in FUSIONS:
            raise ValueError(f"fusion must be one of {', '.join(map(repr, FUSIONS))}, got {fusion!r}")
        if batch_size != "auto" and (not isinstance(batch_size, int) or batch_size < 1):
            raise ValueError(f"batch_size must be 'auto' or a positive int, got {batch_size!r}")
        if max_memory is not None and max_memory < 1:
            raise ValueError(f"max_memory must be a positive number of bytes or None, got {max_memory!r}")
        if reshape is not None and (layer is None or not callable(reshape)):
            raise ValueError("reshape= is a function of what a layer gives, so it needs layer= as well")
        require(runtime, precision, compile)
        self.combine = combine
        self.fusion = fusion
        self.budget = Budget(batch_size, max_memory, compile, runtime)
        self.layer_names: list[str] = []

    def __call__(
        self,
        images: Tensor,
        *args: Any,
        target: TargetSpec = None,
        differentiable: bool = False,
        **kwargs: Any,
    ) -> Tensor:
        """The maps of a batch.

        Args:
            images: (B, C, H, W) as the model takes them, on its device; signals (B, C, L), volumes (B, C, D, H, W).
            *args: further inputs of the model.
            target: None (the predicted class), an int, (B,) or (B, T) classes, `TopK(k)`, "all", a callable from
                logits (n, ...) to scores (n,), or one callable for each image.
            differentiable: keep the graph from the model's parameters to the maps, for gradient methods, `cam`
                and `eigencam`.
            **kwargs: further inputs of the model by name.

        Returns:
            (B, H, W), or (B, T, H, W) for T targets an image: float32 in [0, 1], on the images' device. (B, L) or
            (B, T, L) of signals, (B, D, H, W) or (B, T, D, H, W) of volumes.

        Raises:
            ValueError: images, target or layer that cannot be explained; the message says how to mend it.
            TypeError: images that are no floating-point tensor, or a target of another kind.
        """
        return self.explain(images, *args, target=target, differentiable=differentiable, **kwargs).maps

    def explain(
        self,
        images: Tensor,
        *args: Any,
        target: TargetSpec = None,
        differentiable: bool = False,
        **kwargs: Any,
    ) -> Explanation:
        """The maps of a batch and what they stand on; arguments as for a call.

        Returns:
            An `Explanation`.
        """
        if self.metas:
            inner = copy.copy(self)
            inner.metas = self.metas[1:]
            found = self.metas[0].explain(inner, images, args, kwargs, target, differentiable)
            self.layer_names = inner.layer_names
            return found
        question = self._question(images, args, kwargs, target, differentiable)
        with evaluation(self.network.model), torch.inference_mode(False), torch.set_grad_enabled(differentiable):
            return self._explanation(question)

    @property
    def name(self) -> str:
        """The method's, as in "sess(gradcam)"."""
        return self.metas[0].name if self.metas else self.method.name

    @property
    def settings(self) -> dict[str, Any]:
        """All options; of meta-methods as plain values, one entry each."""
        return {**self.options, **{meta.name: meta.settings for meta in self.metas}}

    @cached_property
    def scorer(self) -> Scorer:
        """Runs the model alone, on the same terms: logits of a batch, or of rows made as they are needed."""
        return Scorer(self.network, self.budget)

    def on(self, model: nn.Module) -> CAM:
        """The same method, options and layer on another model of the same structure, such as a changed copy."""
        cam = copy.copy(self)
        cam.__dict__.pop("scorer", None)
        cam.network = Network(model, self.network.selector, self.network.precision, self.network.reshape)
        cam.model = model
        if self.layer is not None:
            names = [find_layer(self.network.model, one)[0] for one in as_list(self.layer)]
            cam.layer = names if isinstance(self.layer, Sequence) and not isinstance(self.layer, str) else names[0]
        return cam

    def _question(
        self,
        images: Tensor,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        target: TargetSpec,
        differentiable: bool = False,
    ) -> Question:
        check_images(images, self.network.model, self.network.precision, alone=not (args or kwargs))
        check_rank(images, self.method.name, self.method.ranks)
        if differentiable and "scores" in self.method.needs:
            raise ValueError(f"{self.method.name} has no differentiable form; use a gradient method, cam or eigencam")
        return Question(
            self.method,
            self.options,
            self.network.in_ambient_precision(images.device),
            images,
            args,
            kwargs,
            self._where(),
            target,
            self.budget,
            differentiable,
            combine=self.combine,
        )

    def _where(self) -> LayerSpec:
        """The layer asked for, or what stands for it where the method asks elsewhere."""
        at = self.method.evidence.at
        return INPUT if at == "input" else SCALES if at == "layers" and self.layer is None else self.layer

    def _explanation(self, question: Question) -> Explanation:
        """Ask, inside `evaluation`, and finish."""
        images = question.images
        with counting() as cost:
            answers = answer(question)
        clip = self.method.clip(self.options)
        size = tuple(images.shape[2:])
        raws = [one.spread(size) for one in answers]
        maps = [finish(raw, size, clip) for raw in raws]
        fused = maps[0] if len(maps) == 1 else fuse(self.fusion, maps, raws)
        first = answers[0]
        self.layer_names = [name for one in answers for name in one.layers or (one.forward.captured.name,)]
        raws = [raw[:, 0] if first.target.single else raw for raw in raws]
        classes = first.target.classes
        logits, given = first.forward.logits, first.spread_attributions(size)
        if isinstance(logits, Tensor) and not question.differentiable:
            logits = logits.clone() if logits.is_inference() else logits.detach()
        return Explanation(
            maps=fused[:, 0] if first.target.single else fused,
            raw=raws if self._lists() else raws[0],
            logits=logits,
            target=classes[:, 0] if classes is not None and first.target.single else classes,
            layer=self.layer_names,
            method=self.method.name,
            cost=cost,
            attributions=given if given is None or not first.target.single else given[:, 0],
        )

    def _lists(self) -> bool:
        """Whether there is a raw map for each layer of a list."""
        several = self.layer == SCALES or (isinstance(self.layer, Sequence) and not isinstance(self.layer, str))
        return several and self.method.evidence.at != "layers"

    def __repr__(self) -> str:
        """The model's class, the method and the layer."""
        return f"CAM({type(self.network.model).__name__}, {self.name!r}, layer={self.layer!r})"


def explain(
    model: nn.Module,
    images: Tensor,
    method: str | Meta = "gradcam",
    layer: LayerSpec = None,
    target: TargetSpec = None,
    **options: Any,
) -> Explanation:
    """Explain a batch in one call; what is learned of the model's structure is kept for the next one.

    Args:
        model: see `CAM`.
        images: (B, C, H, W)
        method: its name, or a meta-method.
        layer: see `CAM`.
        target: see `CAM.__call__`.
        **options: of `CAM` and of the method.

    Returns:
        An `Explanation`.
    """
    return CAM(model, method, layer, **options).explain(images, target=target)
