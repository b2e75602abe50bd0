"""Chunks: every row once, sizes learned from the clock, memory kept."""

from __future__ import annotations

import itertools

import pytest
import torch

from fastcam import scoring
from fastcam.scoring import SIZES, Buffer, Chunks, Tuning, score_rows


def play(monkeypatch, per_row, rows, **given):
    """The slices of a run in which a chunk of n rows takes n * per_row(n) seconds."""
    now = itertools.count()
    clock, found = [0.0], []
    monkeypatch.setattr(scoring.time, "perf_counter", lambda: clock[0] + next(now) * 1e-12)
    for start, stop in Chunks(rows, 1, "key", given.pop("known"), **given):
        found.append((start, stop))
        clock[0] += (stop - start) * per_row(stop - start)
    return found


@pytest.mark.parametrize("rows", [1, 2, 7, 100, 1000])
@pytest.mark.parametrize("best", [1, 4, 32])
def test_rows_are_covered_once_and_the_best_size_is_found(monkeypatch, rows, best):
    known: dict = {}
    for _ in range(6):
        slices = play(monkeypatch, lambda n: 1 + abs(n - best) / 50, rows, known=known, max_memory=64)
        assert [i for start, stop in slices for i in range(start, stop)] == list(range(rows))
    (tuning,) = known.values()
    if rows >= 100:
        assert tuning.untried == []
        assert tuning.size == best
        sizes = {stop - start for start, stop in slices}
        assert max(sizes) - min(sizes) <= max(1, best)  # even: no short chunk at the end


def test_larger_sizes_are_not_tried_once_hopeless(monkeypatch):
    known: dict = {}
    slices = play(monkeypatch, float, 200, known=known, max_memory=64)
    assert max(stop - start for start, stop in slices) == 2
    assert known["key", 64].size == 1


def test_one_slow_moment_decides_nothing():
    tuning = Tuning(list(SIZES[:3]))
    for size, seconds in [(1, 9), (1, 1), (1, 1), (2, 9), (2, 20), (2, 1), (4, 9), (4, 2.4), (4, 2.6)]:
        tuning.learn(size, seconds)
    assert tuning.best == {1: 1, 2: 0.5, 4: 0.6}
    assert tuning.size == 2


@pytest.mark.parametrize(
    ("given", "largest"),
    [
        ({"batch_size": 8}, 8),
        ({"batch_size": 8, "max_memory": 3}, 3),
        ({"max_memory": 1}, 1),
        ({"batch_size": 100}, 50),
    ],
)
def test_memory_bounds_a_chunk(given, largest):
    known: dict = {}
    assert max(stop - start for start, stop in Chunks(50, 1, "key", known, **given)) == largest


def test_rows_are_scored_from_one_buffer():
    buffer = Buffer((3, 2, 2), torch.float32, torch.device("cpu"), channels_last=True)
    seen = set()

    def fill(start, stop, rows):
        seen.add(rows.data_ptr())
        assert rows.is_contiguous(memory_format=torch.channels_last)
        rows[:] = torch.arange(start, stop)[:, None, None, None]

    scores = score_rows(
        Chunks(9, 1, "key", {}, batch_size=4), buffer, fill, lambda rows: rows.clone(), lambda out, *_: out[:, :2, 0, 0]
    )
    assert len(seen) == 1
    assert torch.equal(scores, torch.arange(9.0).expand(2, 9))
