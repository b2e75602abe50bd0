"""T8: what an evaluation costs beyond its forwards, and how many forwards those are, counted at the network."""

from __future__ import annotations

import contextlib
import copy
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from bench.clock import Timing, alternate, seconds
from bench.floors import forward
from bench.models import Subject, network, subject
from bench.pictures import BATCH, Batch, Pictures, bundled
from bench.rows import Row
from bench.task import Setting, Task, WrongError, installed, row
from bench.works import LITE0
from fastcam import CAM
from fastcam.metrics import Evaluation
from fastcam.metrics.registry import find

ADCC = ("average_drop", "increase_in_confidence", "coherency", "complexity", "adcc")
CHEAP = tuple(info.name for info in find("cheap") if "masks" not in info.needs)  # masks are not asked of the data
FORWARDS = 2.2
SHARE = 2.5
EXACT = 1e-4  # chunks of another size round otherwise
SECONDS = {True: 3.0, False: 15.0}
IMAGES = {True: 48, False: 300}
ROUNDS = {True: 2, False: 5}


def tasks() -> Iterator[Task]:
    """ADCC and its parts, torchcam's two of them, and a whole evaluation."""
    for name, batch in ((LITE0, 1), (LITE0, 16), ("resnet50", 16)):
        what = f"AD, IC, coherency, complexity, ADCC, {name}, batch {batch}"
        yield Task("T8", what, partial(_adcc, name=name, batch=batch), quick=name == LITE0)
    yield Task("T8", f"AD, IC, {LITE0}, batch 16", _torchcam)
    yield Task("T8", f"{len(CHEAP)} metrics of one forward, gradcam, {LITE0}", partial(_whole, names=CHEAP))
    inverse = (*CHEAP, "average_drop_in_deletion")
    what = f"the same and average_drop_in_deletion, {LITE0}"
    yield Task("T8", what, partial(_whole, names=inverse), quick=False)


@dataclass
class Counted:
    """Images that entered the network's first layer, and calls of autograd."""

    forwards: int = 0
    backwards: int = 0


