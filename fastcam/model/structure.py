"""What runs between a layer and the logits, seen as psi, mean over positions, head."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .layers import has_class_token, is_pool, is_trivial
from .outputs import first_tensor
from .tokens import Layout, find_layout, gives_features_last

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def is_activation(module: nn.Module) -> bool:
    """Whether a module acts on each value alone: torch's and timm's activation classes."""
    name = type(module).__module__
    mixing = (nn.MultiheadAttention, nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Softmin, nn.GLU)
    return (name == "torch.nn.modules.activation" or name.startswith("timm.layers.activations")) and not isinstance(
        module, mixing
    )


def is_position_wise(module: nn.Module) -> bool:
    """Whether a module maps each position's vector on its own."""
    if isinstance(module, CONVOLUTIONS):
        steps = {*module.kernel_size, *module.stride}
        return steps == {1} and (module.padding in ("valid", "same") or not any(module.padding))
    return isinstance(module, (*NORMS, nn.LayerNorm, nn.Linear)) or is_activation(module)


def takes_maps(module: nn.Module) -> bool:
    """Whether a module takes channels in front of positions, by its class name."""
    return type(module).__name__.endswith(("1d", "2d", "3d"))


def fits(module: nn.Module, layout: Layout) -> bool:
    """Whether a position-wise module is one on a layer's outputs: its channels are where the layer has them."""
    if isinstance(module, (*CONVOLUTIONS, *NORMS)) or takes_maps(module):
        return layout.kind == "maps"
    return is_activation(module) or layout.kind != "maps"


def atoms(model: nn.Module) -> list[nn.Module]:
    """Modules without children, and norms that carry their activation as a child (timm)."""
    found, stack = [], [model]
    while stack:
        module = stack.pop()
        children = list(module.children())
        if not children or isinstance(module, NORMS):
            found.append(module)
        else:
            stack += children
    return list(dict.fromkeys(found))


@dataclass
class Event:
    """One module's run: what it was given, as far as it matters."""

    module: nn.Module
    spatial: bool  # whether its input still has more than one position
    vector: Tensor | None  # its input where it has not
    shape: tuple[int, ...]  # of its output

    @property
    def pooled(self) -> bool:
        """Whether its output has one position only."""
        return _positions(self.shape) == 1


@dataclass
class Recorder:
    """What runs after the layer: `with Recorder(model, layer) as recorder: forward()`."""

    model: nn.Module
    layer: nn.Module
    events: list[Event] = field(default_factory=list)
    _handles: list[Any] = field(default_factory=list)

    def __enter__(self) -> Recorder:
        for module in atoms(self.model):
            self._handles.append(module.register_forward_hook(self._record))
        self._handles.append(self.layer.register_forward_hook(lambda *_: self.events.clear()))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _record(self, module: nn.Module, inputs: Any, output: Any) -> None:
        before, after = first_tensor(inputs), first_tensor(output)
        if before is not None and after is not None:
            vector = None if _positions(before.shape) > 1 else before.detach().clone()
            self.events.append(Event(module, vector is None, vector, tuple(after.shape)))


@dataclass
class Structure:
    """Modules between the layer and the logits, as psi, mean, head."""

    psi: list[nn.Module]
    relu: bool
    head: list[nn.Module]
    _unit: Tensor | None = None

    @property
    def channel_wise(self) -> bool:
        """Whether psi maps each channel on its own."""
        return all(isinstance(m, NORMS) or is_activation(m) for m in self.psi)

    @property
    def empty(self) -> bool:
        """Whether the pooled vector is the logits."""
        return all(is_trivial(m) for m in self.head)

    def unit(self, pooled: Tensor) -> Tensor:
        """The weights of an empty head, the identity, made once. (D, D)"""
        if self._unit is None or self._unit.device != pooled.device or self._unit.dtype != pooled.dtype:
            self._unit = torch.eye(pooled.shape[1], device=pooled.device, dtype=pooled.dtype)
        return self._unit

    @property
    def linear(self) -> nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | None:
        """The head where it is one linear layer."""
        real = [m for m in self.head if not is_trivial(m)]
        one = real[0] if len(real) == 1 else None
        return one if isinstance(one, nn.Linear) or (isinstance(one, CONVOLUTIONS) and one.groups == 1) else None


@dataclass
class Watch:
    """What a known head is given, and gives where it is one layer: `with Watch(structure) as watch: forward()`."""

    structure: Structure
    given: Tensor | None = None
    gave: Tensor | None = None
    _handles: list[Any] = field(default_factory=list)

    def __enter__(self) -> Watch:
        for module in self.structure.head[:1]:
            self._handles.append(module.register_forward_pre_hook(self._before))
        if self.structure.linear is not None:
            self._handles.append(self.structure.linear.register_forward_hook(self._after))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _before(self, _: nn.Module, inputs: Any) -> None:
        given = first_tensor(inputs)
        self.given = None if given is None else given.detach().clone()

    def _after(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        self.gave = first_tensor(output)


def _positions(shape: tuple[int, ...]) -> int:
    """How many positions a tensor of this shape has, (B, D), (B, D, 1, 1) and (B, 1, 1, D) having one."""
    return min(math.prod(shape[2:]), math.prod(shape[1:-1])) if len(shape) > 2 else 1


def is_last_map(
    model: nn.Module, events: list[Event], layout: Layout, image_size: tuple[int, ...], classes: int | None
) -> bool:
    """Whether nothing that ran after a layer gave a later map to explain.

    Pools and the class-score map itself do not count. A model with a class token reads nothing else in the end, so what
    its last attention reads, which `layers.guess` takes there, is the last map with gradients.

    Args:
        model: the network.
        events: what ran after the layer.
        layout: of the layer's output.
        image_size: (H, W) of the images; (L,) of signals, (D, H, W) of volumes.
        classes: how many logits the model gives, or None.
    """
    if layout.prefix:
        return has_class_token(model)
    for index, event in enumerate(events):
        found = find_layout(event.shape, image_size, gives_features_last(event.module))
        if found is None or is_pool(event.module) or is_trivial(event.module):
            continue
        channels = event.shape[1] if found.kind == "maps" else event.shape[-1]
        if channels != classes or any(e.module._parameters for e in events[index + 1 :]):
            return False
    return True


def candidates(events: list[Event]) -> list[Structure]:
    """The structures that the order of modules allows; a functional ReLU leaves no event, so it is tried too."""
    psi: list[nn.Module] = []
    for index, event in enumerate(events):
        if not event.spatial:
            rest = events[index:]
            break
        if is_pool(event.module) and event.pooled:
            rest = events[index + 1 :]
            break
        if is_trivial(event.module):
            continue
        if not is_position_wise(event.module):
            return []
        psi.append(event.module)
    else:
        rest = []
    if any(event.spatial for event in rest):
        return []
    head = [event.module for event in rest]
    return [Structure(psi, False, head), Structure(psi, True, head)]


def row_bytes(model: nn.Module, run: Callable[[], Any]) -> int:
    """The most that one module reads and writes in a forward of one row, in bytes."""
    most = 0

    def weigh(_: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal most
        tensors = [t for t in (first_tensor(inputs), first_tensor(output)) if t is not None]
        most = max(most, sum(t.numel() * t.element_size() for t in tensors))

    handles = [module.register_forward_hook(weigh) for module in atoms(model)]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return most
