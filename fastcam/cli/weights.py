"""Read weights files and fill a network with them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

NESTED = ("state_dict", "model_state_dict", "model", "net", "state_dict_ema", "model_ema")
PREFIXES = ("module.", "_orig_mod.", "model.")  # of DataParallel, torch.compile, Lightning


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name; nothing in the file is executed.

    Args:
        path: .safetensors, .npz, or what `torch.save(model.state_dict(), path)` wrote; a state dict below a
            key such as "state_dict" is found.

    Raises:
        ValueError: no such file, another format, or no tensors in it.
    """
    if not path.is_file():
        raise ValueError(f"no weights file {str(path)!r}; give a .pt, .pth, .safetensors or .npz file")
    try:
        values = _read(path)
    except ModuleNotFoundError as error:
        raise ValueError(f"reading {path} needs {error.name}: pip install {error.name}") from None
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path} is not a file of plain tensors; save it by torch.save(model.state_dict(), path)"
        ) from None
    except Exception as error:  # each reader has its own: RuntimeError, EOFError, SafetensorError, BadZipFile …
        raise ValueError(f"cannot read weights from {path}: {str(error).split(chr(10))[0]}") from error
    while isinstance(values, Mapping):
        inner = next((values[key] for key in NESTED if isinstance(values.get(key), Mapping)), None)
        if inner is None:
            break
        values = inner
    tensors = {k: v for k, v in values.items() if isinstance(v, Tensor)} if isinstance(values, Mapping) else {}
    if not tensors:
        raise ValueError(f"no tensors in {path}; expected a state dict, or one below {', '.join(NESTED[:3])}")
    return tensors


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return torch.load(path, map_location="cpu", weights_only=True)


def fill(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copies tensors into a network by name, exactly one for each of its parameters and buffers.

    Args:
        network: changed in place.
        tensors: by name, perhaps all with a prefix that a wrapper added.
        source: what to call them in an error.

    Raises:
        ValueError: names or shapes differ.
    """
    wanted = network.state_dict()
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors) and not all(n.startswith(prefix) for n in wanted):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    # Older checkpoints have no counters, and inference does not read them.
    missing = [n for n in wanted if n not in tensors and not n.endswith("num_batches_tracked")]
    extra = [name for name in tensors if name not in wanted]
    shapes = [
        f"{name} {tuple(tensor.shape)} for {tuple(wanted[name].shape)}"
        for name, tensor in tensors.items()
        if name in wanted and tensor.shape != wanted[name].shape
    ]
    faults = [
        f"{len(names)} {what}: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
        for what, names in (("missing", missing), ("unknown", extra), ("of another shape", shapes))
        if names
    ]
    if faults:
        raise ValueError(f"the weights in {source} do not fit this {type(network).__name__}; {'; '.join(faults)}")
    network.load_state_dict(tensors, strict=False)


def fill_in_order(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copies tensors into a network by their order, for weights saved under another package's names.

    Args:
        network: changed in place.
        tensors: as many as the network has parameters and buffers, of the same shapes.

    Raises:
        ValueError: another number of tensors, or another shape.
    """
    wanted = network.state_dict()
    if [t.shape for t in wanted.values()] != [t.shape for t in tensors.values()]:
        raise ValueError(f"{len(tensors)} tensors do not match the {len(wanted)} of this network in order")
    network.load_state_dict(dict(zip(wanted, tensors.values(), strict=True)))
