"""`fastcam explain`: pictures in, overlays, panels, raw maps and JSON lines out."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text
from torch import Tensor

from fastcam import CAM, Explanation, TopK, image
from fastcam.cli import classes
from fastcam.cli.console import console, error, progress
from fastcam.cli.models import Loaded


@dataclass
class Job:
    """Everything that stays the same from picture to picture."""

    loaded: Loaded
    cams: dict[str, CAM]
    target: int | TopK | None
    names: list[str] | None
    out: Path
    colors: str
    alpha: float
    stems: set[str] = field(default_factory=set)

    def stem(self, path: Path) -> str:
        """A name for a picture's outputs that no other picture of this run has."""
        stem, number = path.stem, 1
        while stem in self.stems:
            number += 1
            stem = f"{path.stem}-{number}"
        self.stems.add(stem)
        return stem

    def explain(self, stem: str, images: Tensor, view: Tensor) -> dict[str, Any]:
        """Explains one picture by every method and writes its files.

        Args:
            stem: what the files' names start with.
            images: (3, h, w) float32, for the model.
            view: (h, w, 3) uint8, the same as a picture.

        Returns:
            What its JSON line holds.

        Raises:
            ValueError: the model, target and method do not fit each other.
        """
        batch = images[None].to(self.loaded.device)
        found: dict[str, Explanation] = {}
        seconds: dict[str, float] = {}
        for method, cam in self.cams.items():
            start = time.perf_counter()
            found[method] = cam.explain(batch, target=self.target)
            found[method].maps.sum().item()  # waits for a GPU
            seconds[method] = time.perf_counter() - start
        first = next(iter(found.values()))
        logits = first.logits[0].float().cpu()
        names = classes.fit(self.names, len(logits))
        targets = classes.describe(logits, names, first.target)
        methods, shown = {}, {}
        for method, explanation in found.items():
            maps = explanation.maps.float().cpu().view(-1, *view.shape[:2])
            shown[method] = image.overlay(view, maps, self.colors, self.alpha)
            parts = [""] if len(targets) == 1 else [f".{row['class']}" for row in targets]
            files = [self.out / f"{stem}.{method}{part}.png" for part in parts]
            methods[method] = {
                "layer": explanation.layer,
                "ms": round(seconds[method] * 1000, 2),
                "maps": str(_save_maps(explanation, self.out / f"{stem}.{method}.npz")),
                "overlays": [str(image.save(*pair)) for pair in zip(shown[method], files, strict=True)],
            }
        pictures = [cell for t in range(len(targets)) for cell in (view, *(shown[m][t] for m in shown))]
        titles = [text for row in targets for text in (title(row), *shown)]
        sheet = image.save(image.panel(pictures, titles, 1 + len(shown)), self.out / f"{stem}.panel.png")
        return {
            "model": self.loaded.label,
            "predictions": classes.describe(logits, names, logits.topk(min(5, len(logits))).indices),
            "targets": targets,
            "methods": methods,
            "panel": str(sheet),
        }


def title(row: dict[str, Any]) -> str:
    """A class and its probability, as in "tabby 52.1 %"."""
    return f"{row['name']} {row['probability']:.1%}".replace("%", " %")


def _save_maps(found: Explanation, path: Path) -> Path:
    """Writes maps, raw (raw_0, raw_1 … of fused layers), logits and target of the one picture."""
    raws = found.raw if isinstance(found.raw, list) else [found.raw]
    tensors = {"maps": found.maps, "logits": found.logits, "target": found.target}
    tensors |= {"raw" if len(raws) == 1 else f"raw_{number}": raw for number, raw in enumerate(raws)}
    # NumPy has no bfloat16.
    arrays: dict[str, Any] = {
        name: (tensor[0].float() if tensor.is_floating_point() else tensor[0]).cpu().numpy()
        for name, tensor in tensors.items()
        if tensor is not None
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
    return path


def run(paths: Sequence[Path], job: Job, as_json: bool) -> int:
    """Explains pictures one after the other; one that cannot be read is reported and the others go on.

    Args:
        paths: of the pictures.
        job: the rest.
        as_json: print one JSON line a picture on standard output instead of text.

    Returns:
        The exit code: 1 when a picture failed, else 0.
    """
    if job.out.exists() and not job.out.is_dir():
        raise ValueError(f"--out {job.out} is a file; give a folder, which may be new")
    job.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    # Where the lines and the bar meet on one screen, the lines go through the bar's console, and JSON without a bar.
    screen = sys.stdout.isatty()
    with (
        (job.out / "results.jsonl").open("w", encoding="utf-8") as lines,
        progress(hidden=len(paths) < 2 or (as_json and screen)) as bar,
    ):
        text = bar.console if screen and not bar.disable else console()
        for path in bar.track(paths, description="explaining"):
            record = _record(path, job)
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")
            lines.flush()
            if "error" in record:
                failed += 1
                error(record["error"], bar.console)
            if as_json:
                print(json.dumps(record), flush=True)
            elif "error" not in record:
                best = ", ".join(title(row) for row in record["predictions"][:3])
                text.print(Text(f"{path}: {best}\n  -> {record['panel']}"), soft_wrap=True)
    if not as_json:
        done = f"{len(paths) - failed} of {len(paths)} pictures explained by {', '.join(job.cams)}"
        console().print(Text(f"{done}; overlays, raw maps and results.jsonl are in {job.out}"), soft_wrap=True)
    return int(failed > 0)


def _record(path: Path, job: Job) -> dict[str, Any]:
    try:
        picture = image.read(path)
        images, view = image.preprocess(picture, job.loaded.preprocess)
    except ValueError as reason:
        where = "" if str(path) in str(reason) else f"{path}: "
        return {"image": str(path), "error": f"{where}{reason}"}
    size = {"height": picture.shape[0], "width": picture.shape[1]}
    return {"image": str(path), **size, **job.explain(job.stem(path), images, view)}
