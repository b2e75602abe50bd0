"""Find a layer: by name, by module, or the last spatial map by itself."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .capture import evaluation
from .outputs import first_tensor, select
from .tokens import Layout, find_layout, gives_features_last

One = str | nn.Module
LayerSpec = One | Sequence[One] | None
INPUT = "(input)"  # the images themselves, where a layer would stand; no module can have this name
SCALES = "(scales)"  # the last map of each resolution, where a layer would be named
TRIVIAL = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Identity, nn.Flatten)


@dataclass(frozen=True)
class LayerInfo:
    """One layer that can be explained: its name, class, output shape, and whether it is the default."""

    name: str
    kind: str
    shape: tuple[int, ...]
    default: bool


def as_list(layer: One | Sequence[One]) -> list[One]:
    """One layer or several, as a list.

    Raises:
        ValueError: an empty list.
    """
    many = [layer] if isinstance(layer, (str, nn.Module)) or not isinstance(layer, Sequence) else list(layer)
    if not many:
        raise ValueError("layer is an empty list; give at least one layer, or None for the default")
    return many


def find(model: nn.Module, layer: One) -> tuple[str, nn.Module]:
    """The (name, module) of a layer given by either.

    Args:
        model: the network.
        layer: a dotted name as in `model.named_modules()`, or one of its modules.

    Raises:
        ValueError: no such layer; the message names the nearest ones.
        TypeError: neither a name nor a module.
    """
    names = dict(model.named_modules())
    if isinstance(layer, str):
        if layer in names and layer:
            return layer, names[layer]
        near = difflib.get_close_matches(layer, list(names), n=4, cutoff=0.4) or list(names)[-4:]
        raise ValueError(f"no layer named {layer!r} in {type(model).__name__}; nearest: {', '.join(near)}")
    if isinstance(layer, nn.Module):
        for name, module in names.items():
            if module is layer and name:
                return name, module
        raise ValueError(
            f"the {type(layer).__name__} given as layer is not inside this {type(model).__name__}; "
            "pass one of model.named_modules(), e.g. model.layer4"
        )
    raise TypeError(f"layer must be a name, an nn.Module, a list of them or None, got {type(layer).__name__}")


def find_one(model: nn.Module, layer: One | None, what: str) -> str | None:
    """The name of the one layer asked for, or None where none is.

    Args:
        model: the network.
        layer: see `find`.
        what: what is done at it, for the error.

    Raises:
        ValueError: several layers, or no such layer.
    """
    if layer is None:
        return None
    if len(as_list(layer)) > 1:
        raise ValueError(f"{what}, got {layer!r}")
    return find(model, as_list(layer)[0])[0]


def is_pool(module: nn.Module) -> bool:
    """Whether a module pools, by its class name: torch's and timm's pools all carry it."""
    return "Pool" in type(module).__name__


def is_trivial(module: nn.Module) -> bool:
    """Whether a module leaves values as they are at inference: dropout, identity, views."""
    return isinstance(module, TRIVIAL) or type(module).__name__ in ("DropPath", "StochasticDepth", "Permute")


def has_class_token(model: nn.Module) -> bool:
    """Whether some module holds a class token, by the names that torchvision, timm and Hugging Face give it."""
    return any("cls_token" in m._parameters or "class_token" in m._parameters for m in model.modules())


def guess(model: nn.Module) -> str | None:
    """The likely default layer, from the order of registration alone.

    A right guess saves the second forward that a first explanation would need; `Trace.default` has the last word.
    """
    names = {module: name for name, module in model.named_modules()}
    if has_class_token(model):
        attention = [m for m in names if "Attention" in type(m).__name__]
        for parent in reversed(list(names)):
            for norm, reader in itertools.pairwise(parent.children()):
                if reader in attention and "Norm" in type(norm).__name__:
                    return names[norm]
        return None
    module, found = model, None
    while True:
        inner = _last_spatial_child(module, is_root=module is model)
        if inner is None:
            return found
        found, module = names[inner], inner
        ends_in_pool = isinstance(module, nn.Sequential) and _ends_in_pool(module)
        if not ends_in_pool and not isinstance(module, nn.ModuleList):
            return found


def _ends_in_pool(module: nn.Module) -> bool:
    children = [m for m in module.children() if not is_trivial(m)]
    return bool(children) and is_pool(children[-1])


def _last_spatial_child(module: nn.Module, is_root: bool) -> nn.Module | None:
    children = list(module.children())
    if isinstance(module, nn.ModuleList):
        return children[-1] if children else None
    has_linear = any(isinstance(m, nn.Linear) for m in module.modules())
    pools = [i for i, child in enumerate(children) if is_pool(child) and "Max" not in type(child).__name__]
    end = pools[-1] if is_root and pools and pools[-1] else len(children)
    for position, child in reversed(list(enumerate(children[:end]))):
        if is_pool(child) or is_trivial(child) or "Aux" in type(child).__name__:
            continue
        if is_root and not has_linear and position == len(children) - 1 and position:
            continue  # without a linear layer the last convolutions are the classifier (SqueezeNet)
        convolves = any(isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) for m in child.modules())
        pointwise = not list(child.children()) and not isinstance(child, nn.Linear)
        if convolves or pointwise or isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            return child
    return None


@dataclass
class _Group:
    """Modules that hand out one and the same tensor, innermost first."""

    shape: tuple[int, ...]
    layout: Layout
    modules: list[tuple[str, nn.Module]]
    feeds_attention: bool = False


@dataclass
class Trace:
    """Which modules gave which maps, in the order of one forward: `with Trace(model, size):`."""

    model: nn.Module
    image_size: tuple[int, ...]
    groups: list[_Group] = field(default_factory=list)
    _weighed: int = 0  # groups that some module with weights came after
    _last: Tensor | None = None
    _handles: list[Any] = field(default_factory=list)

    def __enter__(self) -> Trace:
        for name, module in self.model.named_modules():
            if name:
                self._handles.append(module.register_forward_hook(self._record(name)))
            if "Attention" in type(module).__name__:
                self._handles.append(module.register_forward_pre_hook(self._attention))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._last = None

    def _attention(self, *_: object) -> None:
        if self.groups:
            self.groups[-1].feeds_attention = True

    def _record(self, name: str) -> Any:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            tensor = first_tensor(output)
            if tensor is None:
                return
            if module._parameters:
                self._weighed = len(self.groups)
            if self._last is not None and _same_memory(tensor, self._last):
                self.groups[-1].modules.append((name, module))
                return
            layout = find_layout(tuple(tensor.shape), self.image_size, gives_features_last(module))
            if layout is not None:
                self.groups.append(_Group(tuple(tensor.shape), layout, [(name, module)]))
                self._last = tensor

        return hook

    def default(self, classes: int | None) -> str | None:
        """The default layer: the last spatial map before pooling that is not the class-score map itself.

        A model with a class token reads nothing else after its last attention, so there the default is the
        map that this attention reads: a later one would get zero gradients everywhere.

        Args:
            classes: how many logits the model gives, or None.

        Returns:
            The outermost name of that map, or None when the model gives no spatial map.
        """
        usable = [(i, g) for i, g in enumerate(self.groups) if not is_pool(g.modules[0][1])]
        if any(g.layout.prefix for _, g in usable):
            usable = [(i, g) for i, g in usable if g.feeds_attention and g.layout.kind == "tokens"] or usable
        for index, group in reversed(usable):
            score_map = index >= self._weighed and classes is not None and _channels(group) == classes
            names = [name for name, module in group.modules if not is_trivial(module)]
            if names and not score_map:
                return names[-1]
        return None

    def scales(self, classes: int | None) -> list[str]:
        """The last map of each resolution down to the default layer, of the maps of the outermost modules.

        Args:
            classes: how many logits the model gives, or None.

        Returns:
            Names in the order of execution, the default layer last; empty where there is none.
        """
        default, found = self.default(classes), {}
        for group in self.groups if default is not None else []:
            names = [name for name, module in group.modules if not is_trivial(module)]
            if not names or is_pool(group.modules[0][1]) or group.layout.kind == "tokens":
                continue
            depth, size = names[-1].count("."), group.layout.size
            if size not in found or depth <= found[size][0]:
                found[size] = (depth, names[-1])
            if default in names:
                break
        ends = next((g.layout.size for g in self.groups if any(n == default for n, _ in g.modules)), None)
        return [name for size, (_, name) in found.items() if size != ends] + ([] if default is None else [default])

    def infos(self, classes: int | None) -> Iterator[LayerInfo]:
        """Every layer with a spatial map, in order of execution."""
        default = self.default(classes)
        last = {
            name: LayerInfo(name, type(module).__name__, group.shape, name == default)
            for group in self.groups
            for name, module in group.modules
        }  # of a module that runs twice, the last run
        yield from last.values()


def _channels(group: _Group) -> int:
    return group.shape[1] if group.layout.kind == "maps" else group.shape[-1]


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a is b or (
        a.numel() == b.numel()
        and a.layout is torch.strided is b.layout
        and a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
    )


def list_layers(model: nn.Module, images: Tensor, *args: Any, **kwargs: Any) -> list[LayerInfo]:
    """The layers that can be explained, in the order of one forward, with the default marked.

    Args:
        model: the network.
        images: (B, C, H, W), (B, C, L) or (B, C, D, H, W)
        *args: further inputs of the model.
        **kwargs: the same by name.

    Returns:
        Name, class and output shape of each layer with a spatial map.
    """
    size = tuple(int(n) for n in images.shape[2:])
    with evaluation(model), torch.no_grad(), Trace(model, size) as trace:
        logits = select(model(images, *args, **kwargs))
    classes = logits.shape[1] if isinstance(logits, Tensor) and logits.dim() > 1 else None
    return list(trace.infos(classes))
