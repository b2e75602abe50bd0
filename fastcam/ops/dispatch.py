"""An op is a torch reference plus faster twins; the first twin that can run, runs."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor

from fastcam.ops import native

P = ParamSpec("P")
R = TypeVar("R")

DEVICES = {"cuda": "cuda", "triton": "cuda", "cpu": "cpu"}  # backend: its device, fastest first
BACKENDS = ("reference", *DEVICES)
TRITON = importlib.util.find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton's kernels then run on the CPU too, for tests
IMITATED = {"triton": INTERPRETED, "cuda": native.EMULATED}  # whether a backend of a GPU also takes CPU tensors
OPS: dict[str, Op[..., Any]] = {}


def _known(backend: str | None, origin: str) -> str | None:
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"{origin}: unknown backend {backend!r}, choose from {', '.join(BACKENDS)}")
    return backend


_forced = _known(os.environ.get("FASTCAM_BACKEND") or None, "FASTCAM_BACKEND")


class Op(Generic[P, R]):
    """Callable like its reference, which it documents; `twins` holds the faster versions by backend.

    Args:
        reference: The contract and its meaning in torch: any device, any float dtype, differentiable.
    """

    def __init__(self, reference: Callable[P, R]) -> None:
        self.reference: Callable[..., R] = reference
        self.twins: dict[str, tuple[Callable[..., R], Callable[..., str | None]]] = {}
        self._check: Callable[..., tuple[Any, ...]] = lambda *args: args
        self.name = reference.__name__
        functools.update_wrapper(self, reference)
        OPS[self.name] = self

    def arguments(self, check: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
        """Set the one function that checks a call's arguments and returns them all, in order."""
        self._check = check
        return check

    def twin(self, *backends: str, needs: Callable[..., str | None]) -> Callable[[Callable[..., R]], Callable[..., R]]:
        """Add a twin. `needs(*args)` says why it cannot take these arguments, or None."""

        def add(function: Callable[..., R]) -> Callable[..., R]:
            self.twins.update(dict.fromkeys(backends, (function, needs)))
            return function

        return add

    def why_not(self, backend: str, *args: P.args, **kwargs: P.kwargs) -> str | None:
        """Why `backend` cannot run on these arguments, or None if it can."""
        _known(backend, f"{self.name}.why_not")
        return self._refusal(backend, self._check(*args, **kwargs))

    def _refusal(self, backend: str, args: tuple[Any, ...]) -> str | None:
        if backend == "reference":
            return None
        if torch.compiler.is_compiling():
            return "torch.compile traces the reference"
        reason = self.absent(backend)
        if reason is not None:
            return reason
        device = args[0].device.type
        if device != DEVICES[backend] and not IMITATED.get(backend, False):
            return f"tensors are on {device}, {backend} runs on {DEVICES[backend]}"
        if torch.is_grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in args):
            return "only the reference is differentiable"
        return self.twins[backend][1](*args)

    def absent(self, backend: str) -> str | None:
        """Why `backend` is not in this build or cannot run on this machine, whatever the arguments."""
        if backend == "reference":
            return None
        if backend not in self.twins:
            return f"there is no {backend} twin in this build"
        if backend == "triton" and not TRITON:
            return "Triton is not installed"
        if backend == "cpu" and native.missing:
            return native.missing
        if backend == "cuda":
            return native.no_cuda()
        if DEVICES[backend] == "cuda" and not IMITATED[backend] and not torch.cuda.is_available():
            return "there is no CUDA device"
        return None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Check the arguments, then run the forced backend, else the first twin that can, else torch."""
        checked = self._check(*args, **kwargs)
        if _forced is None:
            for backend in self.twins:
                if checked[0].device.type == DEVICES[backend] and self._refusal(backend, checked) is None:
                    return self._run(backend, checked)
        elif _forced != "reference":
            reason = self._refusal(_forced, checked)
            if reason is not None:
                raise RuntimeError(f"{self.name} cannot run on backend {_forced}: {reason}")
            return self._run(_forced, checked)
        return self.reference(*checked)

    def _run(self, backend: str, args: tuple[Any, ...]) -> R:
        function, device = self.twins[backend][0], args[0].device
        if device.type != "cuda":
            return function(*args)
        with torch.cuda.device(device):  # where a kernel is launched, whatever the tensors' device
            return function(*args)

    def __repr__(self) -> str:
        return f"<fastcam op {self.name}: {', '.join(['reference', *self.twins])}>"


@contextlib.contextmanager
def use(backend: str | None) -> Iterator[None]:
    """Run every op on one backend, and raise where it cannot; None gives the choice back.

    Args:
        backend: "reference", "cpu", "triton", "cuda", or None.

    Raises:
        ValueError: The backend's name is unknown.
    """
    global _forced  # noqa: PLW0603 -- one process-wide switch, as FASTCAM_BACKEND is
    before, _forced = _forced, _known(backend, "use")
    try:
        yield
    finally:
        _forced = before


def support() -> list[dict[str, Any]]:
    """Which op runs on which backend in this build and on this machine, and why not.

    Returns:
        One row per op and backend: {"op", "backend", "available", "reason"}.
    """
    return [
        {"op": op.name, "backend": backend, "available": reason is None, "reason": reason or ""}
        for op in OPS.values()
        for backend in BACKENDS
        for reason in [op.absent(backend)]
    ]
