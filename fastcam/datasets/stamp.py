"""What the files behind samples look like, so that a replaced picture is not taken for the one before."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from fastcam.datasets.sample import Sample

# A stat on a network file system waits a millisecond for an answer, so that many of them wait together.
THREADS = 16


def stamps(groups: Iterable[Sequence[Sample]]) -> list[str]:
    """`stamp` of each group; a file that several share is looked at once.

    Args:
        groups: samples each.
    """
    known: dict[str, tuple[int, int] | None] = {}
    with ThreadPoolExecutor(THREADS, thread_name_prefix="fastcam-stamp") as pool:
        return list(pool.map(partial(stamp, known=known), groups))


def stamp(samples: Iterable[Sample], known: dict[str, tuple[int, int] | None] | None = None) -> str:
    """A hash of size and time of the last change of every file that samples are read from, in order.

    The same in every process and on every machine that shares the files; paths are not in it.

    Args:
        samples: with their masks.
        known: sizes and times by path, added to.
    """
    known = {} if known is None else known
    state = hashlib.sha256()
    for one in samples:
        for path in (one.source.path, *one.mask_paths, *([one.ignore_path] if one.ignore_path else [])):
            if path not in known:
                known[path] = _look(path)
            state.update(repr(known[path]).encode())
    return state.hexdigest()[:16]


def _look(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
