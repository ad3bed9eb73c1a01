"""Staged batches: what ingest found, on disk, so that only the batch's name travels between tasks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from autosync.change_detection import Refusal, Staged
from autosync.errors import StoreError
from autosync.file_states import PartChanges
from autosync.policy import Counts
from autosync.row_hashes import ENTRY

IDS, DOCS, META, PARTS = "ids", "docs", "meta.json", "parts"
ARRAYS = ("recs", "levels", "born", "entries", "same", "lost", "deletes")
READ_BYTES = 4 << 20


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

    def ids(self) -> Iterator[str]:
        """The id of every staged row, in order, refused ones included."""
        return chain.from_iterable(_lines(self.folder / IDS))

    def parts(self) -> PartChanges:
        """How what is kept of the source's files must change."""
        path = self.folder / PARTS
        return msgspec.msgpack.decode(path.read_bytes(), type=PartChanges) if path.exists() else PartChanges()

    def docs(self) -> Iterator[str]:
        """The canonical text of every staged row, in the same order."""
        return chain.from_iterable(_lines(self.folder / DOCS))


def _lines(path: Path) -> Iterator[list[str]]:
    """The lines of a file, in lists of some megabytes."""
    rest = b""
    with path.open("rb") as handle:
        while data := handle.read(READ_BYTES):
            whole, end, data = data.rpartition(b"\n")
            if end:
                yield (rest + whole).decode().split("\n")
                rest = data
            else:
                rest += data


class Stage:
    """The rows of a batch while changes are detected: their ids and their canonical forms, one a line in a file each.

    An id has no control characters, canonical JSON no raw newline.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ids, self._docs = _create(folder / IDS), _create(folder / DOCS)

    def write(self, ids: bytes, docs: bytes) -> None:
        """Append rows."""
        with writing(self.folder):
            self._ids.write(ids)
            self._docs.write(docs)

    def read(self, positions: Iterable[int]) -> dict[int, tuple[str, bytes]]:
        """Read some rows back by position."""
        with writing(self.folder):
            self._ids.flush()
            self._docs.flush()
        wanted = set(positions)
        return {n: row for n, row in enumerate(read_rows(self.folder)) if n in wanted}

    @staticmethod
    def peek(folder: Path, count: int) -> dict[int, tuple[str, bytes]]:
        """The first rows of a closed stage by position."""
        return dict(enumerate(islice(read_rows(folder), count)))

    def close(self) -> None:
        with writing(self.folder):
            self._ids.close()
            self._docs.close()


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


def read_rows(folder: Path) -> Iterator[tuple[str, bytes]]:
    """(id, canonical form) of every staged row in a batch's folder, in order."""
    with (folder / IDS).open("rb") as ids, (folder / DOCS).open("rb") as docs:
        for id, doc in zip(ids, docs, strict=True):
            yield id[:-1].decode(), doc[:-1]


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
        for name in ARRAYS:
            np.save(folder / f"{name}.npy", getattr(staged, name))
        (folder / META).write_bytes(msgspec.json.encode(rest))


def save_parts(folder: Path, changes: PartChanges) -> None:
    """Write how what is kept of the source's files must change, beside a batch."""
    if changes != PartChanges():
        with writing(folder):
            (folder / PARTS).write_bytes(msgspec.msgpack.encode(changes))


def load(folder: Path) -> Batch:
    """Read a staged batch."""
    rest = msgspec.json.decode((folder / META).read_bytes(), type=_Rest)
    staged = Staged(
        **{name: np.load(folder / f"{name}.npy") for name in ARRAYS},
        unchanged=rest.ticket.counts.unchanged,
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
