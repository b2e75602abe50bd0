"""What metrics ask about one method on one batch; each part is computed once, when a metric first wants it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fastcam.scorer import Tally, counting

from .batch import Batch
from .faithfulness import average_drop
from .localization import center_maps
from .robustness import cascading_randomization
from .rows import PixelRows, RoadRows, score_stream, shares, starts
from .sources import Source


@dataclass
class Observed:
    """One method on one batch, for one class an image.

    Attributes:
        batch: what is shared.
        maps: (B, H, W) in [0, 1]; (B, L) of signals, (B, D, H, W) of volumes.
        small: (B, h, w) in [0, 1], at the layer's size, or alike.
        logits: (B, classes) of the images.
        explained: (B,) classes.
        source: the method, which can explain other images; None for the baseline.
        wanted: names of the parts that some metric asks for.
        rivals: the other methods on this batch.
    """

    batch: Batch
    maps: Tensor
    small: Tensor | None
    logits: Tensor | None
    explained: Tensor
    source: Source | None = None
    wanted: frozenset[str] = frozenset()
    rivals: list[Observed] = field(default_factory=list)
    spent: dict[str, Tally] = field(default_factory=dict)
    asked: dict[str, set[str]] = field(default_factory=dict)
    _parts: dict[str, Any] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)

    def get(self, name: str) -> Any:
        """A part by name, computed at the first call; what that took is kept in `spent`, without its own parts."""
        if self._open:
            self.asked.setdefault(self._open[-1], set()).add(name)
        if name not in self._parts:
            self._open.append(name)
            with counting() as whole:
                self._parts[name] = getattr(self, f"_{name}")()
            self._open.pop()
            own = self.spent.setdefault(name, Tally())
            own.add(whole)
            if self._open:
                above = self.spent.setdefault(self._open[-1], Tally())
                above.add(Tally(-whole.forwards, -whole.tails, -whole.backwards, -whole.seconds))
        return self._parts[name]

    def cost(self, names: tuple[str, ...]) -> Tally:
        """What these parts took, and what they were made from; each once."""
        total, todo, done = Tally(), list(names), set()
        while todo:
            name = todo.pop()
            if name not in done:
                done.add(name)
                total.add(self.spent.get(name, Tally()))
                todo += self.asked.get(name, ())
        return total

    # The class and the data.

    def _maps(self) -> Tensor:
        return self.maps

    def _logits(self) -> Tensor:
        assert self.logits is not None
        return self.logits

    def _explained(self) -> Tensor:
        return self.explained

    def _target(self) -> Tensor | None:
        return self.batch.target

    def _boxes(self) -> Tensor | None:
        return self.batch.boxes

    def _corners(self) -> Tensor | None:
        return self.batch.corners

    def _ignored(self) -> Tensor | None:
        return self.batch.ignored

    def _masks(self) -> Tensor | None:
        return self.batch.masks

    def _grid_maps(self) -> Tensor:
        if self.batch.protocol.grid == "image":
            return self.maps
        assert self.small is not None
        return self.small

    # Scores of the images, and of the images under their maps.

    def score(self, logits: Tensor, kind: str | None = None) -> Tensor:
        """The scores (B,) of the explained classes."""
        logits = logits.float()
        if (kind or self.batch.protocol.score) == "probability":
            logits = logits.softmax(1)
        return logits.gather(1, self.explained[:, None])[:, 0]

    def _before(self) -> Tensor:
        return self.score(self.get("logits"))

    def _probability_before(self) -> Tensor:
        return self.score(self.get("logits"), "probability")

    def _under(self, maps: Tensor) -> Tensor:
        """The images under maps (B, H, W): x m, or black + (x - black) m."""
        batch, m = self.batch, maps[:, None].to(self.batch.images.dtype)
        black = None if batch.black is None else batch.black.view(-1, *[1] * (m.dim() - 2))
        if batch.protocol.masking == "after":
            return batch.images * m
        assert black is not None
        return black + (batch.images - black) * m

    def _seen_masked(self) -> tuple[Tensor, Tensor | None]:
        """Logits, and maps where a metric wants them, of the images under their maps: one forward for both."""
        masked = self._under(self.maps)
        if self.source is None or "masked_maps" not in self.wanted:
            return self.batch.scorer(masked), None
        found = self.source.explain(masked, self.explained, self.batch.protocol)
        return found.logits, found.small if self.batch.protocol.grid == "layer" else found.maps

    def _after(self) -> Tensor:
        return self.score(self.get("seen_masked")[0])

    def _probability_after(self) -> Tensor:
        return self.score(self.get("seen_masked")[0], "probability")

    def _masked_maps(self) -> Tensor:
        return self.get("seen_masked")[1]

    def _after_inverse(self) -> Tensor:
        return self.score(self.batch.scorer(self._under(1 - self.maps)))

    def _drop(self) -> Tensor:
        return average_drop(self.get("before"), self.get("after"), self.batch.protocol.drop)

    def _other_drops(self) -> Tensor:
        if not self.rivals:
            return torch.full((1, len(self.maps)), torch.nan, device=self.maps.device)
        return torch.stack([rival.get("drop") for rival in self.rivals])

    # Pixels that go and come.

    def _curves(self) -> tuple[Tensor | None, Tensor | None]:
        """Deletion and insertion in one stream of chunks; what they share is scored once."""
        wanted = ("deletion_curve" in self.wanted, "insertion_curve" in self.wanted)
        maps, protocol = self.maps, self.batch.protocol
        if protocol.patch is not None and protocol.grid == "layer" and self.small is not None:
            maps = self.small
        rows = PixelRows(self.batch.images, maps, protocol, starts(self.batch), *wanted)
        scores = score_stream(self.batch, rows, self.explained)
        return rows.curves(scores, self.get("before"), self._score_of)

    def _score_of(self, image: Tensor, kind: str) -> Tensor:
        """Scores (B,) of the explained classes for one image (1, C, H, W) that is the same for all."""
        key = (kind, tuple(self.batch.images.shape[1:]), image.dtype)
        if key not in self.batch.known:
            self.batch.known[key] = self.batch.scorer(image.reshape(1, *self.batch.images.shape[1:]))
        return self.score(self.batch.known[key].expand(len(self.explained), -1))

    def _curve_shares(self) -> Tensor | None:
        return shares(self.batch)

    def _deletion_curve(self) -> Tensor | None:
        return self.get("curves")[0]

    def _insertion_curve(self) -> Tensor | None:
        return self.get("curves")[1]

    def _road(self) -> Tensor:
        return score_stream(self.batch, rows := RoadRows(self.batch, self.maps), self.explained).view(rows.shape)

    def _road_most(self) -> Tensor:
        return self.get("road")[:, 0]

    def _road_least(self) -> Tensor:
        return self.get("road")[:, 1]

    # Maps of changed images and of a changed model.

    def _noisy_maps(self) -> Tensor:
        assert self.source is not None
        protocol, images = self.batch.protocol, self.batch.images
        radius, found = protocol.sensitivity_radius, []
        generators = self.batch.generators(1)
        for _ in range(protocol.sensitivity_samples):
            noise = torch.stack([torch.rand(images.shape[1:], generator=one) for one in generators])
            noisy = images + (2 * noise - 1).to(images) * radius
            found.append(self.source.explain(noisy, self.explained, protocol).maps)
        return torch.stack(found)

    def _randomized(self) -> Tensor:
        assert self.source is not None
        images, protocol = self.batch.images, self.batch.protocol
        return cascading_randomization(
            self.source.cam,
            images,
            self.explained,
            self.maps,
            protocol.randomization_steps,
            protocol.similarity,
            self.batch.seed,
            lambda cam: Source("", cam, cam.scorer).explain(images, self.explained, protocol).maps,
        )


def center(batch: Batch, explained: Tensor) -> Observed:
    """The baseline that has seen nothing."""
    images = batch.images
    size = (int(images.shape[-2]), int(images.shape[-1]))
    return Observed(batch, center_maps(len(images), size, images.device).contiguous(), None, None, explained)
