"""Which samples of a job are evaluated, and what is wrong with the others."""

from __future__ import annotations

from dataclasses import asdict, replace

from fastcam.cli.recipe import Recipe
from fastcam.datasets import stamps
from fastcam.distributed import Job, Plan
from fastcam.metrics.registry import METRICS


def plan_of(job: Job, recipe: Recipe) -> tuple[Plan, list[dict[str, str]]]:
    """Which samples to evaluate, in shards, and what is wrong with the others.

    Args:
        job: made from the recipe.
        recipe: how many there may be.

    Raises:
        ValueError: something is wrong, and the recipe is strict; or nothing is left.
    """
    problems = [asdict(problem) for problem in job.dataset.problems]
    samples = job.dataset.samples[: recipe.limit]
    kept, reason = list(range(len(samples))), _wants_label(job, recipe)
    if reason is not None:
        kept = [index for index in kept if samples[index].label is not None]
        if not kept:
            raise ValueError(f"no picture of {recipe.data} has a label, {reason}")
        without = [sample for sample in samples if sample.label is None]
        problems += [
            {"file": sample.source.name, "reason": f"it has no label, {reason}", "lost": "sample"} for sample in without
        ]
    if problems and (recipe.strict or not kept):
        raise ValueError("{file}: {reason}".format(**problems[0]))
    plan = Plan(kept, recipe.shard_size)
    groups = ([samples[index] for index in plan.shard(shard)] for shard in range(len(plan)))
    return replace(plan, stamps=stamps(groups)), problems


def _wants_label(job: Job, recipe: Recipe) -> str | None:
    """Why each picture must have a label, and what to do; None where it need not have one."""
    if job.target is not None:
        return None
    asked = job.settings["evaluation"]
    needy = [name for name in asked["metrics"] if "target" in METRICS[name].needs]
    if needy:
        return f"which {needy[0]} needs"
    if asked["protocol"]["classes"] != "target":
        return None
    who = "-O classes=target" if "classes" in recipe.options else f"--protocol {recipe.protocol}"
    return f"which {'--target label' if recipe.target == 'label' else who} explains; give --target predicted"
