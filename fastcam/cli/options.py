"""The options that several commands have, and one that the option parser does not know by itself."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

PATTERNS = "Names or wildcards, separated by commas"
METHODS = f"{PATTERNS}; sess(gradcam) and the like: see fastcam methods."
METRICS = f"{PATTERNS}; all; or cheap, those of at most one forward under the map."
DATA = "Folder of class folders, annotations.json, COCO JSON, ILSVRC or WSOL folder, WebDataset or Parquet."
ADDRESS = r"local|auto|ray://.+|[^/\s]+:\d+"

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="timm:NAME, torchvision:NAME, FILE.pt2 or package.module:callable "
        "(default: EfficientNet-Lite0, ImageNet).",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(help="A .pt, .pth, .safetensors or .npz file, or 'random' (default: the model's pretrained ones)."),
]
Device = Annotated[str | None, typer.Option(help="Such as cpu or cuda:0 (default: a GPU if there is one).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Layer = Annotated[
    str | None, typer.Option(help="Name, or several separated by commas to fuse (default: the last map).")
]
Option = Annotated[
    list[str] | None,
    typer.Option(
        "--option", "-O", metavar="NAME=VALUE", help="Of the methods that have it; in evaluate also of the protocol."
    ),
]
Precision = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
Runtime = Annotated[
    str, typer.Option(help="Of masked forwards on a CPU: torch, onnxruntime or openvino; exporting takes seconds.")
]
Crop = Annotated[int | None, typer.Option(min=1, help="Side of the center crop in pixels (default: the model's).")]


class MaybeAddress(TyperCommand):
    """A command whose `--ray` may stand alone or before an address."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Gives a lone `--ray` the address "local"."""
        given: list[str] = []
        for word, following in zip(args, [*args[1:], ""], strict=True):
            given.append(word)
            if word == "--ray" and not re.fullmatch(ADDRESS, following):
                given.append("local")
        return super().parse_args(ctx, given)
