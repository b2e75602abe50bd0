"""A data set and metrics without files and cost, in which failures can be had to order."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import torch
from torchmetrics import Metric

from fastcam import CAM, image
from fastcam.distributed import Job
from tests.small import network


@dataclass
class Sample:
    """A noise picture; its log has a line for every time it was read."""

    index: int
    recipe: Recipe
    boxes: tuple = ()

    @property
    def key(self):
        return f"{self.index:03d}.png"

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


class Total(Metric):
    """Sums of each method's brightness, and how many pictures there were."""

    def __init__(self, methods):
        super().__init__()
        self.add_state("brightness", torch.zeros(methods, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, brightness):
        self.brightness += brightness.sum(1)
        self.count += brightness.shape[1]

    def compute(self):
        return self.brightness / self.count


class Sums:
    """What `fastcam.metrics.Evaluation` promises: values, sums, noise that depends on the ids alone."""

    def __init__(self, cams):
        self.cams = cams
        self.total = Total(len(cams))

    def update(self, images, target=None, boxes=None, masks=None, ids=None):
        found = {name: cam.explain(images, target=target) for name, cam in self.cams.items()}
        self.logits = next(iter(found.values())).logits
        noise = torch.tensor([torch.rand((), generator=torch.Generator().manual_seed(one)).item() for one in ids])
        rows = {name: one.maps.double().mean(2) for name, one in found.items()}
        values = {name: {"brightness": row.mean(1) + noise, "rows_curve": row} for name, row in rows.items()}
        self.total.update(torch.stack([own["brightness"] for own in values.values()]))
        return values

    def compute(self):
        return {name: {"brightness": mean.item()} for name, mean in zip(self.cams, self.total.compute(), strict=True)}

    def states(self):
        return {name: getattr(self.total, name).clone() for name in ("brightness", "count")}

    def merge(self, states):
        for name, state in states.items():
            setattr(self.total, name, getattr(self.total, name) + state)
        self.total._update_count, self.total._computed = 1, None

    def reset(self):
        self.total.reset()

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
            target=None,
            boxes=False,
            settings={"images": self.images, "seed": self.seed, **self.settings},
            strict=self.strict,
        )
