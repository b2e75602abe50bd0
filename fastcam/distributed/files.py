"""Files that are there as a whole or not at all, in a folder that was proved to take them."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file that others see as a whole or not at all, also after a power cut.

    Args:
        path: replaced, where it exists, once the block has ended well.

    Yields:
        Where to write meanwhile, in the same folder.

    Raises:
        OSError: it cannot be written; the message names it.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(
                f"cannot write {path} ({error.strerror or error}); what was finished before is kept: make room on "
                "its disk, or make the folder writable, and start again"
            ) from error
        raise
    with contextlib.suppress(OSError):  # not every file system has folders that can be synced
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file as a whole or not at all, see `whole`.

    Args:
        path: replaced where it exists.
        data: what it holds.
    """
    with whole(path) as part:
        part.write_bytes(data)


def check_folder(folder: Path, size: int) -> None:
    """Makes a folder and proves that results can be written into it.

    Args:
        folder: may exist.
        size: bytes that will be written.

    Raises:
        ValueError: it is a file, cannot be written, or its disk is too full.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {folder} is a file; give a folder, which may be new")
    probe = folder / f".probe.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(probe, b"fastcam" * 1024)
        probe.unlink()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error  # see `whole`
        reason = cause.strerror or cause
        raise ValueError(f"--out {folder} cannot be written ({reason}); give another folder") from None
    if free < size:
        raise ValueError(
            f"--out {folder} has {free / 2**20:,.0f} MB left and the results take about {size / 2**20:,.0f} MB; "
            "make room, or give a folder on another disk"
        )
