"""The reproduced table beside the published one, as Markdown: values, order of methods, nearest Recipro-CAM."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from bench.published import (
    COLUMNS,
    METHODS,
    Rows,
    agreement,
    beside,
    distance,
    mean_of,
    order,
    published,
    sources,
)
from bench.results_table import Result
from bench.rows import duration

TITLES = {
    "drop": "Drop ↓",
    "increase": "Inc ↑",
    "deletion": "Del ↓",
    "insertion": "Ins ↑",
    "coherency": "Coh ↑",
    "complexity": "Compl ↓",
    "adcc": "ADCC ↑",
}
NAMES = {
    "gradcam": "Grad-CAM",
    "gradcampp": "Grad-CAM++",
    "smoothgradcampp": "Smooth Grad-CAM++",
    "scorecam": "Score-CAM",
    "reciprocam": "Recipro-CAM",
}
FORMS = (("point", "paper"), ("gaussian", "paper"), ("point", "recipro"), ("gaussian", "recipro"))


def markdown(rows: Sequence[Result], models: Sequence[str]) -> str:
    """The whole report."""
    shown = [model for model in models if any(row.model == model for row in rows)]
    if not shown:
        return "Nothing reproduced yet.\n"
    parts = ["# The published table, again", *_preface(rows)]
    for model in shown:
        parts += [f"## {model}", _values(rows, model), *_order(rows, model)]
    parts += ["## Which Recipro-CAM is the published one?", *_nearest(rows, shown)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _preface(rows: Sequence[Result]) -> list[str]:
    whole = [row for row in rows if row.subset == "all"]
    counts = {name: {row.images for row in whole if row.data == name} for name in sorted({row.data for row in whole})}
    data = [f"{name}, {' or '.join(map(str, sorted(found)[::-1]))} pictures" for name, found in counts.items()]
    weights = sorted({f"{row.model}: {row.weights}" for row in rows})
    places = {f"{r.processor}, {r.threads} threads, torch {r.torch}, fastcam {r.fastcam} ({r.commit})" for r in rows}
    days = sorted({row.date for row in rows})
    steps = sorted({row.settings.split("steps=")[-1].split()[0] for row in rows if "steps=" in row.settings})
    each = "one row of pixels a step" if steps == ["rows"] else f"{' or '.join(steps)} steps"
    protocol = (
        "Five methods on one data set. Protocol `paper`, unless a row says otherwise: softmax probability of the "
        "predicted class, images multiplied by the map after normalization, deletion to zero and insertion from the "
        f"blurred image, {each}; ADCC is the harmonic mean of the data set's means. Percentages; time is of one "
        "picture's map in batches of 16, and in bare forwards of the same batches."
    )
    differs = (
        "**What differs from the publication.** The published values are of the 50 000 pictures of ImageNet's "
        "validation set and torchvision's weights; its Recipro-CAM row was made under its authors' own protocol and "
        f"stands beside rows of another paper ({'; '.join(sources())}). Here: {'; '.join(data)}. Weights: "
        f"{'; '.join(weights)}. Other pictures and other weights give other values: compare orders and distances "
        "within a table, not single values across. No published run times are at hand."
    )
    return [protocol, differs, f"Made on {'; '.join(sorted(places))}, {' to '.join(sorted({days[0], days[-1]}))}."]


def _values(rows: Sequence[Result], model: str) -> str:
    theirs = published().get(model, {})
    head = ["method", "protocol", "pictures (curves)", *TITLES.values(), "time", "× forward"]
    body = []
    for method in METHODS:
        mine = [row for row in rows if row.model == model and row.method == method]
        whole = {(row.kernel, row.protocol): row for row in mine if row.subset == "all"}
        for row in whole.values():
            name = NAMES[method] + (f" ({row.kernel})" if row.kernel else "")
            pictures = f"{row.images} ({row.curve_images})"
            cells = [_number(row.scores[column]) for column in COLUMNS]
            share = f"{row.seconds / row.bare:.3g}" if row.bare else ""
            body.append([name, row.protocol, pictures, *cells, duration(row.seconds), share])
        if method in theirs:
            cells = [f"*{theirs[method][column]:.2f}*" for column in COLUMNS]
            body.append([f"*{NAMES[method]}, published*", "", "*50000*", *cells, "", ""])
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *body))


def common(rows: Sequence[Result], model: str, kernel: str) -> Rows:
    """The five methods under one protocol on the pictures that all of them saw, Recipro-CAM in one of its forms."""
    return {row.method: row.scores for row in _one_protocol(rows, model, "common") if row.kernel in {"", kernel}}


def widest(rows: Sequence[Result], model: str, kernel: str) -> Rows:
    """The methods that saw the most pictures, on all of them."""
    found = [row for row in _one_protocol(rows, model, "all") if row.kernel in {"", kernel}]
    most = max((row.images for row in found), default=0)
    return {row.method: row.scores for row in found if row.images == most}


def _one_protocol(rows: Sequence[Result], model: str, subset: str) -> list[Result]:
    return [row for row in rows if row.model == model and row.subset == subset and row.protocol == "paper"]


def _order(rows: Sequence[Result], model: str) -> list[str]:
    """Of all methods on the pictures they share; and, where these are few, of the others on all pictures."""
    found: list[str] = []
    before: set[str] = set()
    for subset, choose in (("all", widest), ("common", common)):
        ours = {kernel: choose(rows, model, kernel) for kernel in ("point", "gaussian")}
        shared = set(ours["point"]) & set(ours["gaussian"])
        if len(shared) < 2 or shared == before:
            continue
        before = shared
        seen = [row for row in _one_protocol(rows, model, subset) if row.method in shared]
        images, curves = max((row.images, row.curve_images) for row in seen)
        found += _compared(ours, model, f"{_pictures(images)} ({curves} for curves)")
    return found


def _compared(ours: Mapping[str, Rows], model: str, pictures: str) -> list[str]:
    tables = published()
    whole = tables.get(model) or mean_of(tables)
    theirs = {method: whole[method] for method in METHODS if method in ours["point"]}
    head = ["column", "published, best first", "here, best first", "holds", "τ", "τ with the Gaussian kernel"]
    body, held = [], []
    for column in COLUMNS:
        if any(math.isnan(row[column]) for row in ours["point"].values()):
            continue
        taus = [agreement(ours[kernel], theirs, column) for kernel in ours]
        holds = order(theirs, column) == order(ours["point"], column) and taus[0] > 1 - 1e-9
        held += [TITLES[column][:-2]] if holds else []
        lists = [_list(rows, column) for rows in (theirs, ours["point"])]
        body.append([TITLES[column], *lists, "yes" if holds else "no", *(f"{tau:.2f}" for tau in taus)])
    by_adcc = agreement(ours["point"], theirs, "adcc")
    missing = [NAMES[method] for method in METHODS if method not in theirs]
    says = (
        f"Order of {len(theirs)} methods on {pictures}, against the published order"
        f"{'' if model in tables else ' by the mean of the published networks, for this one was not among them'}"
        f"{', without ' + ', '.join(missing) if missing else ''}: by ADCC it "
        f"{'holds' if 'ADCC' in held else 'does not hold'} (Kendall's τ {by_adcc:.2f}); it holds by "
        f"{', '.join(held) or 'no column'}."
    )
    return [says, "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *body))]


def distances(rows: Sequence[Result], model: str) -> dict[tuple[str, str], tuple[float, float]]:
    """How far each form of Recipro-CAM is from the published row, percentage points.

    Returns:
        {(kernel, protocol): (of the values, of their distances from the other methods' mean)}, the second NaN
        where another method is missing.
    """
    theirs = published().get(model)
    if theirs is None:
        return {}
    whole = {(r.method, r.kernel, r.protocol): r.scores for r in rows if r.model == model and r.subset == "all"}
    others = [method for method in METHODS if method not in {"reciprocam", "scorecam"}]
    table = {method: whole[method, "", "paper"] for method in others if (method, "", "paper") in whole}
    found = {}
    for kernel, protocol in FORMS:
        one = whole.get(("reciprocam", kernel, protocol))
        if one is None:
            continue
        relative = math.nan
        if len(table) == len(others):
            relative = distance(beside(table, one, others), beside(theirs, theirs["reciprocam"], others))
        found[kernel, protocol] = (distance(one, theirs["reciprocam"]), relative)
    return found


def _nearest(rows: Sequence[Result], models: Sequence[str]) -> list[str]:
    found = {model: distances(rows, model) for model in models}
    found = {model: forms for model, forms in found.items() if forms}
    if not found:
        return ["No network here was published."]
    head = ["kernel", "protocol", *(f"{model}, {kind}" for model in found for kind in ("values", "relative")), "mean"]
    shared = [form for form in FORMS if all(form in forms for forms in found.values())]
    body = []
    means = {form: sum(forms[form][0] for forms in found.values()) / len(found) for form in shared}
    for form in shared:
        cells = [_number(value) for forms in found.values() for value in forms[form]]
        body.append([*form, *cells, f"{means[form]:.2f}"])
    table = "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *body))
    text = (
        "The mean absolute difference of the seven columns from the published Recipro-CAM row, percentage points: of "
        "the values, and of the values less the mean of Grad-CAM, Grad-CAM++ and Smooth Grad-CAM++ in the same table, "
        "where what other pictures and weights do to all rows alike cancels."
    )
    if not means:
        return [text, "Not all forms are measured yet."]
    best = min(means, key=means.__getitem__)
    apart = {form: sum(forms[form][1] for forms in found.values()) / len(found) for form in shared}
    relative = min(apart, key=lambda form: (math.isnan(apart[form]), apart[form]))
    says = f"Nearest by values: the {best[0]} kernel under protocol `{best[1]}` ({means[best]:.2f} points)"
    if not math.isnan(apart[relative]):
        says += (
            f"; relative to the other methods: the {relative[0]} kernel under `{relative[1]}` ({apart[relative]:.2f})"
        )
    return [
        text,
        table,
        says + ". Pictures and weights differ from the publication's, so this names a likeness, no proof.",
    ]


def summary(rows: Sequence[Result], models: Sequence[str]) -> str:
    """The report for a terminal: it is Markdown already."""
    return markdown([row for row in rows if row.model in models], models)


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


def _pictures(count: int) -> str:
    return f"{count} picture{'' if count == 1 else 's'}"


def _list(rows: Rows, column: str) -> str:
    """Methods by a column, the best first, with = between equal ones."""
    methods = order(rows, column)
    text = NAMES[methods[0]]
    for last, method in pairwise(methods):
        text += f" {'=' if rows[last][column] == rows[method][column] else '>'} {NAMES[method]}"
    return text
