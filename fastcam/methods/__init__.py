"""Class activation maps as formulas over tensors: no network is known here."""

from . import (
    activations,
    components,
    contrasts,
    gradients,
    groups,
    inputs,
    layered,
    optimized,
    perturbations,
    scores,
    searched,
)
from .registry import METHODS, Method, list_methods, method

__all__ = [
    "METHODS",
    "Method",
    "activations",
    "components",
    "contrasts",
    "gradients",
    "groups",
    "inputs",
    "layered",
    "list_methods",
    "method",
    "optimized",
    "perturbations",
    "scores",
    "searched",
]
