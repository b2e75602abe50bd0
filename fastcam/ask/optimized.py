"""Parameters of a mask, optimized along the gradient of the masked image's score: Opti-CAM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from fastcam.methods.evidence_perturbed import OptimizedScores
from fastcam.methods.optimized import Adam
from fastcam.model.forward import Forward
from fastcam.model.outputs import widen
from fastcam.model.tally import count
from fastcam.scoring import DEFAULT_MEMORY
from fastcam.targets import Target

from .perturbed import own_scores
from .question import Question, activations_of, own_pass_a_class

GRAPH_SLACK = 2.0  # gradients that a backward holds beside what the forward saved for it


def optimized(question: Question, forward: Forward, target: Target) -> Tensor:
    """The map of the optimized parameters; images and targets are optimized in chunks side by side. (B, T, h, w)"""
    own_pass_a_class(question, "an optimization")
    evidence, options, images = question.method.evidence, question.options, question.images.detach()
    assert isinstance(evidence, OptimizedScores)
    # Copies: what the forward gave are inference tensors, which no graph takes.
    a, own = activations_of(forward).detach().clone(), own_scores(forward, target, False).clone()
    size = (int(images.shape[-2]), int(images.shape[-1]))
    found = []
    with question.network.running(images.device, autograd=True):
        for rows in _chunks(question, target):
            owners = rows // target.count
            # In float64: along a direction that leaves the mask alone Adam would follow what rounding leaves.
            seen = a[owners].double()
            parameters, adam = evidence.start(seen), Adam(options["rate"])
            run, wanted = _runner(question, target, rows), own.flatten()[rows]
            for _ in range(options["steps"]):
                with torch.enable_grad():
                    parameters = parameters.detach().requires_grad_()
                    with torch.autocast(images.device.type, enabled=False):
                        mask = evidence.mask(parameters, seen, size).to(a.dtype)
                    scores = run((images[owners] * mask).to(images.dtype))
                    loss = evidence.loss(wanted, scores, options).sum()
                    if not loss.requires_grad:
                        raise _no_gradient(question)
                    count(backwards=len(rows))
                    (gradient,) = torch.autograd.grad(loss, parameters, allow_unused=True)
                if gradient is None:
                    raise _no_gradient(question)
                parameters = adam.step(parameters.detach(), gradient)
            found.append(parameters)
    return question.weigh(a[:, None], torch.cat(found).to(a.dtype).unflatten(0, (len(images), -1)))


def _no_gradient(question: Question) -> ValueError:
    return ValueError(
        f"the score does not depend on the image through differentiable operations, {question.method.name} optimizes "
        "along its gradient; choose a target that is a function of the logits, or a method without gradients "
        "(scorecam, rise, occlusion)"
    )


def _runner(question: Question, target: Target, rows: Tensor) -> Callable[[Tensor], Tensor]:
    """Masked images of these rows -> their scores (n,)."""
    network, batch, owners = question.network, len(question.images), rows // target.count

    def own(value: Any) -> Any:
        batched = isinstance(value, Tensor) and value.dim() and len(value) == batch
        return value[owners.to(value.device)] if batched else value

    args, kwargs = [own(v) for v in question.args], {k: own(v) for k, v in question.kwargs.items()}

    def run(masked: Tensor) -> Tensor:
        count(forwards=len(masked))
        logits = network.select(network.model(masked, *args, **kwargs))
        if target.classes is None:
            return widen(target.score_of(logits, int(owners[0])))[:, 0]
        return widen(logits).gather(1, target.classes.flatten()[rows][:, None])[:, 0]

    return run


def _chunks(question: Question, target: Target) -> Iterator[Tensor]:
    """The rows (image, target) in chunks whose graphs fit in the memory allowed."""
    budget, images = question.budget, question.images
    count_ = len(images) * target.count
    rows = torch.arange(count_, device=images.device)
    size = count_ if budget.batch_size == "auto" else int(budget.batch_size)
    allowed = budget.max_memory or (DEFAULT_MEMORY if budget.batch_size == "auto" else None)
    if target.classes is None:
        size = 1  # an output of any kind cannot be cut
    elif allowed is not None and size > 1 and count_ > 1:
        size = max(1, min(size, allowed // _graph_bytes(question, target)))
    yield from rows.split(size)


def _graph_bytes(question: Question, target: Target) -> int:
    """What the graph of one row holds, from a forward of one; learned once for a kind of image."""
    network, images = question.network, question.images.detach()
    key = ("graph", tuple(images.shape[1:]), images.dtype, images.device, network.precision)
    if key not in network.facts.row_bytes:
        known = {p.untyped_storage().data_ptr() for p in network.model.parameters()}
        held: dict[int, int] = {}

        def pack(saved: Tensor) -> Tensor:
            storage = saved.untyped_storage()
            if storage.data_ptr() not in known:
                held[storage.data_ptr()] = storage.nbytes()
            return saved

        run = _runner(question, target, torch.zeros(1, dtype=torch.long, device=images.device))
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
            graph = run(images[:1].clone().requires_grad_().clone())
        del graph
        network.facts.row_bytes[key] = max(1, int(GRAPH_SLACK * sum(held.values())))
    return network.facts.row_bytes[key]
