"""What `fastcam evaluate` leaves: rows.parquet, results.json, results.md."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fastcam
from fastcam.cli.console import ARROWS
from fastcam.distributed import Gathered, Result, whole, write_whole
from fastcam.metrics.registry import METRICS

ROWS, RESULTS, MARKDOWN = "rows.parquet", "results.json", "results.md"
PACKAGES = ("torchmetrics", "numpy", "pillow", "timm", "torchvision", "pyarrow", "ray")
BASELINE = "center"
GROUP = 4096  # rows: more than a few shards in a row group, and still little memory
COSTS = (
    "A tail is one row through what follows the layer. A metric's figure is what it takes alone, the total counts what "
    "is shared once."
)
LOST = ("sample", "file")  # not only a box or an outline
SHOWN = 20  # problems in the Markdown; results.json has all


@dataclass
class Outcome:
    """A finished evaluation.

    Attributes:
        settings: everything that decides the numbers.
        data: where the pictures came from.
        table: by method and name, numbers and curves.
        costs: of an image, by name.
        gathered: what all shards have in common.
        problems: {"file", "reason", "lost"} each.
        samples: how many pictures there were to evaluate.
        notes: what a reader should know of the data set.
        values: by method and metric, how many pictures had a value.
    """

    settings: dict[str, Any]
    data: str
    table: dict[str, dict[str, Any]]
    costs: dict[str, dict[str, float]]
    gathered: Gathered
    problems: list[dict[str, str]]
    samples: int
    notes: list[str]
    values: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether some pictures have no rows."""
        return any(problem["lost"] in LOST for problem in self.problems)

    @property
    def methods(self) -> list[str]:
        """Rows of the table."""
        return list(self.table)

    @property
    def metrics(self) -> list[str]:
        """Columns of the table: what at least one method has a number for."""
        names = dict.fromkeys(name for row in self.table.values() for name in row if name in METRICS)
        return [name for name in names if any(not math.isnan(row.get(name, math.nan)) for row in self.table.values())]

    @property
    def remarks(self) -> list[str]:
        """The notes, and which metrics have no number."""
        without = [name for name in self.settings["evaluation"].get("metrics", ()) if name not in self.metrics]
        return [*self.notes, *([f"no picture has a value of {', '.join(without)}"] if without else [])]

    @property
    def summary(self) -> str:
        """In one line."""
        done = f"{self.gathered.images} of {self.samples} pictures evaluated by {', '.join(self._explained())}"
        return f"{done}; {len(self.problems)} problems" if self.problems else done

    def _explained(self) -> list[str]:
        return [method for method in self.methods if method != BASELINE]

    def best(self, metric: str) -> set[str]:
        """The methods with the best number, as it is printed: not the baseline, and none where all are equal."""
        up = METRICS[metric].direction == "up"
        found = {m: number(self.table[m].get(metric)) for m in self._explained()}
        known = {m: float(text) for m, text in found.items() if text != "–"}
        best = {m for m, value in known.items() if value == (max if up else min)(known.values())}
        return best if len(best) < len(known) else set()

    def as_json(self) -> dict[str, Any]:
        """Plain data; what has no number is None."""
        gathered = self.gathered
        keys = ("formula", "direction", "range", "paper")
        return clean(
            {
                "data": self.data,
                "settings": self.settings,
                "versions": versions(),
                "machines": gathered.machines,
                "metrics": {name: {key: getattr(METRICS[name], key) for key in keys} for name in self.metrics},
                "table": self.table,
                "values": self.values,
                "costs": self.costs,
                "seconds": {"all_workers": gathered.seconds, "waiting_for_pictures": gathered.waited},
                "counts": {
                    "samples": self.samples,
                    "evaluated": gathered.images,
                    "rows": gathered.rows,
                    "problems": len(self.problems),
                },
                "problems": self.problems,
                "notes": self.remarks,
            }
        )


def check() -> None:
    """Proves that what writes the results is there.

    Raises:
        ValueError: a package is missing.
    """
    for package in ("pyarrow", "matplotlib"):
        try:
            import_module(package)
        except ModuleNotFoundError as error:
            if error.name != package:
                raise
            raise ValueError(f"fastcam evaluate needs {package}: pip install 'fastcam[evaluate]'") from None