@contextlib.contextmanager
def counted(model: nn.Module) -> Iterator[Counted]:
    """Counts at the network itself, not in fastcam's own books."""
    first = next(module for module in model.modules() if any(True for _ in module.parameters(recurse=False)))
    found, gradient = Counted(), torch.autograd.grad

    def enter(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        found.forwards += len(given[0])

    def grad(*args: Any, **kwargs: Any) -> Any:
        found.backwards += 1
        return gradient(*args, **kwargs)

    handle = first.register_forward_pre_hook(enter)
    try:
        with mock.patch.object(torch.autograd, "grad", grad):
            yield found
    finally:
        handle.remove()


def apart(asked: Subject) -> dict[str, float]:
    """ADCC and its parts, each from forwards of its own."""
    cam, images = CAM(asked.model, "gradcam", asked.layer), asked.images
    with torch.no_grad():
        scores = asked.model(images).softmax(1)
        classes = scores.argmax(1)
        maps = cam(images, target=classes)
        masked = images * maps[:, None]
        after = asked.model(masked).softmax(1).gather(1, classes[:, None])[:, 0].double()
    before = scores.gather(1, classes[:, None])[:, 0].double()
    again = cam(masked, target=classes)
    pairs = zip(maps.flatten(1).double(), again.flatten(1).double(), strict=True)
    coherency = torch.stack([(1 + torch.corrcoef(torch.stack(pair))[0, 1]) / 2 for pair in pairs]).nan_to_num(0)
    drop, coherent = float(((before - after).clamp_min(0) / before).mean()), float(coherency.mean())
    complexity = float(maps.double().mean())
    return {
        "average_drop": drop,
        "increase_in_confidence": float((after > before).double().mean()),
        "coherency": coherent,
        "complexity": complexity,
        "adcc": 3 / (1 / coherent + 1 / (1 - complexity) + 1 / (1 - drop)),
    }


def _adcc(setting: Setting, task: Task, name: str, batch: int) -> list[Row]:
    asked = subject(name, None, batch, setting.device, setting.weights)
    evaluation = Evaluation(CAM(asked.model, "gradcam", asked.layer), ADCC)
    evaluation.update(asked.images)  # looks for the layer and proves the closed form, once for the network
    evaluation.reset()
    with counted(asked.model) as found:
        evaluation.update(asked.images)
    values, expected = evaluation.compute()["gradcam"], apart(asked)
    worst = max(abs(values[key] - expected[key]) for key in expected)
    if worst > EXACT:
        raise WrongError(f"{name}: {worst:.2g} away from the metrics computed one by one")
    calls = {"floor": forward(asked), "fastcam": lambda: evaluation.update(asked.images)}
    timings = alternate(calls, SECONDS[setting.quick], most=40)
    floor, shape, label = timings["floor"], asked.images.shape, "the bare forward of the same batch"
    rows = [row(task, setting, who, t, shape, floor=label, of_floor=t.over(floor)) for who, t in timings.items()]
    ours = rows[-1]
    ours.forwards, ours.forwards_limit = found.forwards / batch, FORWARDS
    ours.note = f"{found.backwards} backwards"
    if found.backwards:
        raise WrongError(f"{name}: {found.backwards} backwards, none was to be needed")
    return rows


def _torchcam(setting: Setting, task: Task) -> list[Row]:
    _, preprocess, _ = network(LITE0, setting.weights)
    cuts = next(bundled(BATCH, preprocess)).images.to(setting.device)
    asked = replace(subject(LITE0, None, 1, setting.device), images=cuts)
    names = ["average_drop", "increase_in_confidence"]
    cam = CAM(asked.model, "gradcam", asked.layer)
    evaluation = Evaluation(cam, names, protocol="torchcam", options={"score": "probability"})
    evaluation.update(asked.images)
    drop = evaluation.compute()["gradcam"]["average_drop"]
    calls: dict[str, Callable[[], object]] = {
        "floor": forward(asked),
        "fastcam": lambda: evaluation.update(asked.images),
    }
    more: dict[str, dict[str, Any]] = {}
    if installed("torchcam"):
        methods, metrics = (importlib.import_module(f"torchcam.{name}") for name in ("methods", "metrics"))
        extractor = methods.GradCAM(copy.deepcopy(asked.model), asked.layer, input_shape=tuple(asked.images.shape[1:]))
        metric = metrics.ClassificationMetric(extractor, partial(torch.softmax, dim=-1))
        metric.update(asked.images)
        note = "differs in the average drop: its maps are not scaled again after resizing"
        more["torchcam"] = {"difference": abs(drop - metric.summary()["avg_drop"]), "note": note}
        calls["torchcam"] = lambda: metric.update(asked.images)
    timings = alternate(calls, SECONDS[setting.quick], least=3, most=20)
    floor = timings["floor"]
    shape, label = asked.images.shape, "the bare forward of the same batch"
    return [
        row(task, setting, who, one, shape, floor=label, of_floor=one.over(floor), **more.get(who, {}))
        for who, one in timings.items()
    ]


def _whole(setting: Setting, task: Task, names: tuple[str, ...]) -> list[Row]:
    """A pass over many pictures, and the bare forwards of the same batches, in turns."""
    model, preprocess, _ = network(LITE0, setting.weights)
    batches = [replace(one, images=one.images.to(setting.device)) for one in _batches(setting, preprocess)]
    count = sum(len(one.labels) for one in batches)
    evaluation = Evaluation(CAM(model, "gradcam"), names, mean=preprocess.mean, std=preprocess.std)

    def evaluate() -> None:
        evaluation.reset()
        for one in batches:
            evaluation.update(one.images, one.labels, one.boxes)
        evaluation.compute()

    @torch.inference_mode()
    def bare() -> None:
        for one in batches:
            model(one.images)

    evaluation.update(batches[0].images, batches[0].labels, batches[0].boxes)
    model(batches[0].images)
    with counted(model) as found:
        evaluate()
    times: dict[str, list[float]] = {"floor": [], "fastcam": []}
    for _ in range(ROUNDS[setting.quick]):
        times["floor"].append(seconds(bare))
        times["fastcam"].append(seconds(evaluate))
    floor = Timing(times["floor"])
    label = f"the bare forwards of these {count} images, batch {BATCH}"
    shape = (count, *batches[0].images.shape[1:])
    rows = []
    for who, rounds in times.items():
        timing = Timing(rounds)
        rows.append(row(task, setting, who, timing, shape, floor=label, of_floor=timing.over(floor)))
    rows[-1].limit = SHARE if names == CHEAP else None
    rows[-1].forwards = found.forwards / count
    source = setting.data.name if setting.data else "cuts of the bundled pictures, boxes made up"
    rows[-1].note = f"{count} images: {source}; {found.backwards} backwards"
    return rows


def _batches(setting: Setting, preprocess: Any) -> list[Batch]:
    wanted = IMAGES[setting.quick]
    if setting.data is None:
        return list(bundled(wanted, preprocess))
    return list(Pictures.open(setting.data, wanted).batches(preprocess))
