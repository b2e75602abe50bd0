"""A data set and metrics without files and cost, in which failures can be had to order."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed

from fastcam import CAM, image
from fastcam.distributed import Job, Plan, Store, gather, local, torchrun
from fastcam.distributed.rows import join
from tests.small import network


@dataclass
class Sample:
    """A noise picture; its log has a line for every time it was read."""

    index: int
    recipe: Recipe
    boxes: tuple = ()
    size: tuple | None = None

    @property
    def key(self):
        return f"{self.index:03d}.png"

    @property
    def source(self):
        return SimpleNamespace(name=self.key)

    @property
    def label(self):
        return self.index % 5

    def read(self):
        recipe = self.recipe
        with recipe.log.open("a") as log:  # a short line is appended whole, also by several processes
            log.write(f"{self.index}\n")
        time.sleep(recipe.slow)
        if self.index == recipe.kills_at and not recipe.killed.exists():
            recipe.killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.index in recipe.broken:
            raise ValueError(f"{self.key} is damaged")
        generator = torch.Generator().manual_seed(self.index)
        return torch.randint(256, (20, 24, 3), dtype=torch.uint8, generator=generator)

    def mask(self, height, width):
        return None


class Sums:
    """What `fastcam.metrics.Evaluation` promises: values, sums over all processes, noise from the ids alone."""

    def __init__(self, cams):
        self.cams = cams
        self.reset()

    def reset(self):
        self.brightness, self.count = torch.zeros(len(self.cams)).double(), torch.zeros(()).double()

    def update(self, images, target=None, boxes=None, masks=None, ids=None, ignored=None, corners=None):
        found = {name: cam.explain(images, target=target) for name, cam in self.cams.items()}
        self.logits = next(iter(found.values())).logits
        noise = torch.tensor([torch.rand((), generator=torch.Generator().manual_seed(one)).item() for one in ids])
        rows = {name: one.maps.double().mean(2) for name, one in found.items()}
        values = {name: {"brightness": row.mean(1) + noise, "rows_curve": row} for name, row in rows.items()}
        self.brightness += torch.stack([own["brightness"].sum() for own in values.values()])
        self.count += len(images)
        return values

    def compute(self):
        states = self.states()
        if torch.distributed.is_initialized():
            for state in states.values():
                torch.distributed.all_reduce(state)
        means = states["brightness"] / states["count"]
        return {name: {"brightness": mean.item()} for name, mean in zip(self.cams, means, strict=True)}

    def states(self):
        return {"brightness": self.brightness.clone(), "count": self.count.clone()}

    def merge(self, states):
        self.brightness += states["brightness"]
        self.count += states["count"]

    def costs(self):
        return {f"method {name}": {"seconds": 0.25} for name in self.cams}


@dataclass
class Recipe:
    """Of a job over `images` noise pictures."""

    folder: Path
    images: int = 21
    seed: int = 0
    slow: float = 0.0
    kills_at: int | None = None
    broken: tuple = ()
    strict: bool = False
    loaders: int = 2
    settings: dict = field(default_factory=dict)

    @property
    def log(self):
        return self.folder / "read.txt"

    @property
    def killed(self):
        return self.folder / "killed"

    def reads(self):
        return [int(line) for line in self.log.read_text().split()] if self.log.exists() else []

    def build(self):
        model = network(seed=self.seed)
        cams = {name: CAM(model, name, batch_size=4) for name in ("gradcam", "reciprocam")}
        dataset = SimpleNamespace(samples=[Sample(index, self) for index in range(self.images)])
        return Job(
            dataset=dataset,
            cams=cams,
            evaluation=Sums(cams),
            preprocess=image.Preprocess((16, 16), None),
            device=torch.device("cpu"),
            batch_size=3,
            loaders=self.loaders,
            target=None,
            boxes=False,
            settings={"images": self.images, "seed": self.seed, **self.settings},
            strict=self.strict,
        )


def evaluate(recipe, compute=local.compute, overwrite=False):
    """What the command does, in one process: opens the store, computes what is missing, adds up.

    Returns:
        The table, and the columns of all shards.
    """
    job = recipe.build()
    plan = Plan(range(recipe.images), 4)
    store = Store(recipe.folder / "shards", job.settings)
    store.open(overwrite)
    try:
        compute(job, plan, store.missing(plan), store.write)
        results = list(store.results(range(len(plan))))
    finally:
        store.close()
    gathered = gather(results, job.evaluation)
    return job.evaluation.compute(), join(result.columns for result in results), gathered


def main():
    """One process of several under torchrun, or alone: `python -m tests.stand_ins FOLDER '{"images": 21}'`."""
    recipe = Recipe(Path(sys.argv[1]), **json.loads(sys.argv[2]))
    if not torchrun.launched():
        evaluate(recipe)
        return
    with torchrun.group():
        job = recipe.build()
        plan = Plan(range(recipe.images), 4)
        store = Store(recipe.folder / "shards", job.settings)

        def begin():
            store.open()
            return job.fingerprint, store.missing(plan)

        fingerprint, missing = torchrun.agree(begin)
        table = torchrun.compute(job, fingerprint, plan, missing, store, store.write)
        (recipe.folder / f"table{torchrun.rank()}.json").write_text(json.dumps(table))
        store.close()


if __name__ == "__main__":
    main()
