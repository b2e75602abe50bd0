"""The copy of a network that runs its masked forwards: made once for its weights, proved on every use."""

from __future__ import annotations

import contextlib
import functools
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .model.folded import copied_bytes, fold
from .model.network import HALF, Network
from .model.outputs import select
from .model.tally import count
from .runtimes import build
from .scoring import DEFAULT_MEMORY, Budget
from .streams import Graphs

CLOSE = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.1}  # to float32 in torch, of the largest logit
FOLDED_CLOSE = 1e-4  # float32 to float32
EXPORT_BATCH = 2  # torch.export takes a batch of 1 for a constant
WORTH = 64  # rows below which folding takes longer than it saves


class _Logits(nn.Module):
    """The network with its logits as the only output."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.model, self.select = network.model, network.select
        self.training = False  # as the network is; eval() would call what the network makes of it

    def forward(self, images: Tensor) -> Any:
        return self.select(self.model(images))


@dataclass
class Engine:
    """What runs rows in place of the model.

    Attributes:
        run: (n, C, H, W) -> logits.
        bytes_: memory that it holds.
        channels_last: the layout that it wants.
    """

    run: Callable[[Tensor], Any]
    bytes_: int = 0
    channels_last: bool = False

    def __call__(self, rows: Tensor) -> Any:
        """The logits of rows (n, C, H, W)."""
        count(forwards=len(rows))
        return self.run(rows)


def find(
    network: Network, budget: Budget, images: Tensor, rows: int, first: Callable[[], Tensor], run: Callable[..., Any]
) -> Engine | None:
    """An engine for this network as it is now, proved on one row of the work at hand.

    In torch it is the folded network, where that can be made and pays; in another runtime the exported one. It is
    kept with what is known of the model, for its weights; weights changed behind torch's back show in the proof, and
    the engine is made again.

    Args:
        network: its model in evaluation mode, inside `running`.
        budget: the runtime, and the memory allowed.
        images: (B, C, H, W) of the size, type and device of the rows.
        rows: how many there are.
        first: gives the first row (1, C, H, W).
        run: rows -> logits, by the model itself.

    Returns:
        The engine; or None where the model runs itself, in another runtime than torch after one warning.
    """
    size, runtime = tuple(images.shape[1:]), budget.runtime
    here = (size, images.dtype, images.device, torch.get_num_threads())
    about = (runtime, budget.compile, network.precision, repr(network.selector), here)
    key, known = (about, _weights(network.model)), network.facts.engines
    for stale in [one for one in known if one[0] == about and one != key]:
        del known[stale]
    if key in known and known[key] is None:
        return None
    if runtime == "torch" and not (_plain(network.model) and (key in known or _pays(network, budget, rows))):
        return None
    row = first()

    @functools.cache
    def expected() -> Any:
        with contextlib.nullcontext() if runtime == "torch" else torch.autocast("cpu", enabled=False):
            return run(row)

    if key not in known or not _same(known[key].run(row), expected(), _tolerance(network, runtime)):
        make = _folded if runtime == "torch" else _exported
        known[key] = make(network, budget, row, expected)
    return known[key]


def _plain(model: nn.Module) -> bool:
    """Whether nothing hangs on the model's modules that a copy would not run; a hook may say that it is `idle`."""
    hooks = (by_id for m in model.modules() for by_id in (m._forward_hooks, m._forward_pre_hooks))
    return all(getattr(hook, "idle", False) for by_id in hooks for hook in by_id.values())


def _pays(network: Network, budget: Budget, rows: int) -> bool:
    """Whether a folded copy is worth its making, or asked for, and small beside the memory allowed."""
    allowed = budget.max_memory or (DEFAULT_MEMORY if budget.batch_size == "auto" else None)
    fits = allowed is None or copied_bytes(network.model) <= allowed // 2
    return budget.compile == "graphs" or (rows >= WORTH and fits)


def _folded(network: Network, budget: Budget, row: Tensor, expected: Callable[[], Any]) -> Engine | None:
    """The folded network, and with it or without as CUDA graphs where asked for; None where there is neither."""
    graphs = budget.compile == "graphs"
    selector, alive = network.selector, weakref.ref(network.model)  # what is kept must not keep the model
    with contextlib.suppress(RuntimeError):  # of a kernel that this torch or this CPU does not have
        folded = fold(network.model, row, HALF.get(network.precision))
        if folded is not None:
            engine = Engine(lambda rows: select(folded(rows), selector), copied_bytes(network.model), True)
            if _same(engine.run(row), expected(), _tolerance(network, "torch")):
                return Engine(Graphs(engine.run), engine.bytes_, True) if graphs else engine
    return Engine(Graphs(lambda rows: select(alive()(rows), selector))) if graphs else None  # type: ignore[misc]


def _exported(network: Network, budget: Budget, row: Tensor, expected: Callable[[], Any]) -> Engine | None:
    """The network in another runtime, if it gives torch's logits for the row taken several times; or a warning."""
    many, runtime, size = EXPORT_BATCH + 1, budget.runtime, tuple(row.shape[1:])  # another batch than the exported one
    logits = expected()
    try:
        with torch.inference_mode(False), torch.autocast("cpu", enabled=False):
            engine = build(runtime, _Logits(network), torch.zeros(EXPORT_BATCH, *size), network.precision)
        alike = logits.expand(many, *logits.shape[1:])
        same = _same(engine(row.expand(many, *size)), alike, _tolerance(network, runtime))
        problem = "" if same else f"gives other logits in {runtime}"
    except Exception as error:
        engine, reason = None, str(error).strip().splitlines() or [type(error).__name__]
        problem = f"cannot run in {runtime} ({reason[0][:200]})"
    if problem:
        warnings.warn(
            f"{type(network.model).__name__} {problem}; its masked forwards run in torch, which gives the same maps; "
            "pass runtime='torch' to silence this",
            stacklevel=5,
        )
    return None if problem or engine is None else Engine(engine)


def _tolerance(network: Network, runtime: str) -> float:
    return FOLDED_CLOSE if runtime == "torch" and network.precision == "float32" else CLOSE[network.precision]


def _same(found: Any, expected: Any, tolerance: float) -> bool:
    if not isinstance(expected, Tensor) or not isinstance(found, Tensor) or found.shape != expected.shape:
        return False
    return bool((found.float() - expected.float()).abs().max() <= tolerance * expected.abs().max())


def _weights(model: nn.Module) -> tuple[Any, ...]:
    """What changes with the modules and with their weights."""
    tensors = [*model.parameters(), *model.buffers()]
    return (
        tuple(map(id, model.modules())),
        tuple((_place(t), 0 if t.is_inference() else t._version, t.dtype) for t in tensors),
    )


def _place(tensor: Tensor) -> int:
    """Where a tensor's values lie; of a subclass that has none of its own, such as a quantized weight, which it is."""
    try:
        return tensor.data_ptr() or id(tensor)
    except RuntimeError:
        return id(tensor)
