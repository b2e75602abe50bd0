"""The search behind counterfactual explanations: again and again the swap that leaves a class most probable."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .model.forward import Forward
from .model.outputs import widen
from .model.tally import count
from .scoring import DEFAULT_MEMORY, TAIL_ROW, Budget, Chunks, score_rows
from .streams import Writer

PAIR_BYTES = 4 * 8  # of one pair of cells in closed form: a few float64 values
NEAR_ZERO = 1e-290  # below, a denominator has lost digits to underflow


@dataclass
class Search:
    """The greedy search of all pairs; a swap changes the activations or, behind pooling, what they pool to.

    Attributes:
        here: forward of the images.
        there: forward of the distractors, at the same layer.
        classes: (B,) to reach.
        budget: chunk size and memory of forwards of the tail.
    """

    here: Forward
    there: Forward
    classes: Tensor
    budget: Budget

    def __post_init__(self) -> None:
        self.a = self.here.captured.maps.detach().clone(memory_format=torch.contiguous_format)
        self.other = self.there.captured.maps.detach()
        if self.a.shape != self.other.shape:
            raise ValueError(
                f"layer {self.here.captured.name!r} gives {tuple(self.a.shape)} for the images and "
                f"{tuple(self.other.shape)} for the distractors; choose another layer"
            )
        self.cells, self.tail = self.a.shape[2] * self.a.shape[3], self.here.pooled
        self.linear = None if self.tail is None else self.tail.linear
        if self.tail is not None:  # (B, cells, D) in float64, so that swaps that nearly tie are told apart
            features = [self.tail.features(x).flatten(2).mT.double() for x in (self.a, self.other)]
            if self.linear is not None:
                features = [f @ self.linear[0].double().T for f in features]
            self.mine, self.theirs = (f / self.cells for f in features)
            self.sums = widen(self.here.logits).double().clone() if self.linear is not None else self.mine.sum(1)

    def run(self, swaps: int | None, reuse: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Swap cell after cell; without a number of swaps, a pair is left alone once its class has changed.

        Args:
            swaps: of each pair, or None.
            reuse: whether a cell there may be used again.

        Returns:
            Cells (here, there) of each swap (B, S, 2), -1 past a pair's last; probabilities (B, S + 1); and after how
            many swaps the class changed (B,), or -1.

        Raises:
            ValueError: more swaps than cells.
        """
        batch, logits = len(self.a), widen(self.here.logits)
        if swaps is not None and swaps > self.cells:
            raise ValueError(f"swaps={swaps} is more than the {self.cells} cells of layer {self.here.captured.name!r}")
        free = logits.new_ones((2, batch, self.cells), dtype=torch.bool)
        flips, active = torch.full_like(self.classes, -1), torch.arange(batch, device=logits.device)
        probabilities, taken = [self._probability(logits, active)], []
        for step in range(1, (swaps or self.cells) + 1):
            best = self._best(active, free)
            i, j = best // self.cells, best % self.cells
            logits = self._swap(active, i, j)
            free[0, active, i], free[1, active, j] = False, reuse
            taken.append(torch.full((batch, 2), -1, device=best.device).index_copy(0, active, torch.stack([i, j], 1)))
            probabilities.append(probabilities[-1].index_copy(0, active, self._probability(logits, active)))
            first = (logits.argmax(1) == self.classes[active]) & (flips[active] < 0)
            flips[active[first]] = step
            active = active if swaps else active[~first]
            if not len(active):
                break
        return torch.stack(taken, 1), torch.stack(probabilities, 1), flips

    def _probability(self, logits: Tensor, pairs: Tensor) -> Tensor:
        """Of the class to reach. (n,) float32 at least"""
        return logits.softmax(1).gather(1, self.classes[pairs, None])[:, 0].to(widen(self.here.logits).dtype)

    def _best(self, pairs: Tensor, free: Tensor) -> Tensor:
        """The swap i * cells + j of free cells with the highest probability, of each pair. (n,)"""
        if self.linear is None:
            return torch.stack([self._tried(int(b), *free[:, b]) for b in pairs])
        memory = max(1, (self.budget.max_memory or DEFAULT_MEMORY) // (PAIR_BYTES * self.cells))
        rows = min(memory, self.cells)
        together = max(1, memory // rows)
        return torch.cat([self._closed(some, free[:, some], rows) for some in pairs.split(together)])

    def _closed(self, pairs: Tensor, free: Tensor, rows: int) -> Tensor:
        """Best of the logits y + W (psi'_j - psi_i) / Z; exp(u + v) = exp(u) exp(v) makes their softmax a product."""
        c = self.classes[pairs, None, None]
        theirs = self.theirs[pairs]
        top = theirs.amax(2, keepdim=True)
        after, own = (theirs - top).exp().mT, theirs.gather(2, c.expand(-1, self.cells, 1))
        best = theirs.new_full((len(pairs),), -torch.inf)
        at = torch.zeros_like(pairs)
        for start in range(0, self.cells, rows):
            mine = self.sums[pairs, None] - self.mine[pairs, start : start + rows]
            peak = mine.amax(2, keepdim=True)
            total = (mine - peak).exp() @ after
            logs = total.log() + peak + top.mT
            for b, i, j in (total < NEAR_ZERO).nonzero().tolist():
                logs[b, i, j] = (mine[b, i] + theirs[b, j]).logsumexp(0)
            values = mine.gather(2, c.expand(-1, mine.shape[1], 1)) + own.mT - logs
            values.masked_fill_(~(free[0, :, start : start + rows, None] & free[1, :, None]), -torch.inf)
            highest, where = values.flatten(1).max(1)
            better = highest > best
            best, at = torch.where(better, highest, best), torch.where(better, where + start * self.cells, at)
        return at

    def _tried(self, b: int, here: Tensor, there: Tensor) -> Tensor:
        """The best swap of free cells of one pair, each of them run through what follows the layer."""
        i, j = (one.nonzero()[:, 0] for one in (here, there))
        tail, network, c = self.tail, self.here.network, self.classes[b]

        def pooled(start: int, stop: int, out: Tensor) -> None:
            row = torch.arange(start, stop, device=i.device)
            out.copy_(self.sums[b] - self.mine[b, i[row // len(j)]] + self.theirs[b, j[row % len(j)]])

        def whole(start: int, stop: int, out: Tensor) -> None:
            row = torch.arange(start, stop, device=i.device)
            out.copy_(self.a[b])
            new = self.other[b].flatten(1)[:, j[row % len(j)]].T
            out.flatten(2)[torch.arange(len(out), device=i.device), :, i[row // len(j)]] = new

        def score(logits: Tensor, start: int, stop: int) -> Tensor:
            return widen(logits).log_softmax(1)[:, c, None]

        like = self.a[b] if tail is None else self.sums[b].float()
        kind = "swapped cells" if tail is None else "swapped sums"
        key = (kind, self.here.captured.name, tuple(like.shape), like.dtype, like.device)
        chunks = Chunks(
            len(i) * len(j),
            TAIL_ROW * like.numel() * like.element_size(),
            key,
            network.facts.tunings,
            self.budget.batch_size,
            self.budget.max_memory,
            like.device,
        )
        writer = Writer(tuple(like.shape), like.dtype, like.device)
        fill = whole if tail is None else pooled
        values = score_rows(chunks, writer, fill, lambda rows, start, stop: self._logits(rows, b), score)
        at = values[0].argmax()
        return i[at // len(j)] * self.cells + j[at % len(j)]

    def _logits(self, rows: Tensor, b: int) -> Tensor:
        """Of activations, or behind pooling of what they pool to."""
        count(tails=len(rows))
        return self.here.tail(rows, b) if self.tail is None else self.tail.head(rows)

    def _swap(self, pairs: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """Put the cells in; the logits then. (n, classes)"""
        if self.tail is not None:
            self.sums[pairs] += self.theirs[pairs, j] - self.mine[pairs, i]
            return self.sums[pairs] if self.linear is not None else self._logits(self.sums[pairs].float(), 0)
        self.a.flatten(2)[pairs, :, i] = self.other.flatten(2)[pairs, :, j]
        return torch.cat([widen(self._logits(self.a[b : b + 1], b)) for b in pairs.tolist()])
