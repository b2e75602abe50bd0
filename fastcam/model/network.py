"""A network as the methods may question it: activations, logits, a tail, scores of other images."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from . import layers, pooled, tally
from .capture import Captured, capture
from .forward import Forward
from .outputs import NoMapError, Selector, require_finite, select
from .reshape import Reshape, Reshaped
from .split import Split
from .structure import Recorder, Structure, Watch, is_last_map
from .tokens import Layout

Shot = tuple[Captured, Any, Any, "pooled.PooledTail | None"]
HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class Facts:
    """What is known of a model; it outlives the objects that asked, and never keeps the model alive."""

    structures: dict[str, Structure | None] = field(default_factory=dict)
    splits: dict[Any, Split | None] = field(default_factory=dict)
    defaults: dict[Any, str] = field(default_factory=dict)
    scales: dict[Any, list[str]] = field(default_factory=dict)
    blocks: dict[Any, tuple[list[str], int]] = field(default_factory=dict)
    tunings: dict[Any, Any] = field(default_factory=dict)
    row_bytes: dict[Any, int] = field(default_factory=dict)
    engines: dict[Any, Any] = field(default_factory=dict)


_facts: weakref.WeakKeyDictionary[nn.Module, Facts] = weakref.WeakKeyDictionary()


class Network:
    """A model and how to run it.

    Args:
        model: any `nn.Module` that maps images (B, C, H, W), signals (B, C, L) or volumes (B, C, D, H, W) to logits;
            a compiled one is run eagerly where layers must be seen.
        output: what to score in the model's output, see `outputs.select`.
        precision: "float32" runs the model as it is, "bfloat16" and "float16" under autocast.
        reshape: what shows the maps in what a layer gives.
    """

    def __init__(
        self,
        model: nn.Module,
        output: Selector = None,
        precision: str = "float32",
        reshape: Reshape | None = None,
    ):
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        if precision != "float32" and precision not in HALF:
            raise ValueError(f"precision must be 'float32', 'bfloat16' or 'float16', got {precision!r}")
        self.model: nn.Module = getattr(model, "_orig_mod", model)
        self.selector = output
        self.precision = precision
        self.reshape = reshape
        self.facts = _facts.setdefault(self.model, Facts())

    def in_ambient_precision(self, device: torch.device) -> Network:
        """This network with the autocast that the caller has switched on, if any, as its own precision."""
        if not torch.is_autocast_enabled(device.type):
            return self
        ambient = str(torch.get_autocast_dtype(device.type)).removeprefix("torch.")
        return Network(self.model, self.selector, ambient, self.reshape)

    def select(self, output: Any) -> Any:
        """The logits in a model's output."""
        return select(output, self.selector)

    @contextlib.contextmanager
    def running(self, device: torch.device, *, compiled: bool = False, autograd: bool = False) -> Iterator[None]:
        """The state in which the model runs, inside `evaluation`: no gradients, the chosen precision.

        Args:
            device: of the images.
            compiled: let `torch.compile` work.
            autograd: whether tensors made inside are to enter autograd; without it they are inference tensors, which
                saves 1 to 2 percent of a small network's forward.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.inference_mode(not autograd))
            stack.enter_context(torch.no_grad())
            if compiled:
                stack.enter_context(torch.compiler.set_stance("default"))
            if self.precision != "float32":
                stack.enter_context(torch.autocast(device.type, dtype=HALF[self.precision]))
            yield

    def forward(
        self,
        images: Tensor,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        layer: layers.LayerSpec,
        *,
        grad: bool,
        differentiable: bool = False,
    ) -> list[Forward]:
        """One forward of the model, seen at each layer.

        Args:
            images: (B, C, H, W), (B, C, L) or (B, C, D, H, W)
            args: further inputs of the model.
            kwargs: the same by name.
            layer: None, a name, a module, a list of them, `layers.SCALES`, or `layers.INPUT`.
            grad: record the tail, unless it is known to be a pooled one.
            differentiable: record everything.

        Returns:
            A `Forward` a layer.
        """
        size = tuple(int(n) for n in images.shape[2:])

        def run(x: Tensor = images) -> Any:
            tally.count(forwards=len(images))
            return self.model(x, *args, **kwargs)

        if layer == layers.INPUT:
            shot = self._see_input(run, images, record=grad or differentiable, graph=differentiable)
            return [Forward(self, images, args, kwargs, *shot)]

        def see(names: list[str]) -> list[Shot]:
            return self._see(run, size, names, images.device, grad=grad, differentiable=differentiable)

        key = (tuple(images.shape[1:]), len(args), tuple(kwargs))
        if layer == layers.SCALES:
            if key not in self.facts.scales:
                self.facts.scales[key] = self._scales(run, size, images.device)
            shots = see(self.facts.scales[key])
        elif layer is None:
            shots = self._see_default(run, size, see, key, images.device)
        else:
            shots = see([layers.find(self.model, one)[0] for one in layers.as_list(layer)])
        several = len(shots) > 1  # the first of their backwards must leave the graph to the next
        return [Forward(self, images, args, kwargs, *shot, shared=several) for shot in shots]

    def _see_input(self, run: Callable[[Tensor], Any], images: Tensor, *, record: bool, graph: bool) -> Shot:
        """One forward seen from the images; with `record` they are the leaf, or with `graph` what they come from is."""
        x = images.clone() if images.is_inference() else images
        x = x if graph and x.requires_grad else x.detach()
        with self.running(images.device, autograd=record), torch.set_grad_enabled(record):
            # A copy runs: a network may begin with an in-place operation, which no leaf allows.
            output = run(x.requires_grad_().clone() if record else x)
        with torch.set_grad_enabled(record):
            logits = self.select(output)
        self.require_finite(logits)
        return Captured(layers.INPUT, x, Layout.of("maps", tuple(images.shape[2:]))), output, logits, None

    def _see_default(
        self,
        run: Callable[[], Any],
        size: tuple[int, ...],
        see: Callable[[list[str]], list[Shot]],
        key: Any,
        device: torch.device,
    ) -> list[Shot]:
        """The default layer's shot: one forward where it is known or well guessed, two or three otherwise."""
        if key in self.facts.defaults:
            return see([self.facts.defaults[key]])
        guessed = layers.guess(self.model)
        if guessed is not None:
            with contextlib.suppress(NoMapError):
                shots = see([guessed])
                one, _, logits, _ = shots[0]
                if one.after is not None and is_last_map(self.model, one.after, one.layout, size, _classes(logits)):
                    self.facts.defaults[key] = guessed
                    return shots
        self.facts.defaults[key] = self._scales(run, size, device)[-1]
        return see([self.facts.defaults[key]])

    def _scales(self, run: Callable[[], Any], size: tuple[int, ...], device: torch.device) -> list[str]:
        """The last map of each resolution, the default layer last, from a forward that is watched."""
        with layers.Trace(self.model, size) as trace, self.running(device):
            logits = self.select(run())
        names = trace.scales(_classes(logits))
        if not names:
            raise ValueError(
                f"{type(self.model).__name__} gives no spatial map for images of {'x'.join(map(str, size))}; "
                "pass layer= one that does, or larger images"
            )
        return names

    def _see(
        self,
        run: Callable[[], Any],
        size: tuple[int, ...],
        names: list[str],
        device: torch.device,
        *,
        grad: bool,
        differentiable: bool,
    ) -> list[Shot]:
        """One forward with eyes on these layers; structures are found on the first and proved on each."""
        structures, wanted = self.facts.structures, grad
        known = len(names) == 1 and structures.get(names[0]) is not None
        grad = grad and not (known and self.reshape is None)
        modules = {name: self.model.get_submodule(name) for name in names}
        with contextlib.ExitStack() as stack:
            recorders = {n: stack.enter_context(Recorder(self.model, modules[n])) for n in names if n not in structures}
            watches = {n: stack.enter_context(Watch(s)) for n in names if (s := structures.get(n)) is not None}
            stack.enter_context(self.running(device, autograd=grad or differentiable))
            seen = [(n, modules[n]) for n in names]
            captured, output = capture(run, seen, size, grad=grad, differentiable=differentiable, reshape=self.reshape)
        with torch.set_grad_enabled(grad or differentiable):  # a selector may compute
            logits = self.select(output)
        self.require_finite(logits)
        shots: list[Shot] = []
        for one in captured:
            tail = None
            if isinstance(one.layout, Reshaped):
                pass  # what is known of the layer is not known of what is made of it
            elif one.name in recorders:
                one.after = recorders[one.name].events
                tail = pooled.find(one.after, one, logits)
                structures[one.name] = tail and tail.structure
            elif (structure := structures[one.name]) is not None:
                tail = pooled.prove(structure, one, watches[one.name].given, watches[one.name].gave, logits)
                if tail is None:  # what held before does not hold here: look again, from the start
                    del structures[one.name]
                    return self._see(run, size, names, device, grad=wanted, differentiable=differentiable)
            shots.append((one, output, logits, tail))
        return shots

    @staticmethod
    def require_finite(logits: Any) -> None:
        """Raise where the model's output is NaN or infinite."""
        if isinstance(logits, Tensor):
            require_finite(logits, "the model's output has", "check its weights and the scale of the images")


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """The state in which fastcam's own arithmetic runs, whatever autocast is on around it."""
    on = torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if on else contextlib.nullcontext()


def _classes(logits: Any) -> int | None:
    return logits.shape[1] if isinstance(logits, Tensor) and logits.dim() > 1 else None
