"""Chunks: every row once, sizes learned from the clock, memory kept."""

from __future__ import annotations

import itertools
import warnings

import pytest
import torch

from fastcam import scoring
from fastcam.scoring import SIZES, Chunks, Tuning, score_rows
from fastcam.streams import Writer


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


def scores_of(rows, fill, run, **given):
    """One score a row: the first value of what `run` gives."""
    device = torch.device("cpu")
    chunks = Chunks(rows, 1, "key", given.pop("known", {}), device=device, **given)
    writer = Writer((3, 2, 2), torch.float32, device, channels_last=True)
    return score_rows(chunks, writer, fill, lambda rows, start, stop: run(rows), lambda out, *_: out[:, :2, 0, 0])


def numbered(start, stop, rows):
    rows[:] = torch.arange(start, stop)[:, None, None, None]


def test_rows_are_scored_from_one_buffer():
    seen = set()

    def fill(start, stop, rows):
        seen.add(rows.data_ptr())
        assert rows.is_contiguous(memory_format=torch.channels_last)
        numbered(start, stop, rows)

    scores = scores_of(9, fill, torch.clone, batch_size=4)
    assert len(seen) == 1
    assert torch.equal(scores, torch.arange(9.0).expand(2, 9))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
@pytest.mark.parametrize("batch_size", ["auto", 16])
def test_a_chunk_too_large_goes_in_halves_and_is_not_tried_again(error, batch_size):
    tried: list[int] = []

    def run(rows):
        tried.append(len(rows))
        if len(rows) > 3:
            raise error
        return rows.clone()

    known: dict = {}
    given = {"known": known, "batch_size": batch_size, "max_memory": 16}
    with pytest.warns(UserWarning, match="masked rows did not fit in the memory of cpu; going on with") as record:
        scores = scores_of(60, numbered, run, **given)
    assert torch.equal(scores, torch.arange(60.0).expand(2, 60))
    assert len(record) == len([n for n in tried if n > 3])
    tried.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(scores_of(60, numbered, run, **given), scores)
    assert max(tried) <= 3


def test_other_errors_and_a_single_row_too_large_are_raised():
    for error in (RuntimeError("shapes"), torch.OutOfMemoryError("CUDA out of memory")):

        def run(rows, error=error):
            raise error

        with pytest.raises(RuntimeError, match=str(error)):
            scores_of(5, numbered, run, batch_size=1)


def test_rows_written_again_after_a_failure_are_the_same(monkeypatch):
    """The noise of SS-CAM is drawn mask by mask; a chunk that is split must not draw again."""
    from fastcam import CAM
    from tests.small import images, network

    net, x, failed = network(), images(2), []
    expected = CAM(net, "sscam", samples=3, batch_size=7)(x)
    forward = type(net).forward

    def choosy(self, rows):
        if len(rows) == 7 and not failed:
            failed.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, rows)

    monkeypatch.setattr(type(net), "forward", choosy)
    fresh = network()
    with pytest.warns(UserWarning, match="going on with 3"):
        maps = CAM(fresh, "sscam", samples=3, batch_size=7)(x)
    assert failed
    assert torch.allclose(maps, expected, atol=1e-6)


def test_each_image_is_scored_by_its_own_callable_whatever_the_output_is():
    """No chunk of an output that is no tensor may hold rows of two images."""
    from fastcam import CAM
    from tests.small import images, network

    class Detections(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, x):  # one entry an image, as detectors do
            return list(self.net(x))

    net, x = Detections().eval(), images(2)
    own = [lambda y, c=c: torch.stack([one[c] for one in y]) for c in (1, 4)]
    both = CAM(net, "scorecam", "net.0", output=lambda y: y, batch_size=16)(x, target=own)
    expected = CAM(net.net, "scorecam", "0", batch_size=16)(x, target=torch.tensor([1, 4]))
    assert torch.allclose(both, expected, atol=1e-5)
