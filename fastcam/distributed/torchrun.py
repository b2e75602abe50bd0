"""Processes that torchrun started: each takes its share of the shards, torchmetrics adds up the states."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import distributed

from fastcam.distributed.gathered import gather
from fastcam.distributed.shards import Plan, Result, Store
from fastcam.distributed.work import Job, Worker

T = TypeVar("T")
# One process may have far more to do than another: it is torchrun that notices when one of them has died.
PATIENCE = datetime.timedelta(days=30)


def launched() -> bool:
    """Whether this process is one of several that torchrun started."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"))


def device() -> str | None:
    """The GPU of this process, or None where there are none."""
    gpus = torch.cuda.device_count()
    return f"cuda:{int(os.environ['LOCAL_RANK']) % gpus}" if gpus else None


@contextlib.contextmanager
def group() -> Iterator[None]:
    """Joins the processes: gloo for tensors on the CPU, NCCL for those on GPUs."""
    if distributed.is_initialized():
        yield
        return
    gpus = torch.cuda.is_available() and distributed.is_nccl_available()
    distributed.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """The number of this process, 0 for the one that prints."""
    return distributed.get_rank()


def agree(work: Callable[[], T]) -> T:
    """What the first process makes, in all of them; where it fails, all of them end.

    Args:
        work: runs in the first process only; what it gives is pickled.

    Raises:
        SystemExit: in the others, where the first process raised or has ended.
    """
    found: list[tuple[bool, T | None]] = [(False, None)]
    if distributed.get_rank() == 0:
        try:
            found = [(True, work())]
        except BaseException:
            distributed.broadcast_object_list(found)
            raise
    with _quiet():
        distributed.broadcast_object_list(found)
    made, value = found[0]
    if not made:
        raise SystemExit(2)
    return value  # type: ignore[return-value]


def together(work: Callable[[], T]) -> T:
    """What each process makes for itself; where some fail, the first of these says why, and all of them end.

    Args:
        work: runs in every process.

    Raises:
        SystemExit: in the others, where one raised or has ended.
    """
    failure: Exception | None = None
    try:
        value = work()
    except Exception as error:
        failure = error
    failed: list[bool] = [False] * distributed.get_world_size()
    with _quiet():
        distributed.all_gather_object(failed, failure is not None)
    if failure is not None and failed.index(True) == distributed.get_rank():
        raise failure
    if any(failed):
        raise SystemExit(2)
    return value  # type: ignore[reportPossiblyUnbound]


def compute(
    job: Job, fingerprint: str, plan: Plan, shards: Sequence[int], store: Store, keep: Callable[[Result], object]
) -> dict[str, dict[str, Any]]:
    """Computes this process's part of the shards, waits for the others, and adds all states up.

    Args:
        job: what to compute.
        fingerprint: of the first process's job.
        plan: which samples a shard has.
        shards: what all processes together have to compute.
        store: a folder that all processes see, opened by the first one.
        keep: writes a result into the store.

    Returns:
        The metrics of all shards, as `torchmetrics` reduces their states.

    Raises:
        ValueError: this process sees another folder or makes another job, or a picture cannot be evaluated and the
            job is strict.
    """
    if not store.exists():
        raise ValueError(f"{store.folder.parent} is not one folder for all processes; give one that all of them see")
    for result in Worker(job, fingerprint).results(plan, _mine(shards)):
        keep(result)
    wait()
    gather(store.results(_mine(range(len(plan)))), job.evaluation)
    return job.evaluation.compute()


def _mine(shards: Sequence[int]) -> list[int]:
    """Every WORLD_SIZE-th."""
    return list(shards[distributed.get_rank() :: distributed.get_world_size()])


def wait() -> None:
    """Until all processes are here.

    Raises:
        SystemExit: one of them has ended.
    """
    with _quiet():
        distributed.barrier()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ends without a traceback where another process has ended: that one has said why."""
    try:
        yield
    except RuntimeError as error:  # gloo and NCCL: the connection was closed
        raise SystemExit(2) from error
