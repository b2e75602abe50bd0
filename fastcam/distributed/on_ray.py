"""Many processes and machines through Ray Data: shards go to actors that keep the model, results come back."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from fastcam import keep_freed_memory
from fastcam.distributed.shards import Plan, Result
from fastcam.distributed.work import Recipe, Worker

LOCAL = "local"


class Actor:
    """A worker in a process of its own; a killed one is made again and its shard computed again.

    Args:
        recipe: of the job.
        fingerprint: of the job that the run was started with.
        plan: which samples a shard has.
        threads: that torch may use.
    """

    def __init__(self, recipe: Recipe, fingerprint: str, plan: Plan, threads: int) -> None:
        torch.set_num_threads(threads)
        keep_freed_memory()
        self.worker = Worker(recipe.build(), fingerprint)
        self.plan = plan

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[bytes]]:
        """Computes the shards of a batch."""
        return {"result": [result.pack() for result in self.worker.results(self.plan, batch["shard"].tolist())]}


def check() -> None:
    """Proves that Ray Data is there.

    Raises:
        ValueError: it is not.
    """
    try:
        import ray.data  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(f"--ray needs {error.name}: pip install 'fastcam[ray]'") from None


def compute(
    recipe: Recipe,
    fingerprint: str,
    plan: Plan,
    shards: Sequence[int],
    keep: Callable[[Result], object],
    address: str = LOCAL,
    workers: int | None = None,
) -> None:
    """Computes shards on actors.

    Args:
        recipe: of the job; its paths must be the same on every machine.
        fingerprint: of the job, which every actor must make as well.
        plan: which samples a shard has.
        shards: which to compute.
        keep: takes each result as soon as it is there, in any order.
        address: of a running Ray; "local" starts one on this machine and ends it afterwards.
        workers: how many actors; by default one a GPU, or one for every four CPUs and at least two.

    Raises:
        ValueError: an actor cannot do the job, or a picture cannot be evaluated and the job is strict.
        OSError: no Ray at this address.
    """
    import ray
    import ray.data

    with _cluster(address):
        have = ray.cluster_resources()
        cpus, gpus = have.get("CPU", 1.0), have.get("GPU", 0.0)
        count = min(workers or int(gpus) or max(2, int(cpus) // 4), max(1, len(shards)))
        ray.data.DataContext.get_current().enable_progress_bars = False
        tasks = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
        done = tasks.map_batches(
            Actor,  # type: ignore[arg-type]
            fn_constructor_args=(recipe, fingerprint, plan, max(1, int(cpus) // count)),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=count),  # a killed actor is made again, its shard computed again
            num_cpus=share(cpus - 1, count),  # Ray Data's own tasks need a whole CPU
            num_gpus=share(gpus, count) or None,
        )
        try:
            for row in done.iter_rows():
                keep(Result.unpack(row["result"]))
        except Exception as error:
            raise _reason(error) from error


def share(units: float, workers: int) -> float:
    """What each of several workers may take of a resource, as Ray counts it: a fraction below 1, or a whole number.

    Args:
        units: CPUs or GPUs.
        workers: that share them.

    >>> share(1, 2), share(1, 3), share(63, 16), share(0, 2)
    (0.5, 0.3333, 3.0, 0.0)
    """
    each = max(0.0, units) / workers
    return float(math.floor(each)) if each >= 1 else math.floor(each * 10_000) / 10_000


@contextlib.contextmanager
def _cluster(address: str) -> Iterator[None]:
    """Ray as it is where it runs in this process already, else at the address, and left afterwards."""
    import ray

    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    for name, value in {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}.items():
        os.environ.setdefault(name, value)
    logger = logging.getLogger("ray.data")
    level = logger.level
    if address == LOCAL:
        # Without an address Ray would look for another one that happens to run on this machine.
        ray.init("local", include_dashboard=False, **quiet)
    else:
        ray.init(address, **quiet)
    try:
        logger.setLevel(logging.ERROR)
        yield
    finally:
        logger.setLevel(level)
        ray.shutdown()


def _reason(error: BaseException) -> BaseException:
    """What went wrong in an actor, without what Ray wraps around it."""
    seen: BaseException | None = error
    while seen is not None:
        inner = getattr(seen, "cause", None)
        if isinstance(inner, BaseException) and type(inner) in (ValueError, TypeError):
            return inner
        seen = inner if isinstance(inner, BaseException) else seen.__cause__
    return error
