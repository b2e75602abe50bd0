"""What can be asked without a picture: methods, layers, environment."""

from __future__ import annotations

import json
import platform
from typing import Any

import torch
from rich.text import Text

import fastcam
from fastcam import keep_freed_memory, ops
from fastcam.allocator import ADVICE, chosen
from fastcam.cli.console import ARROWS, console, table
from fastcam.cli.models import Loaded
from fastcam.meta import METAS, list_meta_methods
from fastcam.methods.registry import METHODS
from fastcam.metrics.registry import GROUPS, METRICS, find, list_metrics
from fastcam.model.layers import list_layers
from fastcam.ops.native import build_info
from fastcam.runtimes import RUNTIMES, lacking


def methods(pattern: str, as_json: bool) -> None:
    """Prints the methods whose name matches, and in a second table the meta-methods.

    Args:
        pattern: a name with wildcards.
        as_json: print a JSON list instead of a table.

    Raises:
        ValueError: none matches.
    """
    names, metas = fastcam.list_methods(pattern), list_meta_methods(pattern)
    if not names and not metas:
        raise ValueError(f"no method matches {pattern!r}; there are {', '.join(fastcam.list_methods())}")
    found = [METHODS[name] for name in names]
    if as_json:
        keys = ("name", "formula", "needs", "cost", "options", "paper")
        listed = [{key: getattr(method, key) for key in keys} for method in found]
        listed += [_meta(name) for name in metas]
        print(json.dumps(listed, indent=2, default=str))
        return
    rows = [[m.name, m.formula, m.needs, m.cost, _options(m.options), m.paper] for m in found]
    if rows:
        console().print(table(["method", "formula", "needs", "cost", "options", "paper"], rows))
    rows = [[m["name"], m["formula"], m["cost"], _options(m["options"]), m["paper"]] for m in map(_meta, metas)]
    if rows:
        title = "meta-methods run another one, whose map is m and whose run is R"
        console().print(table(["meta-method", "formula", "cost", "options", "paper"], rows, title))


def _meta(name: str) -> dict[str, Any]:
    """A meta-method as a row of the list."""
    kind = METAS[name]
    return {
        "name": f"{name}(METHOD)",
        "formula": kind.formula,
        "needs": "a method",
        "cost": kind.cost,
        "options": kind.defaults(),
        "paper": kind.paper,
    }


def _options(options: dict[str, Any]) -> str:
    return "\n".join(f"{name}={value}" for name, value in options.items())


def metrics(pattern: str, as_json: bool) -> None:
    """Prints the metrics whose name matches.

    Args:
        pattern: a name with wildcards, "all" or "cheap".
        as_json: print a JSON list instead of a table.

    Raises:
        ValueError: none matches.
    """
    names = sorted(info.name for info in find(pattern)) if pattern in GROUPS else list_metrics(pattern)
    if not names:
        raise ValueError(f"no metric matches {pattern!r}; there are {', '.join(list_metrics())}")
    found = [METRICS[name] for name in names]
    if as_json:
        keys = ("name", "formula", "direction", "range", "needs", "cost", "cheap", "protocols", "paper")
        print(json.dumps([{key: getattr(metric, key) for key in keys} for metric in found], indent=2))
        return
    rows = [
        [m.name, ARROWS[m.direction], m.range, m.formula, ", ".join(m.needs), m.cost, ", ".join(m.protocols), m.paper]
        for m in found
    ]
    console().print(table(["metric", "better", "range", "formula", "needs", "forwards", "protocols", "paper"], rows))
    cheap = ", ".join(metric.name for metric in found if metric.cheap)
    if cheap:
        console().print(Text(f"cheap, at most the one forward under the map that all share: {cheap}"), soft_wrap=True)


def layers(loaded: Loaded, as_json: bool) -> None:
    """Prints the layers that `layer` may name, in the order they run.

    Args:
        loaded: the model.
        as_json: print a JSON list instead of a table.
    """
    crop = loaded.preprocess.crop or loaded.preprocess.size or 224
    height, width = (crop, crop) if isinstance(crop, int) else crop
    images = torch.zeros(1, 3, height, width, device=loaded.device)
    found = list_layers(loaded.model, images)
    if as_json:
        keys = ("name", "kind", "shape", "default")
        print(json.dumps([{key: getattr(layer, key) for key in keys} for layer in found], indent=2))
        return
    rows = [
        [layer.name, layer.kind, " x ".join(map(str, layer.shape[1:])), "default" if layer.default else ""]
        for layer in found
    ]
    console().print(table(["layer", "kind", "shape", ""], rows, f"{loaded.label}, one {height} x {width} picture"))


def malloc() -> str:
    """How freed memory is treated here, and what to do about it."""
    if own := chosen():
        return f"as the environment says: {own}"
    if not keep_freed_memory():
        return "not glibc's: left as it is"
    return f"kept by the commands; in a program of your own call fastcam.keep_freed_memory(), or start it with {ADVICE}"


def environment() -> dict[str, Any]:
    """Versions, hardware and which op runs on which backend, as plain data."""
    build = build_info()
    return {
        "fastcam": fastcam.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "cpu": {
            "isa": build["isa"] or None,
            "torch_isa": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "openmp": build["openmp"],
            "compiler": build["compiler"] or None,
        },
        "malloc": malloc(),
        "runtimes": {name: lacking(name) for name in RUNTIMES},
        "cuda": {
            "built": build["cuda"],
            "torch": torch.version.cuda,
            "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
        "ops": ops.support(),
    }


def _runtime(name: str, missing: list[str]) -> str:
    extra = RUNTIMES[name].extra
    return f"{name} needs {' and '.join(missing)}: pip install 'fastcam[{extra}]'" if missing else name


def env(as_json: bool) -> None:
    """Prints the environment.

    Args:
        as_json: print JSON instead of tables.
    """
    found = environment()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    cpu, cuda = found["cpu"], found["cuda"]
    isa = f"{cpu['isa']} kernels" if cpu["isa"] else "no compiled kernels"
    openmp = "with OpenMP" if cpu["openmp"] else "without OpenMP"
    kernels = "with" if cuda["built"] else "without"
    rows = [
        ["fastcam", found["fastcam"]],
        ["python", f"{found['python']} on {found['platform']}"],
        ["torch", f"{found['torch']}, CUDA {cuda['torch'] or 'none'}, {cpu['torch_isa']}"],
        ["cpu", f"{isa}, {openmp}, {cpu['threads']} threads, {cpu['compiler'] or 'nothing compiled'}"],
        ["malloc", found["malloc"]],
        ["runtimes", "; ".join(_runtime(name, missing) for name, missing in found["runtimes"].items())],
        ["gpu", f"{', '.join(cuda['devices']) or 'none'}; fastcam {kernels} CUDA kernels"],
    ]
    console().print(table(["", ""], rows))
    names = list(dict.fromkeys(row["op"] for row in found["ops"]))
    backends = list(dict.fromkeys(row["backend"] for row in found["ops"]))
    cell = {(row["op"], row["backend"]): row for row in found["ops"]}
    reasons = list(dict.fromkeys(row["reason"] for row in found["ops"] if row["reason"]))
    marks = [
        [
            name,
            *(
                "yes"
                if cell[name, backend]["available"]
                else f"no ({reasons.index(cell[name, backend]['reason']) + 1})"
                for backend in backends
            ),
        ]
        for name in names
    ]
    console().print(table(["op", *backends], marks))
    for number, reason in enumerate(reasons, 1):
        console().print(Text(f"({number}) {reason}"), soft_wrap=True)
