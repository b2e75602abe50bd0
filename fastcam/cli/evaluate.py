"""`fastcam evaluate`: many methods and metrics on a data set, in one process or many, resumed where it ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.text import Text

from fastcam.cli import figures, results
from fastcam.cli.console import ARROWS, console, error, note, progress, table
from fastcam.cli.plan import plan_of
from fastcam.cli.recipe import Recipe
from fastcam.cli.results import Outcome
from fastcam.distributed import Found, Job, Plan, Result, Store, check_folder, gather, local, on_ray, torchrun
from fastcam.metrics.registry import METRICS

# Bytes of a row in its shard and in rows.parquet: two curves of some hundred points, and figures beside them.
ROW, FIGURES = 16_384, 8 << 20
OUTPUTS = (results.ROWS, results.RESULTS, results.MARKDOWN, *figures.FILES)


@dataclass
class Run:
    """One call of the command.

    Attributes:
        recipe: what to compute.
        out: folder of the results.
        overwrite: remove what another run left in it.
        address: of Ray, or None: without Ray.
        workers: actors of Ray.
        as_json: print the results as JSON.
    """

    recipe: Recipe
    out: Path
    overwrite: bool = False
    address: str | None = None
    workers: int | None = None
    as_json: bool = False


def run(call: Run) -> int:
    """Evaluates, writes everything into the folder, prints the table.

    Args:
        call: what was asked for.

    Returns:
        The exit code: 1 when some pictures could not be evaluated, else 0.

    Raises:
        ValueError: anything that stands against the whole evaluation, found before it starts where possible.
    """
    results.check()
    if call.address is not None:
        on_ray.check()
        return _alone(call)
    if torchrun.launched():
        with torchrun.group():
            return _together(call)
    return _alone(call)


def _alone(call: Run) -> int:
    check_folder(call.out, FIGURES)
    ray = call.address is not None
    # Under Ray this process only sends and collects: it leaves the GPUs to the actors.
    job = (replace(call.recipe, device="cpu") if ray else call.recipe).build()
    plan, problems = plan_of(job, call.recipe)
    store = Store(call.out / "shards", job.settings)
    missing = _open(call, store, job, plan)
    try:
        with _Bar(call, store, plan, missing) as keep:
            if call.address is None:
                local.compute(job, plan, missing, keep)
            elif missing:
                on_ray.compute(call.recipe, job.fingerprint, plan, missing, keep, call.address, call.workers)
        return _finish(call, store, job, plan, problems)
    finally:
        store.close()


def _together(call: Run) -> int:
    """One of torchrun's processes: the first one checks, prints and writes."""
    first = torchrun.rank() == 0
    torchrun.agree(lambda: check_folder(call.out, FIGURES))
    recipe = call.recipe if call.recipe.device else replace(call.recipe, device=torchrun.device())
    job = torchrun.together(recipe.build)

    def begin() -> tuple[str, Plan, list[dict[str, str]], list[int]]:
        plan, problems = plan_of(job, recipe)
        return job.fingerprint, plan, problems, _open(call, store, job, plan)

    store = Store(call.out / "shards", job.settings)
    fingerprint, plan, problems, missing = torchrun.agree(begin)
    try:
        with _Bar(call, store, plan, missing, hidden=not first) as keep:
            table = torchrun.compute(job, fingerprint, plan, missing, store, keep)
        code = _finish(call, store, job, plan, problems, table) if first else 0
        torchrun.wait()
        return code
    finally:
        store.close()


def _open(call: Run, store: Store, job: Job, plan: Plan) -> list[int]:
    """Takes the folder and says what a reader should know before the work; the shards still to compute."""
    check_folder(call.out, FIGURES + ROW * len(plan.samples) * (len(job.cams) + 1))
    store.open(call.overwrite)
    try:
        if call.overwrite:
            for name in OUTPUTS:
                (call.out / name).unlink(missing_ok=True)
        found = store.look(plan)
        for result in store.results(found.kept) if job.strict else ():
            if result.problems:
                raise ValueError("{file}: {reason}".format(**result.problems[0]))
        for line in (*job.dataset.notes, *_kept(found, plan)):
            note(line)
    except BaseException:
        store.close()
        raise
    return found.missing


