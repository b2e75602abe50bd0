"""T9: ROAD, whole and its imputation alone, against pytorch-grad-cam and Quantus: the same values, then time."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.clock import Timing, alternate, seconds
from bench.floors import BATCHES, images_rate
from bench.measure import QUICK_BATCHES
from bench.models import Subject, subject
from bench.rows import Row
from bench.task import Setting, Task, WrongError, floor_time, installed, quiet, row
from bench.works import LITE0
from fastcam import CAM, ops
from fastcam.metrics import Evaluation

METHOD = "cam"  # signed: a map with a plateau at zero would be cut there at any pixel
SHARES = tuple(k / 10 for k in range(1, 10))
SOME = (0.1, 0.5, 0.9)  # imputed alone, with --quick
VERSUS = 10.0
SOLVED = 1e-3  # of a normalized pixel
CLOSE = 0.02  # of a probability; the noise on imputed pixels is random
SECONDS = {True: 2.0, False: 30.0}
IN_A_LOOP = "its imputation in a loop written here: its ROAD fails on images of several channels"


def tasks() -> Iterator[Task]:
    """The metric, and its own work."""
    yield Task("T9", f"ROAD combined, nine shares, {LITE0}", _road)
    yield Task("T9", "ROAD's imputation alone, 224 x 224", _impute)


def removals(ranks: Tensor, shares: tuple[float, ...] = SHARES) -> Tensor:
    """The pixels that go: the most relevant ones at each share, then the least relevant. (2 n, H, W) bool"""
    counts = [round(share * ranks.numel()) for share in shares]
    most = [ranks < count for count in counts]
    least = [ranks >= ranks.numel() - count for count in counts]
    return torch.stack([*most, *least])


def grad_cam_imputed(image: Tensor, removed: Tensor) -> Tensor:
    """pytorch-grad-cam's imputation without noise. (n, C, H, W)"""
    library: Any = importlib.import_module("pytorch_grad_cam.metrics.road")
    imputer = library.NoisyLinearImputer(noise=0)
    return torch.stack([imputer(image, (~one).float()) for one in removed])


def quantus_imputed(image: Tensor, removed: Tensor, noise: float = 0.0) -> Tensor:
    """Quantus' imputation. (n, C, H, W)"""
    library: Any = importlib.import_module("quantus.functions.perturb_func")
    array = image.numpy()
    rows = [library.noisy_linear_imputation(array, np.flatnonzero(one.numpy()), noise) for one in removed]
    return torch.from_numpy(np.stack(rows)).float()


IMPUTERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "pytorch-grad-cam": grad_cam_imputed,
    "Quantus": quantus_imputed,
}


def _subject(setting: Setting) -> tuple[Subject, CAM]:
    asked = subject(LITE0, None, 1, setting.device, setting.weights)
    return asked, CAM(asked.model, METHOD, asked.layer)


def _road(setting: Setting, task: Task) -> list[Row]:
    asked, cam = _subject(setting)
    explained = cam.explain(asked.images)
    maps, classes = explained.maps, explained.target
    assert isinstance(classes, Tensor)
    evaluation = Evaluation(cam, ["road"])
    value = float(evaluation.update(asked.images)[METHOD]["road"][0])
    evaluation.update(asked.images)  # chunks of every size have run
    rate = images_rate(asked, QUICK_BATCHES if setting.quick else BATCHES)
    calls: dict[str, Callable[[], float]] = {}
    if installed("pytorch-grad-cam"):
        calls["pytorch-grad-cam"] = _grad_cam(asked, maps, int(classes[0]))
    if installed("Quantus"):
        calls["Quantus"] = _quantus(asked, maps[0], int(classes[0]))
    ours, spent, values = [], {who: [] for who in calls}, {}
    for _ in range(1 if setting.quick else 3):
        ours.append(seconds(lambda: evaluation.update(asked.images)))
        for who, call in calls.items():
            with quiet():
                spent[who].append(seconds(lambda who=who, call=call: values.update({who: call()})))
        ours.append(seconds(lambda: evaluation.update(asked.images)))
        rate.again()
    for who, other in values.items():
        if abs(other - value) > CLOSE:
            raise WrongError(f"{who}'s ROAD is {other:.4f}, fastcam's {value:.4f}")
    needed = 2 * len(SHARES) + 1
    floor, label = floor_time(rate, needed), f"{needed} forwards at {rate.label}"
    shape, timing = asked.images.shape, Timing(ours)
    rows = [
        row(task, setting, "floor", floor, shape, floor=label, of_floor=1.0),
        row(task, setting, "fastcam", timing, shape, floor=label, of_floor=timing.median / floor.median),
    ]
    rows[-1].forwards = evaluation.costs()["total"]["forwards"]
    for who, rounds in spent.items():
        more = {"of_floor": Timing(rounds).median / floor.median, "difference": abs(values[who] - value)}
        note = IN_A_LOOP if who == "Quantus" else ""
        rows.append(row(task, setting, who, Timing(rounds), shape, versus=VERSUS, note=note, **more))
    return rows


def _grad_cam(asked: Subject, maps: Tensor, target: int) -> Callable[[], float]:
    road: Any = importlib.import_module("pytorch_grad_cam.metrics.road")
    targets: Any = importlib.import_module("pytorch_grad_cam.utils.model_targets")
    metric, wanted = road.ROADCombined(), [targets.ClassifierOutputSoftmaxTarget(target)]
    model = copy.deepcopy(asked.model)
    return lambda: float(metric(asked.images, maps.numpy(), wanted, model)[0])


def _quantus(asked: Subject, one: Tensor, target: int) -> Callable[[], float]:
    model, order = copy.deepcopy(asked.model), ops.rank_pixels(one[None])[0]
    with quiet():
        importlib.import_module("quantus.functions.perturb_func")  # seconds, and no part of the metric

    @torch.no_grad()
    def call() -> float:
        gone, scores = removals(order), []
        for removed in gone:
            imputed = quantus_imputed(asked.images[0], removed[None], noise=0.01)
            scores.append(float(model(imputed).softmax(1)[0, target]))
        half = len(scores) // 2
        return (sum(scores[half:]) - sum(scores[:half])) / len(scores)

    return call


def _impute(setting: Setting, task: Task) -> list[Row]:
    asked, cam = _subject(setting)
    gone = removals(ops.rank_pixels(cam(asked.images))[0], SOME if setting.quick else SHARES)
    images = asked.images.expand(len(gone), -1, -1, -1).contiguous()
    ours = ops.impute_pixels(images, gone)
    calls: dict[str, Callable[[], object]] = {"fastcam": lambda: ops.impute_pixels(images, gone)}
    differences: dict[str, float] = {}
    with quiet():
        for who, impute in IMPUTERS.items():
            if not installed(who):
                continue
            differences[who] = float((impute(asked.images[0], gone) - ours).abs().max())
            if differences[who] > SOLVED:
                raise WrongError(f"{who} imputes other pixels: {differences[who]:.2g} away")
            calls[who] = lambda impute=impute: impute(asked.images[0], gone)
        timings = alternate(calls, SECONDS[setting.quick], least=1 if setting.quick else 3, most=10, warm=0)
    shares = ", ".join(f"{share:.0%}" for share in (SOME if setting.quick else SHARES))
    rows = []
    for who, timing in timings.items():
        each = Timing([spent / len(gone) for spent in timing.rounds])
        more = {"difference": differences.get(who), "note": f"the mean of {len(gone)} masks, {shares}"}
        more |= {} if who == "fastcam" else {"versus": VERSUS}
        rows.append(row(task, setting, who, each, images.shape[1:], **more))
    return rows
