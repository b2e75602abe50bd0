"""What no implementation can beat on this machine: the bare network's own time for the same work."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.clock import seconds
from bench.models import Subject, halves
from fastcam.runtimes import build

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
BATCHES = (1, 2, 4, 8, 16, 32, 64)
WORTH = 0.97  # larger batches are given up below this share of the best rate so far


def forward(subject: Subject) -> Callable[[], Tensor]:
    """The bare forward of the same batch."""

    @torch.inference_mode()
    def run() -> Tensor:
        return subject.model(subject.images)

    return run


@dataclass
class Rate:
    """Rows a second of one kind of forward at its best batch.

    Attributes:
        run: one forward of that batch.
        rows: in it.
        label: the batch and the memory layout, in words.
        seen: seconds of each forward timed so far.
    """

    run: Callable[[], object]
    rows: int
    label: str
    seen: list[float]

    @property
    def per_second(self) -> float:
        return self.rows / statistics.median(self.seen)

    def again(self, times: int = 3) -> None:
        """Time it again, so that the floor is taken before and after the work that it bounds."""
        self.seen += [seconds(self.run) for _ in range(times)]


def images_rate(
    subject: Subject, batches: Sequence[int] = BATCHES, runtime: str = "torch", precision: str = "float32"
) -> Rate:
    """The best images a second of the bare network in a runtime, over batches and, in torch, memory layouts."""
    model = subject.model
    if runtime != "torch":
        engine = build(runtime, model, subject.images[:1].repeat(2, 1, 1, 1), precision)
        best = _best(engine, subject.images[:1], batches, torch.contiguous_format, f"{runtime} {precision}")
        return _settled([best])

    def run(net: nn.Module, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, HALF.get(precision), enabled=precision in HALF):
            return net(images)

    def layouts() -> Iterator[tuple[str, nn.Module, torch.memory_format]]:
        yield "as it is", model, torch.contiguous_format
        yield "channels-last images", model, torch.channels_last
        last: nn.Module = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        yield "channels-last images and weights", last, torch.channels_last

    rates = [
        _best(lambda x, net=net: run(net, x), subject.images[:1], batches, layout, label)
        for label, net, layout in layouts()
    ]
    return _settled(rates)


def tail_rate(subject: Subject, batches: Sequence[int] = BATCHES) -> tuple[Callable[[], Tensor], Rate]:
    """The head's forward of one image, and the best rows a second of the tail alone."""
    head, tail = halves(subject)

    @torch.inference_mode()
    def run_head() -> Tensor:
        return head(subject.images)

    rate = _best(tail, run_head()[:1], batches, torch.contiguous_format, "tail")
    return run_head, _settled([rate])


def rescale_pass(subject: Subject) -> Callable[[], object]:
    """One head forward, and a forward and a backward of the tail for the image and its reference."""
    head, tail = halves(subject)

    def run() -> object:
        with torch.no_grad():
            a = head(subject.images)
        both = torch.cat([a, torch.zeros_like(a)]).requires_grad_()
        return torch.autograd.grad(tail(both)[: len(a)].amax(1).sum(), both)

    return run


def _best(
    network: Callable[[Tensor], Tensor], one: Tensor, batches: Sequence[int], layout: torch.memory_format, label: str
) -> Rate:
    best: Rate | None = None
    for count in batches:
        rows = one.detach().repeat(count, 1, 1, 1).contiguous(memory_format=layout)

        @torch.inference_mode()
        def run(rows: Tensor = rows) -> Tensor:
            return network(rows)

        run()
        rate = Rate(run, count, f"batch {count}, {label}", [seconds(run) for _ in range(2)])
        if best is not None and rate.per_second < WORTH * best.per_second:
            break
        if best is None or rate.per_second > best.per_second:
            best = rate
    assert best is not None
    return best


def _settled(rates: Sequence[Rate]) -> Rate:
    """The best of several, each timed some more: one lucky forward decides nothing."""
    for rate in rates:
        rate.again()
    return max(rates, key=lambda rate: rate.per_second)


def activations(subject: Subject) -> Tensor:
    """What the layer gives, (B, C, h, w)."""
    seen: list[Tensor] = []
    handle = subject.module.register_forward_hook(lambda _module, _given, output: seen.append(output.clone()))
    forward(subject)()
    handle.remove()
    return seen[0]


def masks(subject: Subject) -> int:
    """How many masked images Score-CAM must classify: distinct masks, and one for all constant channels."""
    flat = activations(subject)[0].flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    live = (high > low)[:, 0]
    distinct = torch.unique((flat[live] - low[live]) / (high[live] - low[live]), dim=0)
    return len(distinct) + int(not bool(live.all()))
