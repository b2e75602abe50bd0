"""Many metrics of many methods in one pass: what they share is computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastcam.cam import CAM

from .batch import Batch, black
from .build import build
from .evidence import Observed, center
from .ledger import Ledger
from .protocols import Protocol, require_pictures
from .protocols import find as find_protocol
from .registry import find as find_metrics
from .sources import Source, sources_of, together

Maps = Callable[..., Tensor]


class Evaluation(nn.Module):
    """Evaluates methods on a data set, batch by batch.

    One forward of the images serves all methods at the same layer; one of the images under their maps serves
    Average Drop, Increase in Confidence and Coherency; insertion and deletion share ranks and ends. The states are
    `torchmetrics.Metric`s, which add up over processes by themselves.

    Args:
        cams: a method, or several by name: `CAM`s, or callables (images, target=(B,)) -> maps (B, H, W) in [0, 1].
        metrics: "all", names or patterns; "all" leaves out what the data have no boxes or masks for.
        protocol: its name, or a `Protocol`: what papers and libraries disagree on.
        options: fields of the protocol to change.
        score: (images) -> logits (B, classes), where no method is a `CAM`, whose own model scores.
        seed: of all that is random; each image has its own source of random numbers.
        mean: of the images' normalization, one a channel; needed where black is.
        std: likewise.
        num_classes: of the data set, for `pointing_game`.

    Raises:
        ValueError: an unknown metric, protocol or value; `CAM`s of different models, or of one beside `score`.
        TypeError: an option that protocols do not have, or cams that are none.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from fastcam import CAM
        >>> from fastcam.metrics import Evaluation
        >>> pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), pool, nn.Linear(8, 5))
        >>> evaluation = Evaluation(CAM(net, "gradcam"), ["average_drop", "complexity"])
        >>> _ = evaluation.update(torch.rand(4, 3, 32, 32))
        >>> sorted(evaluation.compute()["gradcam"])
        ['average_drop', 'complexity']
    """

    def __init__(
        self,
        cams: CAM | Maps | Mapping[str, CAM | Maps],
        metrics: str | Iterable[str] = "all",
        *,
        protocol: str | Protocol = "paper",
        options: Mapping[str, Any] | None = None,
        score: Callable[[Tensor], Tensor] | None = None,
        seed: int = 0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        self.protocol = find_protocol(protocol).with_options(dict(options or {}))
        self.infos = find_metrics(metrics)
        self.sources: dict[str, Source] = sources_of(cams, score)
        self.scorer = next(iter(self.sources.values())).scorer
        self.seed = seed
        self.black = black(mean, std)
        if self.black is None and "black" in (self.protocol.insertion_start, self.protocol.deletion_end):
            raise ValueError(f"protocol {self.protocol.name!r} starts from black: give mean= and std= of the images")
        if self.black is None and self.protocol.masking == "before":
            raise ValueError(
                f"protocol {self.protocol.name!r} masks before normalization: give mean= and std= of the images"
            )
        local = [info for info in self.infos if info.localizes]
        self.rows = dict.fromkeys(self.sources, self.infos) | ({"center": local} if local else {})
        self.metrics = nn.ModuleDict(
            {
                _key(name): nn.ModuleDict({info.name: build(info, self.protocol, num_classes) for info in infos})
                for name, infos in self.rows.items()
            }
        )
        self.ledger = Ledger(
            [*(info.name for info in self.infos), *(f"method {name}" for name in self.sources), "total"]
        )
        self.logits: Tensor | None = None  # of the last batch, for who reports predictions
        self.seen = 0
        for source in self.sources.values():
            source.check(self.infos, self.protocol)

    def update(
        self,
        images: Tensor,
        target: Tensor | Sequence[int] | None = None,
        boxes: Sequence[Tensor] | Tensor | None = None,
        masks: Tensor | None = None,
        ids: Sequence[int] | None = None,
        *,
        ignored: Tensor | None = None,
        corners: Sequence[Tensor] | Tensor | None = None,
    ) -> dict[str, dict[str, Tensor]]:
        """Add a batch.

        Args:
            images: (B, C, H, W) as the model takes them; or signals (B, C, L) or volumes (B, C, D, H, W), for metrics
                that know no rows and columns.
            target: (B,) labels.
            boxes: B tensors (n, 4) x0 y0 x1 y1 in pixels of the images, far edges exclusive; or (B, N, 4).
            masks: (B, H, W) bool, the pixels of the object.
            ids: an int an image that seeds what is random for it; by default their order.
            ignored: (B, H, W) bool, pixels that are neither object nor background.
            corners: for a protocol with plus_one, the boxes' first and last pixels as `fastcam.datasets.fit_corners`
                gives them; otherwise those of the boxes, as pictures have that need no resizing.

        Returns:
            Each method's and metric's values (B,) on the CPU, NaN where an image has none; curves (B, n + 1) too.

        Raises:
            ValueError: shapes that do not fit each other.
        """
        shared: dict[str, Any] = {"scorer": self.scorer, "seed": self.seed, "black": self.black}
        ids = range(self.seen, self.seen + len(images)) if ids is None else ids
        batch = Batch.of(images, target, boxes, masks, ids, ignored, corners, protocol=self.protocol, **shared)
        for info in self.infos:
            if batch.images.dim() != 4:
                require_pictures(info.name, self.protocol)
            if "target" in info.needs and batch.target is None:
                raise ValueError(f"{info.name} needs labels: give target=, or leave the metric out")
            if not info.localizes and batch.target is None and self.protocol.classes == "target":
                raise ValueError(
                    f"protocol {self.protocol.name!r} explains the label for {info.name}: give target=, or "
                    "options={'classes': 'predicted'}"
                )
        with torch.no_grad():
            found, cost = self._observe(batch)
            values = {name: self._measure(name, observed) for name, observed in found.items()}
        self._book(found, cost, len(images))
        self.seen += len(images)
        return values

    def _observe(self, batch: Batch) -> tuple[dict[str, tuple[Observed, Observed]], Any]:
        """Each method's two views: of the class that faithfulness explains, and of the label; often one."""
        faithful = any(not info.localizes for info in self.infos)
        local = batch.target is not None and any(info.localizes for info in self.infos)
        which = [*(["predicted"] if faithful or not local else []), *(["target"] if local else [])]
        if batch.target is not None and self.protocol.classes == "target":
            which = ["target"]
        found, cost = together(list(self.sources.values()), batch, which)
        wanted = frozenset(part for info in self.infos for part in info.evidence)
        views: dict[str, tuple[Observed, Observed]] = {}
        for source, explanations in zip(self.sources.values(), found, strict=True):
            seen = [
                Observed(batch, one.maps, one.small, one.logits, one.classes, source, wanted) for one in explanations
            ]
            views[source.name] = (seen[0], seen[-1])
        self.logits = next(iter(views.values()))[0].logits
        for name, (view, _) in views.items():
            view.rivals = [other for rival, (other, _) in views.items() if rival != name]
        if "other_drops" in wanted:  # each method's own cost, before another one asks for it
            for view, _ in views.values():
                view.get("drop")
        if "center" in self.rows and batch.images.dim() == 4:
            first = next(iter(views.values()))[1]
            baseline = center(batch, first.explained)
            baseline.logits = first.logits
            views["center"] = (baseline, baseline)
        return views, (cost, [explanations[0].cost for explanations in found])

    def _measure(self, name: str, views: tuple[Observed, Observed]) -> dict[str, Tensor]:
        metrics: Any = self.metrics[_key(name)]
        values: dict[str, Tensor] = {}
        for info in self.rows[name]:
            view = views[1] if info.localizes else views[0]
            if info.localizes and view.batch.lacks(info.needs):
                values[info.name] = torch.full((len(view.maps),), torch.nan, dtype=torch.float64)
                continue
            parts = [view.get(part) for part in info.evidence]
            metrics[info.name].update(*(p.cpu() if isinstance(p, Tensor) else p for p in parts))
            values[info.name] = metrics[info.name].last
            for part, value in zip(info.evidence, parts, strict=True):
                if part.endswith("_curve"):
                    values[part] = value.double().cpu()
        return values

    def _book(self, found: dict[str, tuple[Observed, Observed]], cost: Any, images: int) -> None:
        total, own = cost
        for name, tally in zip(self.sources, own, strict=True):
            self.ledger.update(f"method {name}", tally, images)
            views = found[name]
            for info in self.infos:
                view = views[1] if info.localizes else views[0]
                self.ledger.update(info.name, view.cost(info.evidence), images)
            for view in {id(view): view for view in views}.values():
                for tally_of in view.spent.values():
                    self.ledger.update("total", tally_of, 0)
        self.ledger.update("total", total, images)

    def compute(self) -> dict[str, dict[str, Any]]:
        """The data set's values: numbers, and lists for curves; over all processes where there are several.

        Returns:
            {method: {metric: value}}, NaN where no image had one; "center" is the baseline of the localization
            metrics.
        """
        table: dict[str, dict[str, Any]] = {}
        for name, infos in self.rows.items():
            metrics: Any = self.metrics[_key(name)]
            row = table.setdefault(name, {})
            for info in infos:
                metric = metrics[info.name]
                if not metric.update_called:
                    metric._update_count = 1  # nothing seen is NaN here, and no warning
                value = metric.compute()
                row[info.name] = float(value)
                row |= {key: part.tolist() for key, part in getattr(metric, "details", {}).items()}
        return table

    def counts(self) -> dict[str, dict[str, int]]:
        """How many images of this process had a value, {method: {metric: images}}; the others left its mean."""
        rows = self.rows.items()
        return {name: {info.name: self._of(name)[info.name].images() for info in infos} for name, infos in rows}

    def costs(self) -> dict[str, dict[str, float]]:
        """What an image cost: forwards, tails, backwards and seconds of each metric, each method's map, and in all.

        A metric's figure is what it takes alone; "total" counts what is shared once.
        """
        return self.ledger.table()

    def columns(self) -> list[str]:
        """Names of an image's values, in order."""
        curves = [part for info in self.infos for part in info.evidence if part.endswith("_curve")]
        return [*(info.name for info in self.infos), *curves]

    def settings(self) -> dict[str, Any]:
        """Everything that decides the numbers, as plain values."""
        return {
            "protocol": self.protocol.settings(),
            "metrics": [info.name for info in self.infos],
            "methods": {name: source.settings() for name, source in self.sources.items()},
            "seed": self.seed,
            "black": None if self.black is None else self.black.flatten().tolist(),
        }

    def states(self) -> dict[str, Tensor]:
        """All sums by name, on the CPU; `merge` adds them to another evaluation's."""
        found = {
            f"{name}/{info.name}/{state}": getattr(metrics[info.name], state)
            for name, infos in self.rows.items()
            for metrics in [self._of(name)]
            for info in infos
            for state in metrics[info.name]._defaults
        }
        found |= {f"ledger/{state}": getattr(self.ledger, state) for state in self.ledger._defaults}
        return {key: value.detach().cpu().clone() for key, value in found.items()}

    def merge(self, states: Mapping[str, Tensor]) -> None:
        """Add the sums of another evaluation with the same settings.

        Raises:
            ValueError: they are of other metrics or settings.
        """
        own = self.states()
        if set(own) != set(states) or any(own[key].shape != states[key].shape for key in own):
            odd = sorted(set(own) ^ set(states))[:3] or "their shapes"
            raise ValueError(f"these states are of another evaluation: {odd} differ; use the same methods and metrics")
        for key, value in states.items():
            name, metric, *rest = key.split("/")
            holder = self.ledger if name == "ledger" else self._of(name)[metric]
            state = metric if name == "ledger" else rest[0]
            setattr(holder, state, getattr(holder, state) + value.to(getattr(holder, state)))
            holder._update_count = max(1, holder._update_count)
            holder._computed = None

    def _of(self, name: str) -> Any:
        return self.metrics[_key(name)]

    def reset(self) -> None:
        """Start again."""
        for name, infos in self.rows.items():
            for info in infos:
                self._of(name)[info.name].reset()
        self.ledger.reset()
        self.seen = 0


def _key(name: str) -> str:
    return "of " + name.replace(".", "·")  # torch's module names have no dots
