"""The compiled copy of a network that a runtime runs: made once for its weights, proved on every use."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .model.network import Network
from .model.tally import count
from .runtimes import Engine, build, refuse

CLOSE = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.1}  # to float32 in torch, of the largest logit
EXPORT_BATCH = 2  # torch.export takes a batch of 1 for a constant


class _Logits(nn.Module):
    """The network with its logits as the only output."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.model, self.select = network.model, network.select
        self.training = False  # as the network is; eval() would call what the network makes of it

    def forward(self, images: Tensor) -> Any:
        return self.select(self.model(images))


def find(
    network: Network, runtime: str, images: Tensor, extra_inputs: bool, row: Tensor, run: Callable[[Tensor], Any]
) -> Callable[[Tensor], Tensor] | None:
    """A runtime's engine for this network as it is now, proved on one row of the work at hand.

    It is kept with what is known of the model, for its weights; weights changed behind torch's back show in the
    proof, and the engine is made again.

    Args:
        network: its model in evaluation mode.
        runtime: its name, not "torch".
        images: (B, C, H, W) of the size, type and device of the rows.
        extra_inputs: whether the model is given more than images.
        row: (1, C, H, W)
        run: rows -> logits, in torch.

    Returns:
        Contiguous images (n, C, H, W) -> logits in the engine; or None, after one warning, where the network cannot
        be exported or is another one afterwards.

    Raises:
        ValueError: the runtime cannot take such inputs.
    """
    refuse(runtime, images, extra_inputs)
    size = tuple(images.shape[1:])
    about = (runtime, network.precision, repr(network.selector), size, torch.get_num_threads())
    key, known = (about, _weights(network.model)), network.facts.engines
    for stale in [one for one in known if one[0] == about and one != key]:
        del known[stale]
    with torch.autocast("cpu", enabled=False):
        expected = run(row)
    if known.get(key) is not None and _same(known[key](row), expected, network.precision):
        return partial(_run, known[key])
    if key in known and known[key] is None:
        return None
    known[key] = _proved(network, runtime, size, row, expected)
    return known[key] and partial(_run, known[key])


def _run(engine: Engine, images: Tensor) -> Tensor:
    count(forwards=len(images))
    return engine(images)


def _proved(network: Network, runtime: str, size: tuple[int, ...], row: Tensor, expected: Any) -> Engine | None:
    """A new engine, if it gives torch's logits for the row taken several times; otherwise a warning and None."""
    many = EXPORT_BATCH + 1  # another batch than the exported one
    try:
        with torch.inference_mode(False), torch.autocast("cpu", enabled=False):
            engine = build(runtime, _Logits(network), torch.zeros(EXPORT_BATCH, *size), network.precision)
        alike = expected.expand(many, *expected.shape[1:])
        same = _same(engine(row.expand(many, *size)), alike, network.precision)
        problem = "" if same else f"gives other logits in {runtime}"
    except Exception as error:
        engine, reason = None, str(error).strip().splitlines() or [type(error).__name__]
        problem = f"cannot run in {runtime} ({reason[0][:200]})"
    if problem:
        warnings.warn(
            f"{type(network.model).__name__} {problem}; its masked forwards run in torch, which gives the same maps; "
            "pass runtime='torch' to silence this",
            stacklevel=4,
        )
    return None if problem else engine


def _same(found: Tensor, expected: Any, precision: str) -> bool:
    if not isinstance(expected, Tensor) or found.shape != expected.shape:
        return False
    return bool((found.float() - expected).abs().max() <= CLOSE[precision] * expected.abs().max())


def _weights(model: nn.Module) -> tuple[Any, ...]:
    """What changes with the modules and with their weights."""
    tensors = [*model.parameters(), *model.buffers()]
    return (
        tuple(map(id, model.modules())),
        tuple((t.data_ptr(), 0 if t.is_inference() else t._version, t.dtype) for t in tensors),
    )
