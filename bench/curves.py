"""T7: deletion and insertion, against the forwards they need, RISE's loop, torchcam and Quantus."""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.clock import Timing, alternate, extrapolate, seconds
from bench.floors import BATCHES, Rate, forward, images_rate
from bench.measure import LONG_RUNS, QUICK_BATCHES
from bench.models import Subject, subject
from bench.rows import Row
from bench.task import Setting, Task, WrongError, floor_time, installed, part_row, quiet, row
from bench.works import LITE0
from fastcam import CAM
from fastcam.metrics import Evaluation
from fastcam.runtimes import RUNTIMES, lacking

ROWS = 224  # pixels of a step, and steps of a curve
LIMIT = 1.05
RISE_VERSUS = 3.0
CLOSE = 1e-3  # of a probability: chunks of another size round otherwise
NEAR = 2e-2  # torchcam's steps and weights of the ends are a little different
PIECE = 8  # steps, where a loop is extrapolated
SECONDS = {True: 4.0, False: 20.0}


def tasks() -> Iterator[Task]:
    """One picture at RISE's steps, several at once, torchcam's own setting, and deletion alone."""
    for network, batch, runtime in (
        (LITE0, 1, "torch"),
        *((LITE0, 1, runtime) for runtime in RUNTIMES if runtime != "torch" and not lacking(runtime)),
        (LITE0, 4, "torch"),
        ("resnet50", 1, "torch"),
    ):
        pictures = f", {batch} pictures" if batch > 1 else ""
        quick = network == LITE0 and batch == 1
        what = f"deletion + insertion, step 224, {network}{pictures}{'' if runtime == 'torch' else f', {runtime}'}"
        yield Task("T7", what, partial(_rise, network=network, batch=batch, runtime=runtime), quick)
    for steps in (20, ROWS):
        what = f"deletion + insertion, {steps} steps from zeros, {LITE0}"
        yield Task("T7", what, partial(_torchcam, steps=steps), quick=steps == 20)
    yield Task("T7", f"deletion alone, 224 steps, {LITE0}", _quantus)


class Loop:
    """RISE's evaluation as its paper and its code describe it: one batch of images, one forward a step.

    Steps of W pixels in falling order of the map; for deletion the image's pixels become zero, for insertion those
    of the blurred image become the image's. The pixels are exchanged in NumPy, between forwards. Ties in the map go
    by index, where the original leaves them to its sort.

    Args:
        model: gives logits.
    """

    def __init__(self, model: nn.Module) -> None:
        from scipy.ndimage import gaussian_filter

        self.model = nn.Sequential(model, nn.Softmax(1))
        impulse = np.zeros((11, 11))
        impulse[5, 5] = 1
        blur = torch.from_numpy(gaussian_filter(impulse, 5).astype(np.float32))
        self.kernel = torch.zeros(3, 3, 11, 11)
        for channel in range(3):
            self.kernel[channel, channel] = blur

    @torch.no_grad()
    def run(self, images: Tensor, maps: Tensor, classes: Tensor, kind: str, points: int | None = None) -> Tensor:
        """One curve of each image, or its first points. (B, n + 1)"""
        pixels, step = maps[0].numel(), maps.shape[-1]
        n = math.ceil(pixels / step)
        order = np.argsort(-maps.reshape(-1, pixels).numpy(), axis=1, kind="stable")
        blurred = nn.functional.conv2d(images, self.kernel, padding=5)
        start, finish = (images, torch.zeros_like(images)) if kind == "deletion" else (blurred, images)
        start = start.clone()
        scores = np.empty((len(images), n + 1 if points is None else points))
        every = np.arange(len(images))[:, None]
        to = start.numpy().reshape(len(images), 3, pixels).transpose(0, 2, 1)
        source = finish.numpy().reshape(len(images), 3, pixels).transpose(0, 2, 1)
        for i in range(scores.shape[1]):
            scores[:, i] = self.model(start).numpy()[np.arange(len(images)), classes.numpy()]
            if i < n:
                columns = order[:, step * i : step * (i + 1)]
                to[every, columns] = source[every, columns]
        return torch.from_numpy(scores)


def _rise(setting: Setting, task: Task, network: str, batch: int, runtime: str) -> list[Row]:
    asked = subject(network, None, batch, setting.device, setting.weights)
    cam = CAM(asked.model, "gradcam", asked.layer, runtime=runtime)
    evaluation = Evaluation(cam, ["deletion", "insertion"])
    values = _warm(evaluation, asked)
    rate = images_rate(asked, QUICK_BATCHES if setting.quick else BATCHES, runtime)
    ours: list[float] = []
    for _ in range(LONG_RUNS[setting.quick]):
        ours.append(seconds(lambda: evaluation.update(asked.images)))
        rate.again()
    needed = 2 * (ROWS + 1) * batch
    rows = _long(setting, task, asked, rate, needed, ours)
    rows[-1].limit = LIMIT
    rows[-1].forwards = evaluation.costs()["total"]["forwards"]
    if not installed("RISE"):
        return rows
    explained = cam.explain(asked.images)
    classes, loop = explained.target, Loop(asked.model)
    assert isinstance(classes, Tensor)

    def part(points: int | None) -> list[Tensor]:
        kinds = ("deletion", "insertion")
        return [loop.run(asked.images, explained.maps, classes, kind, points) for kind in kinds]

    whole: list[list[Tensor]] = []
    if setting.quick:
        spent, checked = extrapolate(part, PIECE, ROWS + 1), part(3 * PIECE)
    else:
        spent = seconds(lambda: whole.append(part(None)))
        checked = whole[0]
    worst = max(
        float((curve - values[f"{kind}_curve"][:, : curve.shape[1]]).abs().max())
        for kind, curve in zip(("deletion", "insertion"), checked, strict=True)
    )
    if worst > CLOSE:
        raise WrongError(f"RISE's loop on {network}: a score differs by {worst:.2g}")
    also = {
        "of_floor": spent / rows[0].median,
        "versus": RISE_VERSUS if network == LITE0 else None,
        "difference": worst,
    }
    if setting.quick:
        note = f"extrapolated from {3 * PIECE} of {ROWS + 1} steps"
        return [*rows, part_row(task, setting, "RISE", spent, asked.images.shape, note, **also)]
    return [*rows, row(task, setting, "RISE", Timing([spent]), asked.images.shape, **also)]


