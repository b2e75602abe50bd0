"""Load and preprocess pictures in threads, a bounded number ahead, so that loading overlaps computing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

from torch import Tensor

from fastcam.datasets.sample import Problem, Sample
from fastcam.image import Preprocess, preprocess

Loaded = tuple[Sample, Tensor | Problem]


def load(sample: Sample, settings: Preprocess) -> Loaded:
    """A sample, with the size of its picture, and the model's input; or what was wrong with the picture.

    Args:
        sample: whose picture is read.
        settings: what the model wants.

    Returns:
        The sample and (3, h, w) float32, or the sample and a Problem.
    """
    try:
        picture = sample.read()
        tensor = preprocess(picture, settings)[0]
    except ValueError as error:
        return sample, Problem(sample.source.name, str(error))
    return replace(sample, size=(picture.shape[0], picture.shape[1])), tensor


def prefetch(samples: Iterable[Sample], settings: Preprocess, workers: int = 1, ahead: int = 16) -> Iterator[Loaded]:
    """Loads samples in their order while the caller computes.

    Pillow decodes and resizes without the interpreter's lock, so threads suffice. Besides the input given, at
    most `ahead` inputs are held, and `workers` pictures at their full size.

    Args:
        samples: asked for one by one, no more than `ahead` early.
        settings: what the model wants.
        workers: threads; 0 loads in the caller's own, each when it is asked for.
        ahead: how many samples are loaded, or being loaded, before they are asked for.

    Yields:
        A sample, whose `size` is that of its picture, with (3, h, w) float32 or with the Problem of its picture.

    Raises:
        ValueError: workers below 0, or ahead below 1.
    """
    if workers < 0 or ahead < 1:
        raise ValueError(f"workers={workers}, ahead={ahead}; expected 0 or more workers and at least 1 ahead")
    return _in_threads(iter(samples), settings, workers, ahead) if workers else (load(s, settings) for s in samples)


def _in_threads(samples: Iterator[Sample], settings: Preprocess, workers: int, ahead: int) -> Iterator[Loaded]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="fastcam-load")
    waiting: deque[Future[Loaded]] = deque()
    try:
        waiting.extend(pool.submit(load, sample, settings) for sample in islice(samples, ahead))
        while waiting:
            loaded = waiting.popleft().result()
            waiting.extend(pool.submit(load, sample, settings) for sample in islice(samples, 1))
            yield loaded
            del loaded
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
