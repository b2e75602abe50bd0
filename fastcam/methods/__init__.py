"""Class activation maps as formulas over tensors: no network is known here."""

from . import (
    activations,
    attention,
    components,
    contrasts,
    gradients,
    groups,
    inputs,
    layered,
    learned,
    optimized,
    perturbations,
    random_masks,
    relevance,
    scores,
    searched,
)
from .registry import METHODS, Method, list_methods, method

__all__ = [
    "METHODS",
    "Method",
    "activations",
    "attention",
    "components",
    "contrasts",
    "gradients",
    "groups",
    "inputs",
    "layered",
    "learned",
    "list_methods",
    "method",
    "optimized",
    "perturbations",
    "random_masks",
    "relevance",
    "scores",
    "searched",
]
