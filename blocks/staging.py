"""Staged batches: what ingest found, on disk, so that only the batch's name travels between tasks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from autosync.errors import StoreError
from autosync.policy import Counts
from autosync.seen import ENTRY
from autosync.sift import Refusal, Staged

ROWS, ENTRIES, KNOWN, META = "rows", "entries.npy", "known.npy", "meta.json"


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """What the store needs to know of a batch beside its rows.

    Attributes:
        replayed: Quarantine items that are settled once the batch is stored.
        state_version: The source state that ingest compared with; another one means that somebody was faster.
        code: Identifies this very input; `--accept CODE` lets it pass a guard.
    """

    batch: str
    source: str
    collection: str
    key: list[str]
    mode: str
    origin: str
    code: str
    rules: str
    fingerprint: str
    digest: str
    seed: int
    state_version: int
    before: int
    rows: int
    counts: Counts
    fields: list[list[str]]
    deletes_withheld: bool = False
    repeated: int = 0
    replayed: list[int] = []


@dataclass
class Batch:
    """A staged batch read back."""

    ticket: Ticket
    staged: Staged
    folder: Path

    def rows(self) -> Iterator[tuple[str, str]]:
        """(id, canonical text) of every staged row, in order, refused ones included."""
        with (self.folder / ROWS).open(encoding="utf-8", newline="\n") as handle:
            for line in handle:
                id, _, doc = line.partition("\t")
                yield id, doc[:-1]


class Stage:
    """The rows of a batch while they are sifted: one line a row, `id TAB canonical text`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._handle = _create(folder / ROWS)

    def write(self, lines: list[bytes]) -> None:
        """Append rows. An id has no control characters, canonical JSON no raw tab or newline."""
        with writing(self.folder):
            self._handle.writelines(lines)

    def read(self, positions: Iterable[int]) -> dict[int, tuple[str, bytes]]:
        """Read some rows back by position."""
        with writing(self.folder):
            self._handle.flush()
        wanted, found = set(positions), dict[int, tuple[str, bytes]]()
        with (self.folder / ROWS).open("rb") as handle:
            for n, line in enumerate(handle):
                if n in wanted:
                    id, _, doc = line.partition(b"\t")
                    found[n] = id.decode(), doc[:-1]
        return found

    @staticmethod
    def peek(folder: Path, count: int) -> dict[int, tuple[str, bytes]]:
        """The first rows of a closed stage by position."""
        found: dict[int, tuple[str, bytes]] = {}
        with (folder / ROWS).open("rb") as handle:
            for n, line in zip(range(count), handle, strict=False):
                id, _, doc = line.partition(b"\t")
                found[n] = id.decode(), doc[:-1]
        return found

    def close(self) -> None:
        with writing(self.folder):
            self._handle.close()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn a failed write below a batch's folder into our error."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"the batch can't be staged: {error.strerror or error}",
            where=str(folder),
            kept="everything",
            todo="make the folder writable, or make room on the disk",
        ) from None


def _create(path: Path) -> BinaryIO:
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb", buffering=1 << 20)


class _Rest(msgspec.Struct):
    ticket: Ticket
    skip: list[int]
    refused: list[Refusal]


def save(folder: Path, ticket: Ticket, staged: Staged) -> None:
    """Write everything but the rows beside them."""
    rest = _Rest(ticket, sorted(staged.skip), staged.refused)
    with writing(folder):
        np.save(folder / ENTRIES, staged.entries)
        np.save(folder / KNOWN, staged.known)
        np.savez(
            folder / "arrays.npz",
            recs=staged.recs,
            levels=staged.levels,
            born=staged.born,
            hashes=np.frombuffer(staged.hashes, dtype=np.uint8),
            deletes=staged.deletes,
        )
        (folder / META).write_bytes(msgspec.json.encode(rest))


def load(folder: Path) -> Batch:
    """Read a staged batch."""
    rest = msgspec.json.decode((folder / META).read_bytes(), type=_Rest)
    with np.load(folder / "arrays.npz") as arrays:
        staged = Staged(
            recs=arrays["recs"],
            levels=arrays["levels"],
            born=arrays["born"],
            hashes=arrays["hashes"].tobytes(),
            entries=np.load(folder / ENTRIES),
            known=np.load(folder / KNOWN),
            deletes=arrays["deletes"],
            skip=frozenset(rest.skip),
            fields=[tuple(path) for path in rest.ticket.fields],
            refused=rest.refused,
            rows=rest.ticket.rows,
            repeated=rest.ticket.repeated,
            deletes_withheld=rest.ticket.deletes_withheld,
        )
    if staged.entries.dtype != ENTRY:
        raise StoreError("the staged batch was written by another version", where=str(folder), todo="run again")
    return Batch(rest.ticket, staged, folder)


def discard(folder: Path) -> None:
    """Delete a staged batch; it is fine when it is gone already."""
    shutil.rmtree(folder, ignore_errors=True)


def discard_stale(staging: Path, older_than: float) -> None:
    """Delete batches that dead runs left behind, last touched before a Unix time."""
    if staging.is_dir():
        for entry in os.scandir(staging):
            if entry.is_dir() and entry.stat().st_mtime < older_than:
                discard(Path(entry.path))