def _long(setting: Setting, task: Task, asked: Subject, rate: Rate, needed: int, ours: list[float]) -> list[Row]:
    """The rows of the floor, so many forwards, and of fastcam."""
    floor, timing, shape = floor_time(rate, needed), Timing(ours), asked.images.shape
    label = f"{needed} forwards at {rate.label}"
    share = timing.median / floor.median
    return [
        row(task, setting, "floor", floor, shape, floor=label, of_floor=1.0),
        row(task, setting, "fastcam", timing, shape, floor=label, of_floor=share),
    ]


def _warm(evaluation: Evaluation, asked: Subject) -> dict[str, Tensor]:
    """One whole pass: chunks of every size have run, and their best is known."""
    values = evaluation.update(asked.images)["gradcam"]
    evaluation.reset()
    return values


def _torchcam(setting: Setting, task: Task, steps: int) -> list[Row]:
    asked = subject(LITE0, None, 1, setting.device, setting.weights)
    cam = CAM(asked.model, "gradcam", asked.layer)
    options = {"score": "probability", "steps": steps}
    evaluation = Evaluation(cam, ["deletion", "insertion"], protocol="torchcam", options=options)
    values = _warm(evaluation, asked)
    calls: dict[str, Callable[[], object]] = {
        "floor": forward(asked),
        "fastcam": lambda: evaluation.update(asked.images),
    }
    difference = None
    if installed("torchcam"):
        metric = _torchcam_metric(asked, steps)
        calls["torchcam"] = lambda: metric.update(asked.images)
        metric.update(asked.images)
        theirs = metric.summary()
        difference = max(abs(theirs[f"{kind}_auc"] - float(values[kind])) for kind in ("deletion", "insertion"))
        if difference > NEAR:
            raise WrongError(f"torchcam's areas differ by {difference:.2g}")
    timings = alternate(calls, SECONDS[setting.quick], least=2 if setting.quick else 5, most=20, warm=1)
    rows = []
    for who, timing in timings.items():
        more: dict[str, Any] = {"of_floor": timing.over(timings["floor"]), "floor": "one bare forward"}
        more |= {"difference": difference} if who == "torchcam" else {}
        rows.append(row(task, setting, who, timing, asked.images.shape, **more))
    return rows


def _torchcam_metric(asked: Subject, steps: int) -> Any:
    model = copy.deepcopy(asked.model)
    methods, metrics = (importlib.import_module(f"torchcam.{name}") for name in ("methods", "metrics"))
    extractor = methods.GradCAM(model, asked.layer, input_shape=tuple(asked.images.shape[1:]))
    return metrics.DeletionInsertionMetric(extractor, partial(torch.softmax, dim=-1), steps=steps)


def _quantus(setting: Setting, task: Task) -> list[Row]:
    asked = subject(LITE0, None, 1, setting.device, setting.weights)
    cam = CAM(asked.model, "gradcam", asked.layer)
    evaluation = Evaluation(cam, ["deletion"], options={"steps": ROWS})
    curve = _warm(evaluation, asked)["deletion_curve"][0]
    rate = images_rate(asked, QUICK_BATCHES)
    ours = [seconds(lambda: evaluation.update(asked.images)) for _ in range(LONG_RUNS[setting.quick])]
    rate.again()
    rows = _long(setting, task, asked, rate, ROWS + 1, ours)
    if not installed("Quantus"):
        return rows
    explained = cam.explain(asked.images)
    assert isinstance(explained.target, Tensor)
    given = {
        "model": copy.deepcopy(asked.model),
        "x_batch": asked.images.numpy(),
        "y_batch": explained.target.numpy(),
        "a_batch": explained.maps[:, None].numpy(),
        "device": setting.device,
        "softmax": True,
    }
    with quiet():
        library: Any = importlib.import_module("quantus")
        values = given["x_batch"].size
        size = {steps: values // steps for steps in (12, 48)}

        def part(steps: int) -> Any:
            flipping = library.PixelFlipping(
                features_in_step=size[steps], perturb_baseline=0.0, disable_warnings=True, normalise=False
            )
            return flipping(**given)

        curves: list[Any] = []
        short, long = (seconds(lambda n=n: curves.append(part(n))) for n in (12, 48))
        theirs = torch.tensor(curves[-1][0])
    spent = short + (long - short) * (ROWS - 12) / 36
    at = torch.linspace(0, ROWS, 49)[1:].round().long()
    same = float(torch.corrcoef(torch.stack([theirs.double(), curve[at]]))[0, 1])
    note = f"extrapolated from 48 of {ROWS} steps; flips a pixel's channels one by one; curves correlate"
    more = {"of_floor": spent / rows[0].median, "agreement": same}
    return [*rows, part_row(task, setting, "Quantus", spent, asked.images.shape, note, **more)]