def _kept(found: Found, plan: Plan) -> list[str]:
    """What an earlier run left, and what of it is computed again."""

    def pictures(shards: Sequence[int]) -> str:
        count = sum(len(plan.shard(shard)) for shard in shards)
        return f"{count} picture{'s' * (count != 1)}"

    again = {
        "since files were changed": found.changed,
        "since the results were damaged": found.damaged,
        "since some could not be evaluated": found.failed,
    }
    lines = [f"{pictures(found.kept)} of {len(plan.samples)} kept from an earlier run"] if found.kept else []
    return lines + [f"{pictures(shards)} computed again, {why}" for why, shards in again.items() if shards]


class _Bar:
    """A progress bar, around what keeps the results.

    Args:
        call: decides with its output whether there is room for a bar.
        store: keeps the results.
        plan: says how much there is to do.
        missing: shards to compute.
        hidden: show no bar.
    """

    def __init__(self, call: Run, store: Store, plan: Plan, missing: Sequence[int], hidden: bool = False) -> None:
        self.store, self.plan = store, plan
        self.bar = progress(hidden=hidden or not missing, long=True)
        todo = sum(len(plan.shard(shard)) for shard in missing)
        before = len(plan.samples) - todo
        self.task = self.bar.add_task("evaluating", total=len(plan.samples), completed=before, before=before)

    def __enter__(self) -> Any:
        self.bar.start()
        return self.keep

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def keep(self, result: Result) -> None:
        """Writes a result and shows what was wrong in it."""
        self.store.write(result)
        for problem in result.problems:
            error("{file}: {reason}".format(**problem), self.bar.console)
        self.bar.advance(self.task, len(self.plan.shard(result.shard)))


def _finish(
    call: Run, store: Store, job: Job, plan: Plan, problems: list[dict[str, str]], table: dict[str, Any] | None = None
) -> int:
    """Adds up all shards in their order, writes the results and prints them."""
    shards = range(len(plan))
    gathered = gather(store.results(shards), job.evaluation)
    outcome = Outcome(
        settings=job.settings,
        data=call.recipe.data,
        table=job.evaluation.compute() if table is None else table,
        costs=job.evaluation.costs(),
        gathered=gathered,
        problems=[*problems, *gathered.problems],
        samples=len(job.dataset.samples[: call.recipe.limit]),
        notes=job.dataset.notes,
        values=job.evaluation.counts(),
    )
    results.write_rows(call.out / results.ROWS, outcome, store.results(shards))
    figures.write_figures(call.out, outcome)
    results.write_summary(call.out, outcome)
    for line in outcome.remarks[len(outcome.notes) :]:  # the notes were shown before the work
        note(line)
    if call.as_json:
        print(json.dumps(outcome.as_json()), flush=True)
    else:
        _show(call, outcome)
    return int(outcome.failed)


def _show(call: Run, outcome: Outcome) -> None:
    out = console()
    best = {metric: outcome.best(metric) for metric in outcome.metrics}
    rows = [
        [
            f"{metric} {ARROWS[METRICS[metric].direction]}",
            *(
                results.number(outcome.table[method].get(metric)) + (" *" if method in best[metric] else "  ")
                for method in outcome.methods
            ),
        ]
        for metric in outcome.metrics
    ]
    out.print(table(["metric", *outcome.methods], rows, f"{outcome.settings['model']} (* best)", outcome.methods))
    units = ("forwards", "tails", "backwards", "seconds")
    out.print(table(["a picture costs", *units], results.cost_rows(outcome), right=units))
    out.print(Text(f"{outcome.summary}; rows, tables and figures are in {call.out}"), soft_wrap=True)
