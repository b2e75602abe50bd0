"""Class activation maps as formulas over tensors: no network is known here."""

from . import activations, gradients, scores
from .registry import METHODS, Method, list_methods, method

__all__ = ["METHODS", "Method", "activations", "gradients", "list_methods", "method", "scores"]
