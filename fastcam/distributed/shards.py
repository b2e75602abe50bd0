"""The unit of work: a fixed run of samples, whose result is one file that is there as a whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from fastcam.distributed.files import write_whole

SETTINGS = "settings.json"
HEAD = b"fastcam shard 1\n"  # then the SHA-256 of what follows it
MADE = re.compile(r"\d{6,}\.pt|settings\.json|\.(\d{6,}\.pt|settings\.json)\.\d+\.part|lock")


@dataclass(frozen=True)
class Plan:
    """Which samples are computed together; it does not depend on how many workers there are.

    Attributes:
        samples: indices in the data set, in its order.
        size: samples of a shard; the last one may have fewer.
        stamps: what the files of each shard look like, see `fastcam.datasets.stamps`; or none, where nobody looks.
    """

    samples: Sequence[int]
    size: int
    stamps: Sequence[str] = ()

    def __len__(self) -> int:
        """How many shards there are."""
        return math.ceil(len(self.samples) / self.size)

    def shard(self, number: int) -> list[int]:
        """The samples of one shard."""
        return list(self.samples[number * self.size : (number + 1) * self.size])

    def stamp(self, number: int) -> str:
        """What the files of one shard look like."""
        return self.stamps[number] if self.stamps else ""


@dataclass
class Result:
    """What one shard gives.

    Attributes:
        shard: its number.
        images: how many pictures were evaluated.
        columns: by name, one entry for each row (an image by a method): a list, or a float64 tensor (rows,) or
            (rows, n).
        states: sums that metrics keep.
        problems: pictures that could not be evaluated, {"file", "reason", "lost"} each.
        cost: seconds, forwards and the machine they ran on, see `Worker`.
        stamp: what the files looked like, see `Plan`.
    """

    shard: int
    images: int
    columns: dict[str, Any]
    states: dict[str, Tensor]
    problems: list[dict[str, str]] = field(default_factory=list)
    cost: dict[str, Any] = field(default_factory=dict)
    stamp: str = ""

    def pack(self) -> bytes:
        """As bytes, which `unpack` reads without executing anything in them."""
        buffer = io.BytesIO()
        torch.save(vars(self), buffer)
        payload = buffer.getvalue()
        return HEAD + hashlib.sha256(payload).digest() + payload

    @classmethod
    def unpack(cls, data: bytes) -> Result:
        """What `pack` made.

        Raises:
            ValueError: other bytes.
        """
        start = len(HEAD) + hashlib.sha256().digest_size
        head, digest, payload = data[: len(HEAD)], data[len(HEAD) : start], data[start:]
        if head != HEAD:
            raise ValueError("not the result of a shard")
        if hashlib.sha256(payload).digest() != digest:
            raise ValueError("not the result of a shard as it was written: its checksum differs")
        try:
            return cls(**torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True))
        except Exception as error:  # torch names no errors that its reader may raise
            raise ValueError(f"not the result of a shard ({type(error).__name__})") from error


@dataclass
class Found:
    """What a folder holds of a plan, shards rising.

    Attributes:
        kept: need not be computed any more.
        new: nothing is there.
        damaged: a failing disk, or somebody else, has changed the file.
        changed: pictures were replaced since.
        failed: pictures could not be evaluated, and perhaps can be now.
    """

    kept: list[int] = field(default_factory=list)
    new: list[int] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)
    changed: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)

    @property
    def missing(self) -> list[int]:
        """The shards to compute; what failed comes last, so that a run stopped again and again still goes on."""
        return [*sorted([*self.new, *self.damaged, *self.changed]), *self.failed]


class Store:
    """The folder of a run's shards; one run at a time may write into it.

    Args:
        folder: made when it is opened.
        settings: everything that decides the numbers, as JSON can hold it.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings = json.loads(json.dumps(settings))
        self._lock: IO[bytes] | None = None

    def open(self, overwrite: bool = False) -> None:
        """Takes the folder: what is in it stays where it was computed with these settings.

        Args:
            overwrite: remove what another run left there.

        Raises:
            ValueError: it holds results of other settings, or another run is writing into it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._take()
        try:
            if overwrite:
                self._clear(MADE.fullmatch)
            self._clear(lambda name: name.endswith(".part") and MADE.fullmatch(name))
            path = self.folder / SETTINGS
            if path.exists():
                self._compare(self._settings(path))
            else:
                self._clear(MADE.fullmatch)  # nobody knows which settings those shards have
                write_whole(path, json.dumps(self.settings, indent=2).encode())
        except BaseException:
            self.close()
            raise

    def _take(self) -> None:
        try:
            import fcntl
        except ModuleNotFoundError:  # Windows
            return
        self._lock = (self.folder / "lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # falls with the process, however it ends
        except BlockingIOError:
            self.close()
            raise ValueError(
                f"another run is writing into {self.folder.parent}; wait for it, or give another --out"
            ) from None

    def _clear(self, chosen: Any) -> None:
        for path in self.folder.iterdir():
            if path.name != "lock" and chosen(path.name):
                path.unlink()

    def _settings(self, path: Path) -> dict[str, Any]:
        try:
            found = json.loads(path.read_bytes())
        except ValueError:  # of JSON, or of UTF-8
            found = None
        if not isinstance(found, dict):
            raise ValueError(
                f"{path} is damaged, so that nobody knows how the results beside it were made; "
                "give --overwrite, or another --out"
            )
        return found

    def _compare(self, found: dict[str, Any]) -> None:
        names = [name for name in {**found, **self.settings} if found.get(name) != self.settings.get(name)]
        if names:
            shown = "; ".join(f"{name} {_change(found.get(name), self.settings.get(name))}" for name in names[:4])
            raise ValueError(
                f"{self.folder.parent} holds results of other settings ({shown}); give another --out, or --overwrite"
            )

    def close(self) -> None:
        """Lets others have the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def exists(self) -> bool:
        """Whether some process has opened it, seen from this one."""
        return (self.folder / SETTINGS).exists()

    def path(self, shard: int) -> Path:
        """Where a shard's result lies."""
        return self.folder / f"{shard:06d}.pt"

    def done(self) -> list[int]:
        """The shards that need not be computed any more, rising."""
        names = (path.name for path in self.folder.iterdir())
        return sorted(int(name.removesuffix(".pt")) for name in names if re.fullmatch(r"\d{6,}\.pt", name))

    def look(self, plan: Plan) -> Found:
        """What is there, and what is still to compute."""
        found, done = Found(), set(self.done())
        for shard in range(len(plan)):
            if shard not in done:
                found.new.append(shard)
                continue
            try:
                result = self.read(shard)
            except ValueError:
                found.damaged.append(shard)
                continue
            # A box that the crop cuts away is cut away again, and its picture has its rows.
            failed = any(one["lost"] != "box" for one in result.problems)
            changed = result.stamp != plan.stamp(shard)
            (found.changed if changed else found.failed if failed else found.kept).append(shard)
        return found

    def missing(self, plan: Plan) -> list[int]:
        """The shards still to compute, see `Found`."""
        return self.look(plan).missing

    def write(self, result: Result) -> None:
        """Keeps a result."""
        write_whole(self.path(result.shard), result.pack())

    def read(self, shard: int) -> Result:
        """The result of a shard.

        Raises:
            ValueError: its file is damaged.
        """
        path = self.path(shard)
        try:
            result = Result.unpack(path.read_bytes())
            if result.shard != shard:
                raise ValueError(f"the result of shard {result.shard}")
        except ValueError as error:
            raise ValueError(f"{path}: {error}; remove it and start again") from None
        return result

    def results(self, shards: Sequence[int]) -> Iterator[Result]:
        """The results of shards, in the order given: sums over them do not depend on who computed what."""
        return map(self.read, shards)


def _change(before: Any, after: Any) -> str:
    if isinstance(before, dict) and isinstance(after, dict):
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        return ", ".join(f"{name} {_change(before.get(name), after.get(name))}" for name in names[:3])
    if isinstance(before, list) and isinstance(after, list) and set(map(str, before)) != set(map(str, after)):
        gone, new = ([str(one) for one in a if one not in b] for a, b in ((before, after), (after, before)))
        return " and ".join(f"{word} {', '.join(names)}" for word, names in (("without", gone), ("with", new)) if names)
    short = [text if len(text) <= 40 else f"{text[:37]}..." for text in (str(before), str(after))]
    return f"{short[0]} -> {short[1]}"
