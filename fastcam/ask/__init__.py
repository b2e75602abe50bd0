"""Put a method's question to a network: evidence in, signed maps (B, T, h, w) out. One file a kind of evidence."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from fastcam.methods.evidence import Activations, Classifier, Contributions, Gradients, InputScores, LayerScores
from fastcam.methods.evidence_derivatives import Attention, Contrasts, Curvature
from fastcam.methods.evidence_inputs import (
    BiasGradients,
    GuidedGradients,
    InputContributions,
    InputGradients,
    PixelMask,
)
from fastcam.methods.evidence_learned import Learned
from fastcam.methods.evidence_perturbed import (
    GroupScores,
    LayeredGradients,
    LayeredScores,
    OptimizedScores,
    PerturbedScores,
    SearchedScores,
)
from fastcam.methods.evidence_relevance import InputRelevance, LayerRelevance
from fastcam.model.forward import Forward
from fastcam.model.network import without_autocast
from fastcam.targets import Target, resolve

from . import at_input, at_layer, attention, derivatives, layered, learned, masked, pixels, relevance
from .groups import by_groups
from .optimized import optimized
from .perturbed import perturbed
from .question import Answer, Question, Sights
from .sampled import sampled
from .searched import searched

__all__ = ["Answer", "Question", "Sights", "answer"]

Ask = Callable[[Question, list[Forward], Target], list[Answer]]


def each(ask: Callable[[Question, Forward, Target], Tensor]) -> Ask:
    """What is asked of each layer by itself: a function that gives one layer's maps (B, T, h, w)."""
    return lambda question, forwards, target: [Answer(ask(question, f, target), f, target) for f in forwards]


def gradients(question: Question, forwards: list[Forward], target: Target) -> list[Answer]:
    """Gradients of the images, or of several versions of them."""
    evidence = question.method.evidence
    assert isinstance(evidence, Gradients)
    ask = sampled if evidence.noisy or evidence.path else each(at_layer.gradients)
    return ask(question, forwards, target)


ASKS: dict[type, Ask] = {
    Activations: each(at_layer.activations),
    Classifier: each(at_layer.classifier),
    Contributions: each(at_layer.contributions),
    Gradients: gradients,
    Attention: attention.attention,
    Contrasts: each(derivatives.contrasts),
    Curvature: each(derivatives.curvature),
    InputGradients: at_input.gradients,
    GuidedGradients: at_input.guided,
    InputContributions: at_input.contributions,
    BiasGradients: at_input.bias_gradients,
    PixelMask: pixels.masked,
    InputRelevance: relevance.at_input,
    InputScores: each(masked.by_input_scores),
    LayerRelevance: relevance.at_layer,
    LayerScores: each(masked.by_layer_scores),
    GroupScores: each(by_groups),
    LayeredGradients: layered.gradients,
    LayeredScores: layered.scores,
    Learned: learned.learned,
    OptimizedScores: each(optimized),
    PerturbedScores: each(perturbed),
    SearchedScores: each(searched),
}

# Those that take a forward of another kind.
LOOKS: dict[type, Callable[[Question], list[Forward]]] = {
    Attention: attention.look,
    Curvature: derivatives.look,
    Learned: learned.look,
}


def answer(question: Question) -> list[Answer]:
    """The signed maps of each layer.

    Args:
        question: what is asked.

    Returns:
        One answer a layer.

    Raises:
        ValueError: the method cannot be served by this model or for this target.
    """
    look = LOOKS.get(type(question.method.evidence))
    forwards = question.look(question.images) if look is None else look(question)
    target = resolve(question.target, forwards[0].logits, len(question.images))
    ask = ASKS[type(question.method.evidence)]
    with without_autocast(question.images.device):
        return ask(question, forwards, target)
