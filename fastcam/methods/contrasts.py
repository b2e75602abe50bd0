"""CAMs of another score than the class's own: what sets it apart from its neighbors, and its second-order share."""

from __future__ import annotations

from torch import Tensor

from .evidence import Options
from .evidence_derivatives import Contrasts, Curvature, number, whole
from .gradients import HW, gradcam, gradcampp, hirescam, layercam, xgradcam
from .registry import method

BASES = {
    one.__name__: one for one in (gradcam, gradcampp, xgradcam, layercam, hirescam)
}  # those that give weights, not maps


def check_contrast(options: Options) -> None:
    """A strength, and a count of classes."""
    alpha, references = options["alpha"], options["references"]
    if alpha is not None and (not number(alpha) or not alpha >= 0):
        raise ValueError(f"finercam: alpha={alpha!r} must be a number from 0 up, or None for that of the variant")
    if not whole(references) or references < 1:
        raise ValueError(f"finercam: references={references!r} must be a positive int, classes to set apart from")


def contrast(logits: Tensor, y: Tensor, references: Tensor, options: Options) -> Tensor:
    """y_c - alpha x the mean of the references' scores, or the mean weighed by their probabilities.

    Args:
        logits: (B, classes)
        y: (B, T) scores of the classes.
        references: (B, T, n) classes to set each apart from.
        options: of the method.

    Returns:
        (B, T)
    """

    def of(values: Tensor) -> Tensor:
        return values.gather(1, references.flatten(1)).view_as(references)

    official, alpha = options["variant"] == "official", options["alpha"]
    alpha = (1.0 if official else 0.6) if alpha is None else alpha
    if not official:
        return y - alpha * of(logits).mean(-1)
    p = of(logits.softmax(1))
    return (p * (y[..., None] - alpha * of(logits))).sum(-1) / (p.sum(-1) + 1e-9)


@method(
    "finercam",
    Contrasts(contrast),
    paper="Zhang 2025, arXiv:2501.11309",
    check=check_contrast,
    base=tuple(BASES),
    variant=("paper", "official"),
    alpha=None,
    references=3,
)
def finercam(a: Tensor, g: Tensor, *, base: str = "gradcam") -> Tensor:
    """w_k = mean_ij of the gradient of y_c - 0.6 mean_d y_d, d the 3 classes that score nearest to c

    "official" is the authors' code: sum_d p_d (y_c - y_d) / sum_d p_d, p the softmax of the logits, which is
    differentiated as well. `base` weighs as that method does.
    """
    return BASES[base](a, g)


def utility(logits: Tensor, classes: Tensor, options: Options) -> Tensor:
    """y_c + log p_c, y_c, or p_c. (B, T)"""
    if options["score"] == "probability":
        return logits.softmax(1).gather(1, classes)
    y = logits.gather(1, classes)
    return y if options["score"] == "logit" else y + logits.log_softmax(1).gather(1, classes)


@method(
    "shapleycam",
    Curvature(utility),
    paper="Cai 2025, arXiv:2501.06261",
    score=("rest", "logit", "probability"),
)
def shapleycam(a: Tensor, g: Tensor, h: Tensor) -> Tensor:
    """w_k = mean_ij (g - H A / 2), H the second derivatives by A of the score y_c + log p_c

    The Shapley value of a channel to the second order of a Taylor series about A. score="logit" takes y_c: behind
    global average pooling and a linear layer H is zero then, and the map that of Grad-CAM. A callable target is taken
    as it is.
    Prefix tokens of a transformer are held fixed, which is our choice.
    """
    return (g - h / 2).mean(HW, keepdim=True)
