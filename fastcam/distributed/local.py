"""One process: this one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastcam.distributed.shards import Plan, Result
from fastcam.distributed.work import Job, Worker


def compute(job: Job, plan: Plan, shards: Sequence[int], keep: Callable[[Result], object]) -> None:
    """Computes shards one after the other.

    Args:
        job: what to compute.
        plan: which samples a shard has.
        shards: which to compute.
        keep: takes each result as soon as it is there.

    Raises:
        ValueError: a picture cannot be evaluated, and the job is strict.
    """
    for result in Worker(job).results(plan, shards):
        keep(result)
