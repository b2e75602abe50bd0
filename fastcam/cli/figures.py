"""The figures of `fastcam evaluate`: curves, boxes over thresholds, quality against cost."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastcam.cli.results import BASELINE, Outcome
from fastcam.distributed import write_whole

# Okabe and Ito's colors, which look different to everybody; dashes and markers tell them apart in gray as well.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
MARKERS = "osD^vPX*"
QUALITY = "adcc"
FILES = ("curves.png", "boxes.png", "cost.png")


def write_figures(out: Path, outcome: Outcome) -> list[Path]:
    """Draws what there are numbers for.

    Args:
        out: folder of the PNG files.
        outcome: of the evaluation.

    Returns:
        The files.
    """
    drawn = []
    for name, draw in zip(FILES, (_curves, _boxes, _cost), strict=True):
        figure = draw(outcome)
        if figure is not None:
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=160, bbox_inches="tight")
            write_whole(out / name, buffer.getvalue())
            drawn.append(out / name)
    return drawn


def _panels(count: int, wide: float = 5.2) -> tuple[Any, Any]:
    """A figure outside pyplot's list, which would keep it, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(wide * count, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, count, squeeze=False)[0]
    for one in axes:
        one.grid(alpha=0.3)
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _style(outcome: Outcome, method: str) -> dict[str, Any]:
    """The same look for a method in every figure; the baseline is gray."""
    if method == BASELINE:
        return {"color": "0.5", "linestyle": ":", "marker": "+"}
    number = [name for name in outcome.methods if name != BASELINE].index(method)
    return {
        "color": COLORS[number % len(COLORS)],
        "linestyle": DASHES[number // len(COLORS) % len(DASHES)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def _curve(outcome: Outcome, method: str, name: str) -> list[float] | None:
    found = outcome.table[method].get(name)
    while found and isinstance(found[0], list):  # one of several overlaps: the first
        found = found[0]
    return found if found and not math.isnan(found[0]) else None


def _plot(axes: Any, outcome: Outcome, name: str, label: Callable[[str], str], open_end: bool = False) -> bool:
    """Draws the curve of each method that has one."""
    any_ = False
    for method in outcome.methods:
        values = _curve(outcome, method, name)
        if values is not None:
            any_ = True
            steps = len(values) if open_end else len(values) - 1
            look = _style(outcome, method)
            every = max(1, len(values) // 8)
            offset = outcome.methods.index(method) * every // max(1, len(outcome.methods))
            at = [k / steps for k in range(len(values))]
            axes.plot(at, values, label=label(method), markevery=(offset, every), markersize=4, linewidth=1.5, **look)
    return any_


def _curves(outcome: Outcome) -> Any:
    names = [name for name in ("insertion", "deletion") if name in outcome.metrics]
    if not names:
        return None
    figure, axes = _panels(len(names))
    protocol = outcome.settings["evaluation"]["protocol"]
    score = protocol.get("score", "probability")
    for one, name in zip(axes, names, strict=True):
        _plot(one, outcome, f"{name}_curve", lambda method, name=name: f"{method} {outcome.table[method][name]:.4f}")
        better = "higher is better" if name == "insertion" else "lower is better"
        action = "inserted" if name == "insertion" else "deleted"
        one.set(xlabel=f"share of pixels {action}", ylabel=f"{score} of the explained class", xlim=(0, 1))
        one.set_title(f"{name.capitalize()}: mean curve and area, {better}", fontsize=10)
        one.legend(fontsize=8, frameon=False)
    return figure


def _boxes(outcome: Outcome) -> Any:
    name = next((n for n in ("max_box_acc", "max_box_acc_v2") if n in outcome.metrics), None)
    if name is None:
        return None
    figure, axes = _panels(2)
    iou = 0.5 if name == "max_box_acc" else outcome.settings["evaluation"]["protocol"].get("ious", [0.3])[0]
    _plot(
        axes[0], outcome, f"{name}_curve", lambda method: f"{method} {outcome.table[method][name]:.4f}", open_end=True
    )
    axes[0].set(xlabel="threshold as a share of the map's maximum", ylabel=f"share of pictures with box IoU ≥ {iou:g}")
    axes[0].set_title("Box accuracy over the threshold, and its maximum", fontsize=10)
    _plot(axes[1], outcome, f"{name}_iou_curve", str, open_end=True)
    axes[1].set(xlabel="threshold as a share of the map's maximum", ylabel="mean IoU of the box")
    axes[1].set_title("IoU over the threshold", fontsize=10)
    for one in axes:
        one.set(xlim=(0, 1), ylim=(0, None))
        one.legend(fontsize=8, frameon=False)
    return figure


def _cost(outcome: Outcome) -> Any:
    if QUALITY not in outcome.metrics:
        return None
    points = {
        method: (outcome.costs.get(f"method {method}", {}).get("seconds", 0.0), outcome.table[method][QUALITY])
        for method in outcome.methods
        if not math.isnan(outcome.table[method].get(QUALITY, math.nan))
    }
    points = {method: (1000 * seconds, quality) for method, (seconds, quality) in points.items() if seconds > 0}
    if not points:
        return None
    figure, (axes,) = _panels(1, 6.4)
    for method, (milliseconds, quality) in points.items():
        look = _style(outcome, method) | {"linestyle": "none"}
        axes.plot(milliseconds, quality, markersize=8, label=f"{method} {quality:.4f}", **look)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.15, y=0.15)
    axes.set(xlabel="milliseconds for the map of one picture (log scale)", ylabel="ADCC (higher is better)")
    axes.set_title("Quality against cost", fontsize=10)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
