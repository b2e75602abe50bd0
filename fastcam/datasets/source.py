"""Where the bytes of a picture lie: a file, a stretch of a tar file, a cell of a Parquet file."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fastcam import image

# Threads that load ahead may be at the end of one group while others begin the next.
KEPT_GROUPS = 2
_groups: OrderedDict[tuple[str, int, int, int], Any] = OrderedDict()
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class File:
    """A picture file of its own."""

    path: str

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.path

    def read(self) -> Tensor:
        """The picture (H, W, 3) uint8; ValueError when it cannot be read."""
        return image.read(self.path)


@dataclass(frozen=True, slots=True)
class Member:
    """A picture inside an uncompressed tar file: `length` bytes from `offset`, read without an index."""

    path: str
    offset: int
    length: int
    member: str

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.path}/{self.member}"

    def read(self) -> Tensor:
        """The picture (H, W, 3) uint8; ValueError when it cannot be read."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                content = file.read(self.length)
        except OSError as error:
            raise ValueError(f"cannot read {self.name!r}: {error}") from None
        if len(content) < self.length:
            raise ValueError(
                f"cannot read {self.name!r}: the file ends {self.length - len(content)} bytes before the picture does; "
                "copy it again"
            )
        return image.read(content, self.name)


@dataclass(frozen=True, slots=True)
class Row:
    """A picture in the image column of a Parquet file; its row group is read once for neighboring rows."""

    path: str
    group: int
    row: int
    column: str

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.path}, row group {self.group}, row {self.row}"

    def read(self) -> Tensor:
        """The picture (H, W, 3) uint8; ValueError when it cannot be read."""
        try:
            value = self._column()[self.row].as_py()
        except OSError as error:  # pyarrow's own errors are ValueErrors and OSErrors
            raise ValueError(f"cannot read {self.name!r}: {error}") from None
        except ValueError as error:
            raise ValueError(f"cannot read {self.name!r}: damaged Parquet file ({error}); copy it again") from None
        content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        if content:
            return image.read(content, self.name)
        if path:
            return image.read(Path(self.path).parent / path)
        raise ValueError(f"cannot read {self.name!r}: column {self.column!r} holds no picture there")

    def _column(self) -> Any:
        from pyarrow import parquet

        state = os.stat(self.path)
        key = (self.path, self.group, state.st_mtime_ns, state.st_size)
        with _lock:
            if key not in _groups:
                with parquet.ParquetFile(self.path) as file:
                    _groups[key] = file.read_row_group(self.group, columns=[self.column]).column(0)
            _groups.move_to_end(key)
            while len(_groups) > KEPT_GROUPS:
                _groups.popitem(last=False)
            return _groups[key]
