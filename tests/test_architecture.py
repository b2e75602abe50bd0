"""The layers, the names and the sizes of the tree, as tests."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastcam.ops import OPS
from tests.cases import CASES

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fastcam"
SKIPPED = {".venv", "venv", "build", "dist", ".git", "node_modules"}
MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = [
    path
    for path in sorted(ROOT.rglob("*"))
    if path.suffix in {".py", ".cpp", ".h", ".cu"} and not SKIPPED & set(path.relative_to(ROOT).parts)
]

BELOW = {
    "ops": {"_C"},
    "methods": {"ops"},
    "model": {"ops"},
    "runtimes": set(),
    "cam": {"ops", "methods", "model", "runtimes"},
    "metrics": {"ops", "cam"},
    "data": set(),
    "datasets": {"cam"},  # of which only the public fastcam.image, see PUBLIC
    "distributed": set(),
    "cli": {"data"},
    "compat": set(),
}
# The edges, and what else of fastcam each of them may see.
EDGES = {
    "cli": ("fastcam.cli.", "fastcam.data."),
    "datasets": ("fastcam.datasets.",),
    "distributed": ("fastcam.distributed.",),
    "compat": ("fastcam.compat.",),
}
# What an edge may see: the public names, each in the module that publishes it.
PUBLIC = {
    "fastcam",
    "fastcam.allocator",  # what `fastcam env` says of it
    "fastcam.compat",
    "fastcam.compat.processes",  # `fastcam accelerate` redirects a script's imports
    "fastcam.datasets",
    "fastcam.distributed",
    "fastcam.distributed.local",
    "fastcam.distributed.on_ray",
    "fastcam.distributed.torchrun",
    "fastcam.image",
    "fastcam.meta",
    "fastcam.methods.registry",
    "fastcam.metrics",
    "fastcam.metrics.registry",
    "fastcam.meta.windows",  # SESS of a base method that fastcam does not have
    "fastcam.model.capture",  # evaluation(): the mode of a model that a drop-in runs itself
    "fastcam.model.layers",
    "fastcam.model.outputs",  # what to score in a model's output, and what a layer gave
    "fastcam.ops",
    "fastcam.ops.native",  # build_info() for `fastcam env`
    "fastcam.runtimes",
    "fastcam.cli",
    "fastcam.data",
}


def layer_of(module):
    """The layer of a dotted name: fastcam.ops.native -> ops; the top level's own modules, ask and meta, are cam."""
    parts = module.split(".")
    if (
        len(parts) > 1
        and parts[1] not in {"ask", "meta"}
        and (parts[1] in {*BELOW, "_C"} or (PACKAGE / parts[1]).is_dir())
    ):
        return parts[1]
    return "cli" if parts[1:] == ["__main__"] else "cam"


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imported(path):
    """Every fastcam module a file imports, also inside functions, relative or absolute, as dotted names."""
    package = name_of(path).split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "fastcam")
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module.split(".")[0] == "fastcam":
                for alias in node.names:
                    yield f"{module}.{alias.name}" if is_module(f"{module}.{alias.name}") else module


def is_module(name):
    path = ROOT.joinpath(*name.split("."))
    return name == "fastcam._C" or path.with_suffix(".py").exists() or path.is_dir()


def attribute_chains(path):
    """Private names reached through a fastcam module would pass the import rule; edges may not use any."""
    return re.findall(r"\bfastcam(?:\.\w+)*\._(?!_)\w+", path.read_text())


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_from_the_layers_below(path):
    layer = layer_of(name_of(path))
    assert layer in BELOW, f"{layer} has no place in the layer rule yet"
    for module in imported(path):
        if layer in EDGES:
            op = module.startswith("fastcam.ops.") and module.rsplit(".", 1)[1] in OPS
            inside = module.startswith(EDGES[layer])
            assert module in PUBLIC or inside or op, f"{module} is not a public name"
            assert layer != "distributed" or not module.startswith("fastcam.cli"), "the command line calls it"
            assert layer in {"compat", "cli"} or not module.startswith("fastcam.compat"), (
                "nothing below knows the peers"
            )
            assert layer != "compat" or not module.startswith(
                ("fastcam.cli", "fastcam.datasets", "fastcam.distributed")
            )
            assert not [chain for chain in attribute_chains(path) if not chain.startswith("fastcam.compat.")]
        else:
            below = layer_of(module)
            if path == PACKAGE / "__init__.py" and below == "metrics":
                continue  # the front names `list_metrics`, and loads it when asked
            assert below == layer or below in BELOW[layer], f"{layer} imports {module}"


def test_relative_imports_are_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "fastcam" / "methods" / "x.py"
    path.parent.mkdir(parents=True)
    (tmp_path / "fastcam" / "model").mkdir()
    path.write_text(
        "from ..model import capture\nfrom .. import model\nimport fastcam.cam\nfrom fastcam.ops import use\n"
    )
    assert list(imported(path)) == ["fastcam.model", "fastcam.model", "fastcam.cam", "fastcam.ops"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_file_is_short_and_well_named(path):
    assert len(path.read_text().splitlines()) < 300
    if PACKAGE / "compat" not in path.parents:  # there the peers' own module names are the contract
        assert path.stem not in {"utils", "util", "helpers", "helper", "common", "misc"}


def test_an_op_has_one_name_everywhere():
    assert set(CASES) == set(OPS)
    header = (ROOT / "csrc" / "ops.h").read_text()
    bindings = (ROOT / "csrc" / "bindings.cpp").read_text()
    stub = (PACKAGE / "_C.pyi").read_text()
    for op in OPS:
        assert (PACKAGE / "ops" / f"{op}.py").exists()
        assert (ROOT / "csrc" / "cpu" / f"{op}.cpp").exists()
        assert re.search(rf"\b{op}\b", header)
        assert f'"{op}"' in bindings
        assert f"def {op}(" in stub


@pytest.mark.parametrize("path", [p for p in SOURCES if ROOT / "csrc" in p.parents], ids=lambda p: p.name)
def test_csrc_knows_no_torch_and_one_file_knows_python(path):
    included = re.findall(r'#\s*include\s*[<"]([^>"]+)[>"]', path.read_text())
    assert not [name for name in included if re.match(r"(torch|ATen|c10)\b", name)]
    if path.name != "bindings.cpp":
        assert not [name for name in included if "pybind11" in name or name == "Python.h"]


def test_only_native_touches_the_library():
    users = [path for path in MODULES if "fastcam._C" in imported(path)]
    assert users == [PACKAGE / "ops" / "native.py"]


def test_top_level_is_lazy():
    code = (
        "import sys, fastcam; print([m for m in ('torchvision', 'timm', 'PIL', 'typer', 'rich') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
