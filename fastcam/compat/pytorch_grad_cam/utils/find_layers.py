"""Modules of a model found by type or by any test, and replaced in place when that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection

from torch import nn


def find_layer_predicate_recursive(model: nn.Module, predicate: Callable[[nn.Module], bool]) -> list[nn.Module]:
    """The modules below `model` that pass, parents before their children; one that stands twice is found twice."""
    found = []
    for child in _children(model):
        if predicate(child):
            found.append(child)
        found += find_layer_predicate_recursive(child, predicate)
    return found


def find_layer_types_recursive(model: nn.Module, layer_types: Collection[type]) -> list[nn.Module]:
    """The modules below `model` that are exactly of one of these types, not of a type made from them."""
    return find_layer_predicate_recursive(model, lambda layer: type(layer) in layer_types)


def replace_layer_recursive(model: nn.Module, old_layer: nn.Module, new_layer: nn.Module) -> bool:
    """Puts `new_layer` where `old_layer` stands first below `model`; whether it was found."""
    for name, child in model._modules.items():
        if child is old_layer:
            model._modules[name] = new_layer
            return True
        if child is not None and replace_layer_recursive(child, old_layer, new_layer):
            return True
    return False


def replace_all_layer_type_recursive(
    model: nn.Module, old_layer_type: type | tuple[type, ...], new_layer: nn.Module
) -> None:
    """Puts `new_layer` where any module of the type stands below `model`; one module for all of them."""
    for name, child in model._modules.items():
        if child is None:
            continue
        if isinstance(child, old_layer_type):
            model._modules[name] = new_layer
        replace_all_layer_type_recursive(child, old_layer_type, new_layer)


def _children(model: nn.Module) -> list[nn.Module]:
    """With repetitions, unlike `nn.Module.children`."""
    return [child for child in model._modules.values() if child is not None]
