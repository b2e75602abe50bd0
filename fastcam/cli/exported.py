"""Load a torch.export program as a module whose layers still have names."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
from torch import nn

from fastcam.image import Preprocess


def load_exported(path: Path) -> tuple[nn.Module, Preprocess, int | None]:
    """The network in a .pt2 file, pictures of the size it was exported with, and its batch size.

    Args:
        path: written by `torch.export.save`.

    Returns:
        The unflattened module; ImageNet's preprocessing at the program's height and width; the batch size, or
        None where it may vary.

    Raises:
        ValueError: no such file, another format, or a program that does not take single RGB pictures.
    """
    if not path.is_file():
        raise ValueError(f"no such file: {path}; save one by torch.export.save(torch.export.export(model, args), path)")
    if not zipfile.is_zipfile(path):  # torch would log a traceback before it raises
        raise ValueError(f"{path} is not a torch.export program: no archive; save one by torch.export.save")
    try:
        program = torch.export.load(path)
    except Exception as error:  # the archive reader raises whatever its parsers do
        reason = str(error).split("\n", 1)[0]
        raise ValueError(f"{path} is not a torch.export program ({reason})") from error
    shape = _input_shape(program)
    if len(shape) != 4 or shape[0] not in (1, None) or shape[1] not in (3, None):
        wanted = " x ".join("any" if n is None else str(n) for n in shape) or "not one tensor"
        raise ValueError(
            f"the input of {path} is {wanted}; expected 1 or any x 3 x height x width: "
            "export it with RGB pictures and a dynamic batch dimension"
        )
    batch, _, height, width = shape
    settings = Preprocess()
    if height and width:
        # The shorter side to the crop as 256 to 224, what most ImageNet models are evaluated with.
        larger = (round(height * 8 / 7), round(width * 8 / 7))
        settings = Preprocess(larger[0] if height == width else larger, (height, width))
    # Unflattened, the program keeps the modules of the original, which `layer` can name.
    return torch.export.unflatten(program), settings, batch


def _input_shape(program: torch.export.ExportedProgram) -> tuple[int | None, ...]:
    """The shape of the first input, None where a size may vary; empty when it is no tensor."""
    first = list(program.graph_signature.user_inputs)[:1]
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in first and isinstance(node.meta.get("val"), torch.Tensor):
            return tuple(size if isinstance(size, int) else None for size in node.meta["val"].shape)
    return ()
