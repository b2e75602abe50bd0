"""Class activation maps as formulas over tensors: no network is known here."""

from . import (
    activations,
    gradients,
    groups,
    layered,
    optimized,
    perturbations,
    scores,
)
from .registry import METHODS, Method, list_methods, method

__all__ = [
    "METHODS",
    "Method",
    "activations",
    "gradients",
    "groups",
    "layered",
    "list_methods",
    "method",
    "optimized",
    "perturbations",
    "scores",
]
