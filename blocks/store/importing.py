"""Importing a history: one version of a collection after another becomes batches of the change log, at their times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import msgspec

from autosync.change_detection import Block, ChangeDetector, Refusal, Staged
from autosync.errors import ConfigError, SourceError
from autosync.policy import Counts
from autosync.row_hashes import RowHashes, merge, update_bucket
from autosync.settings import Source
from blocks.store import batches
from blocks.store import row_hashes as hashes
from blocks.store.schema import Db, transaction
from blocks.store.staged_batch import Batch, Ticket

ORIGIN = "git"


class Version(NamedTuple):
    """A version of the collection: the commit it comes from, when that was (Unix seconds), its raw rows."""

    commit: str
    time: float
    blocks: Iterable[Block]


class SkippedVersion(msgspec.Struct, frozen=True):
    """A version that couldn't be read, and why; the next one was compared with the one before."""

    commit: str
    time: str
    reason: str


class RefusedRow(msgspec.Struct, frozen=True):
    """A row that was refused, where it first stood, and why; its record stayed as it was."""

    place: str
    id: str | None
    reason: str


class Imported(msgspec.Struct, kw_only=True):
    """What an import wrote.

    Attributes:
        versions: Versions read, skipped ones included; `changed` of them changed records.
        first_seq, last_seq: The changes; last < first when there are none.
        first_time, last_time: Of the changes, ISO 8601 UTC; "" when there are none.
        times_moved: Versions dated before an earlier one, or in the future; their time in the log was moved.
        refused: Each different row once; `refused_rows` counts it in every version.
    """

    versions: int = 0
    changed: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    records: int = 0
    first_seq: int = 1
    last_seq: int = 0
    first_time: str = ""
    last_time: str = ""
    times_moved: int = 0
    skipped: list[SkippedVersion] = []
    refused: list[RefusedRow] = []
    refused_rows: int = 0


def import_versions(
    db: Db, source: Source, versions: Iterable[Version], *, fed_by: str | None, token: int, seed: int, now: float
) -> Imported:
    """Write a collection's history in one transaction: a batch for each version that changed something.

    Rows are read, keyed and refused as ingest does. As of a time means the last batch until then, so times never
    decrease: a version dated before the one before it, or after `now`, gets the nearest time that fits.

    Args:
        source: The collection, its key and the pointer to its records.
        versions: Oldest first.
        fed_by: The configured source that feeds the collection; its next run looks at every row again.
        token: The fencing token of the place `source NAME`.
        seed: Keys the hashes of rows, those that blocks bring along included.
        now: Unix seconds, UTC.

    Raises:
        ConfigError: The collection has changes already.
        SourceError: No version could be read.
        StaleLock: A run of the source has begun since the token was given.
    """
    with transaction(db):
        batches.check_token(db, f"source {source.name}", token)
        _require_empty(db, source.into)
        collection = batches.ensure_collection(db, source.into, fed_by, source.keys)
        writing = _Importing(db, source, collection, token, seed, now)
        for version in versions:
            writing.add(version)
        if len(writing.done.skipped) == writing.done.versions:
            raise SourceError(
                f"none of {writing.done.versions} versions can be read; the newest: {writing.done.skipped[-1].reason}",
                kept="everything; nothing was imported",
                todo="check the path, and the pointer to the records",
            )
        if fed_by:
            _look_again(db, fed_by, now)
        return writing.end()


def _require_empty(db: Db, name: str) -> None:
    found = batches.collection_id(db, name)
    twin = db.execute("SELECT name FROM collection WHERE lower(name) = lower(?) AND name != ?", [name, name]).fetchone()
    if twin:
        raise ConfigError(
            f"there is a collection {twin[0]!r}; names that differ only in case are one name to a database",
            kept="everything; nothing was imported",
            todo="give another name with --collection NAME",
        )
    tables = ("batch", "record")
    if found and any(db.execute(f"SELECT 1 FROM {t} WHERE collection = ? LIMIT 1", [found]).fetchone() for t in tables):
        raise ConfigError(
            f"the collection {name!r} has changes already; a history can only come before them",
            kept="everything; nothing was imported",
            todo="import into another one with --collection NAME, or into a new home with --home, before its first run",
        )


def _look_again(db: Db, source: str, now: float) -> None:
    """Forget what a source showed, so that its next run compares every row; a batch staged before is refused."""
    state = batches.state(db, source)
    hashes.forget(db, source)
    db.execute(
        "INSERT OR REPLACE INTO source_state VALUES (?, ?, '', '', '', ?, ?)",
        [source, state.version + 1, state.seed, now],
    )


