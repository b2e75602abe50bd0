"""The methods as the registry has them, family by family: what docs/methods.md shows."""

from __future__ import annotations

from typing import Any

from fastcam.meta import METAS
from fastcam.methods.registry import METHODS, Method

FAMILIES = {  # module of the formulas: title
    "activations": "Activations and the classifier's own weights",
    "components": "Structure of the activations",
    "gradients": "Gradients at the layer",
    "contrasts": "Gradients of other scores, and of second order",
    "scores": "Scores under masks made of the activations",
    "groups": "Scores under masks made of the activations",
    "optimized": "Scores under masks made of the activations",
    "layered": "Several layers in one map",
    "relevance": "Relevance",
    "inputs": "Gradients at the image",
    "perturbations": "Black boxes",
    "random_masks": "Black boxes",
    "searched": "Black boxes",
    "attention": "Attention of transformers",
    "learned": "Learned attention",
}
HEADER = ("method", "formula", "options, the first is the default", "cost", "source")


def markdown(_: object = None) -> str:
    """A table for each family, then the meta-methods."""
    families: dict[str, list[Method]] = {title: [] for title in FAMILIES.values()}
    for method in METHODS.values():
        families[FAMILIES[method.weigh.__module__.rsplit(".", 1)[1]]].append(method)
    parts = [f"### {title}\n\n{_table([line(m) for m in found])}" for title, found in families.items()]
    metas = [
        (f"{kind}(METHOD)", meta.formula, _options(meta.defaults(), {}), meta.cost, meta.paper)
        for kind, meta in sorted(METAS.items())
    ]
    return "\n\n".join([*parts, f"### Methods of methods\n\n{_table(metas)}"])


def line(method: Method) -> tuple[str, ...]:
    """One method's cells."""
    return method.name, method.formula, _options(method.options, method.choices), method.cost, method.paper


def _options(defaults: dict[str, Any], choices: dict[str, tuple[Any, ...]]) -> str:
    shown = [f"{name}={', '.join(map(str, choices.get(name, (value,))))}" for name, value in defaults.items()]
    return "; ".join(shown) or "–"


def _table(rows: list[tuple[str, ...]]) -> str:
    cells = [HEADER, ["---"] * len(HEADER), *[(f"`{name}`", *rest) for name, *rest in rows]]
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in escaped)
