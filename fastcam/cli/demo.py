"""`fastcam demo`: the bundled pictures through many methods, side by side, with what each of them costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from rich.text import Text
from torch import Tensor

from fastcam import CAM, image
from fastcam.cli import classes
from fastcam.cli.console import console, progress, table
from fastcam.cli.explain import title
from fastcam.cli.models import load

PICTURES = ("chelsea", "coffee", "camera")
METHODS = (
    "gradcam",
    "gradcampp",
    "layercam",
    "eigencam",
    "eigengradcam",
    "ablationcam",
    "reciprocam",
    "scorecam",
)


def run(out: Path, methods: Sequence[str], device: str | None) -> None:
    """Explains the bundled pictures, writes `demo.png`, prints predictions and timings.

    Args:
        out: folder of the picture.
        methods: names; one column of the picture each. One that this network does not suit is left out and named.
        device: such as "cpu"; None takes a GPU where there is one.

    Raises:
        ValueError: none of the methods suits it.
    """
    loaded = load(None, None, device)
    views, inputs = [], []
    for name in PICTURES:
        with as_file(files("fastcam").joinpath(f"data/{name}.jpg")) as path:
            tensor, view = image.preprocess(image.read(path), loaded.preprocess)
        inputs.append(tensor)
        views.append(view)
    images = torch.stack(inputs).to(loaded.device)

    def forward() -> Tensor:
        with torch.inference_mode():
            return loaded.model(images)

    logits, bare = _timed(forward)
    names = classes.fit(None, logits.shape[1])
    best = [classes.describe(row, names, row.topk(3).indices) for row in logits.cpu()]
    maps, seconds, refused = {}, {}, {}
    with progress() as bar:
        task = bar.add_task("", total=len(methods))
        for method in methods:
            bar.update(task, description=method)
            cam = CAM(loaded.model, method)
            try:
                maps[method], seconds[method] = _timed(lambda cam=cam: cam(images))
            except ValueError as error:
                refused[method] = error
            bar.advance(task)
    if not maps:
        raise next(iter(refused.values()))
    cells, titles = [], []
    for row, view in enumerate(views):
        cells += [view, *(image.overlay(view, found[row].cpu()) for found in maps.values())]
        titles += [title(best[row][0]), *maps]
    path = image.save(image.panel(cells, titles, 1 + len(maps)), out / "demo.png")
    _report(best, seconds, bare)
    for method, error in refused.items():
        console().print(Text(f"left out: {method}: {error}"))
    console().print(Text(f"{len(PICTURES)} pictures by {len(maps)} methods: {path}"), soft_wrap=True)


def _timed(work: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """The result of a call, and its best seconds of up to five once warm; a call of many seconds runs once only."""

    def once() -> tuple[Tensor, float]:
        start = time.perf_counter()
        result = work()
        if result.is_cuda:
            torch.cuda.synchronize()
        return result, time.perf_counter() - start

    result, best = once()
    # The first call also allocates, compiles and learns: even a bare forward of milliseconds can take seconds.
    if best < 10:
        runs: list[float] = []
        while len(runs) < 5 and sum(runs) < 3:
            runs.append(once()[1])
        best = min(runs)
    return result, best


def _report(best: list[list[dict[str, Any]]], seconds: dict[str, float], bare: float) -> None:
    out = console()
    rows = [[name, *(title(row) for row in rows)] for name, rows in zip(PICTURES, best, strict=True)]
    out.print(table(["picture", "prediction", "second", "third"], rows, "EfficientNet-Lite0, ImageNet-1k"))
    each = {"bare forward": bare, **seconds}
    count = len(PICTURES)
    out.print(
        table(
            ["method", "ms per picture", "x forward"],
            [[name, f"{s / count * 1000:,.1f}", f"{s / bare:,.2f}"] for name, s in each.items()],
            f"{count} pictures in one batch, {torch.get_num_threads()} threads",
            right=("ms per picture", "x forward"),
        )
    )