def versions() -> dict[str, str]:
    """Of Python, fastcam and the packages that have a part in the numbers."""
    found = {"python": platform.python_version(), "fastcam": fastcam.__version__, "torch": torch.__version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def clean(value: Any) -> Any:
    """As JSON can hold it: NaN and infinities become None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): clean(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(entry) for entry in value]
    return value


def number(value: float | None) -> str:
    """Four digits after the point, or a dash where there is no number."""
    return "–" if value is None or math.isnan(value) else f"{value:.4f}"


def write_rows(path: Path, outcome: Outcome, results: Iterable[Result]) -> None:
    """Writes one row for each image and method.

    Args:
        path: of the Parquet file; its schema's metadata hold settings and versions under "fastcam".
        outcome: names the columns.
        results: of all shards, in order.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    found, settings = outcome.gathered, outcome.settings
    texts = {"key", "method"}
    kinds = {name: pa.string() if name in texts else pa.int64() for name in found.lists}
    kinds |= {"probability": pa.float64()} if "probability" in kinds else {}
    kinds |= dict.fromkeys(found.numbers, pa.float64()) | dict.fromkeys(found.curves, pa.list_(pa.float32()))
    same = {
        "model": settings["model"],
        "protocol": settings["evaluation"]["protocol"]["name"],
        "fastcam": settings["fastcam"],
        "torch": settings["torch"],
    }
    fields = [pa.field(name, kind) for name, kind in kinds.items()]
    fields += [pa.field(name, pa.dictionary(pa.int32(), pa.string())) for name in same] + [pa.field("seed", pa.int64())]
    about = {"settings": settings, "versions": versions(), "data": outcome.data}
    schema = pa.schema(fields, {"fastcam": json.dumps(clean(about))})

    def table(result: Result) -> Any:
        rows = len(next(iter(result.columns.values())))
        columns = []
        for name, kind in kinds.items():
            column = result.columns.get(name, [None] * rows)
            values = column.tolist() if isinstance(column, Tensor) else column
            columns.append(pa.array(values, kind))
        columns += [pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), [text]) for text in same.values()]
        return pa.Table.from_arrays([*columns, pa.array([settings["seed"]] * rows, pa.int64())], schema=schema)

    with whole(path) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
        waiting: list[Any] = []
        for result in results:
            if result.columns:
                waiting.append(table(result))
            if sum(len(one) for one in waiting) >= GROUP:
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting))


def write_summary(out: Path, outcome: Outcome) -> None:
    """Writes results.json and results.md."""
    write_whole(out / RESULTS, (json.dumps(outcome.as_json(), indent=1, ensure_ascii=False) + "\n").encode())
    write_whole(out / MARKDOWN, markdown(outcome).encode())


def markdown(outcome: Outcome) -> str:
    """The table, methods by metrics, with costs, counts and problems."""
    settings, found = outcome.settings, outcome.gathered
    protocol = settings["evaluation"]["protocol"]
    height, width = settings["preprocess"]["crop"]
    made = (
        f"Protocol {protocol['name']}, pictures brought to {height} x {width} by {protocol['resize']}, "
        f"seed {settings['seed']}, {settings['precision']} in {settings['runtime']}, "
        f"batches of {settings['batch_size']}; fastcam {settings['fastcam']}, torch {settings['torch']}."
    )
    best = {metric: outcome.best(metric) for metric in outcome.metrics}
    rows = [
        [method, *(_marked(outcome.table[method].get(m), method in best[m]) for m in outcome.metrics)]
        for method in outcome.methods
    ]
    parts = [
        f"# {settings['model']} on {Path(outcome.data).name}",
        f"{outcome.summary}. {made}",
        "\n".join(f"- {note}" for note in outcome.remarks),
        _table(["method", *(f"{name} {ARROWS[METRICS[name].direction]}" for name in outcome.metrics)], rows),
        "↑ higher is better, ↓ lower is better, best in bold, – no value. "
        f"`{BASELINE}` is a Gaussian in the middle of every picture." * (BASELINE in outcome.table),
        "## Pictures with a value",
        _table(["method", *outcome.metrics], [[method, *_counts(outcome, method)] for method in outcome.methods]),
        "A picture without one, such as one without a box, leaves the mean.",
        "## Cost of one picture",
        _table(["", "forwards", "tails", "backwards", "seconds"], cost_rows(outcome)),
        f"{COSTS} {found.seconds:,.1f} s in all workers together, {found.waited:,.1f} s of these waiting for pictures.",
    ]
    if outcome.problems:
        lines = [f"- {one['file']}: {one['reason']}" for one in outcome.problems[:SHOWN]]
        more = len(outcome.problems) - SHOWN
        parts += [f"## {len(outcome.problems)} problems", "\n".join(lines)]
        parts += [f"and {more} more in {RESULTS}"] if more > 0 else []
    return "\n\n".join(part for part in parts if part) + "\n"


def cost_rows(outcome: Outcome) -> list[list[str]]:
    """A row for each method, metric and the total: forwards, tails, backwards and seconds."""
    units = ("forwards", "tails", "backwards", "seconds")
    return [
        [name, *(f"{cost.get(unit, math.nan):,.4g}" for unit in units)]
        for name, cost in outcome.costs.items()
        if name not in METRICS or name in outcome.metrics
    ]


def _counts(outcome: Outcome, method: str) -> list[str]:
    own = outcome.values.get(method, {})
    return [f"{own[metric]:,}" if metric in own else "–" for metric in outcome.metrics]


def _marked(value: float | None, best: bool) -> str:
    return f"**{number(value)}**" if best else number(value)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---", *("---:" for _ in columns[1:])], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
