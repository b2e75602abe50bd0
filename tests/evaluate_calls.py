"""A small annotated data set, and calls of `fastcam evaluate` on it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli_calls import TINY, run

COUNT = 10
OPTIONS = {"steps": 4, "sensitivity_samples": 2}
QUICK = ("--methods", "gradcam,reciprocam", "--shard-size", "4", "--batch-size", "3")
QUICK += tuple(word for name, value in OPTIONS.items() for word in ("-O", f"{name}={value}"))
METRICS = "average_drop,pointing_game,max_sensitivity"


def make_data(folder: Path = Path("data"), **changes) -> Path:
    """Ten pictures of noise with a box each; changes are entries of annotations.json by picture number."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    images = []
    for number in range(COUNT):
        file = f"images/{number}.png"
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).save(folder / file)
        entry = {"file": file, "width": 48, "height": 40, "class_ids": [number % 4], "boxes": [[6, 4, 30, 36]]}
        images.append(entry | changes.get(f"n{number}", {}))
    (folder / "annotations.json").write_text(json.dumps({"box_format": "xyxy", "images": images}))
    return folder


def evaluate(data: Path | str, *arguments: str, code: int = 0, metrics: str = METRICS):
    """The results that `--json` prints; a later option replaces an earlier one."""
    found = run("evaluate", data, *TINY, *QUICK, "--metrics", metrics, "--json", *arguments, code=code)
    return json.loads(found.stdout), found.stderr


def close(found, expected, rel):
    for one, other in zip(flat(found), flat(expected), strict=True):
        if other is None or math.isnan(other):
            assert one is None or math.isnan(one)
        else:
            assert one == pytest.approx(other, rel=rel, abs=1e-7)


def flat(value):
    return [leaf for entry in value for leaf in flat(entry)] if isinstance(value, list) else [value]