class _Rows:
    """The changed rows of a version: few, so they stay in memory."""

    def __init__(self) -> None:
        self._ids, self._docs = list[bytes](), list[bytes]()

    def write(self, ids: bytes, docs: bytes) -> None:
        self._ids.append(ids)
        self._docs.append(docs)

    def ids(self) -> list[str]:
        return b"".join(self._ids).decode().split("\n")[:-1]

    def docs(self) -> list[str]:
        return b"".join(self._docs).decode().split("\n")[:-1]

    def read(self, positions: Iterable[int]) -> dict[int, tuple[str, bytes]]:
        rows = list(zip(self.ids(), self.docs(), strict=True))
        return {n: (rows[n][0], rows[n][1].encode()) for n in positions}


@dataclass
class _Batch(Batch):
    """A version's changes as a batch that was never staged on disk."""

    rows: _Rows

    def ids(self) -> Iterator[str]:
        return iter(self.rows.ids())

    def docs(self) -> Iterator[str]:
        return iter(self.rows.docs())


class _Importing:
    """The import while it goes on: what the last version showed, and what was written."""

    def __init__(self, db: Db, source: Source, collection: int, token: int, seed: int, now: float) -> None:
        self.db, self.source, self.collection = db, source, collection
        self.token, self.now = token, now
        self.seed, self.seen, self.time = seed, b"", 0.0
        self.first_time = 0.0
        self.refused: dict[bytes, RefusedRow] = {}
        self.done = Imported()

    def add(self, version: Version) -> None:
        """Compare a version with the one before, and write what changed."""
        self.done.versions += 1
        rows = _Rows()
        try:
            staged = self._detect_all(version, rows)
        except SourceError as error:
            reason = f"{error.what} ({error.where})" if error.where else error.what
            self.done.skipped.append(SkippedVersion(version.commit, iso(version.time), reason))
            return
        self._note_refused(staged.refused)
        self._write(version, staged, rows)

    def end(self) -> Imported:
        """What was done."""
        if self.done.changed:
            self.done.first_time, self.done.last_time = iso(self.first_time), iso(self.time)
        self.done.refused = list(self.refused.values())
        return self.done

    def _detect_all(self, version: Version, rows: _Rows) -> Staged:
        detector = ChangeDetector(self.source, RowHashes([self.seen], self.seed), self._lookup, rows)
        for block in version.blocks:
            detector.block(block)
        return detector.finish(
            rows.read,
            partial(batches.live, self.db, self.collection),
            self.done.records,
            partial(batches.holders, self.db, self.collection),
        )

    def _lookup(self, ids: Sequence[str]) -> dict[str, tuple[int, bytes | None]]:
        return batches.lookup(self.db, self.collection if self.done.changed else None, ids)

    def _note_refused(self, refused: list[Refusal]) -> None:
        self.done.refused_rows += len(refused)
        for row in refused:
            digest = blake2b(row.raw, digest_size=16).digest()
            self.refused.setdefault(digest, RefusedRow(row.place, row.id, row.reason))

    def _write(self, version: Version, staged: Staged, rows: _Rows) -> None:
        counts = Counts(staged.inserted, staged.updated, len(staged.deletes), len(staged.refused), staged.unchanged)
        recs = batches.number_records(self.db, staged)
        if counts.changed:
            time = self._time(version)
            applied = batches.append(
                self.db,
                _Batch(self._ticket(staged, counts), staged, Path(), rows),
                self.collection,
                recs,
                source=self.source.name,
                run=version.commit,
                token=self.token,
                time=time,
            )
            self._count(applied)
        staged.entries["rec"] = recs
        fresh = merge([staged.entries[recs > 0], staged.same])
        self.seen = update_bucket(self.seen, staged.lost, fresh)

    def _time(self, version: Version) -> float:
        time = max(self.time, min(version.time, self.now))
        self.done.times_moved += time != version.time
        self.first_time, self.time = self.first_time if self.done.changed else time, time
        return time

    def _count(self, applied: batches.Applied) -> None:
        done, counts = self.done, applied.counts
        done.first_seq = done.first_seq if done.changed else applied.first_seq
        done.last_seq = applied.last_seq
        done.changed += 1
        done.inserted += counts.inserted
        done.updated += counts.updated
        done.deleted += counts.deleted
        done.records += counts.inserted - counts.deleted

    def _ticket(self, staged: Staged, counts: Counts) -> Ticket:
        return Ticket(
            batch="",
            source=self.source.name,
            collection=self.source.into,
            key=self.source.keys,
            mode=self.source.mode,
            origin=ORIGIN,
            code="",
            rules="",
            fingerprint="",
            digest="",
            seed=self.seed,
            state_version=0,
            before=self.done.records,
            rows=staged.rows,
            counts=counts,
            fields=[list(path) for path in staged.fields],
        )


def iso(time: float) -> str:
    """A Unix time as ISO 8601, UTC."""
    return datetime.fromtimestamp(time, UTC).isoformat().replace("+00:00", "Z")
