"""What ingest compares with, and applying a staged batch: records, change log and source state in one transaction."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain, compress, islice

import msgspec
import numpy as np

from autosync.change_detection import Staged
from autosync.errors import StaleLock, StoreBusy
from autosync.fields import inner_fields
from autosync.policy import Counts
from autosync.row_hashes import Entries, Recs, merge
from autosync.settings import Source
from blocks.store import file_states as parts
from blocks.store import row_hashes as hashes
from blocks.store.schema import INDEX_NAMES, INDEXES, WRITE_CACHE_KB, Db, create_view, first_load, transaction
from blocks.store.staged_batch import Batch

CHUNK = 8192
BULK = 50_000
INSERT = "INSERT INTO record (rec, collection, id, doc, level) VALUES "
ROWS_AT_ONCE = 50
UPDATE = "UPDATE record SET doc = ? WHERE rec = ?"
LOG_INSERTS = (
    "INSERT INTO change (seq, batch, rec, op, before) SELECT ? + rec, ?, rec, 'insert', NULL FROM record "
    "WHERE rec >= ? ORDER BY rec"
)
LOG_UPDATE = (
    "INSERT INTO change (seq, batch, rec, op, before) "
    "SELECT ?, ?, rec, iif(doc IS NULL, 'insert', 'update'), doc FROM record WHERE rec = ?"
)
LOG_DELETE = (
    "INSERT INTO change (seq, batch, rec, op, before) SELECT ?, ?, rec, 'delete', doc FROM record WHERE rec = ?"
)


@dataclass(frozen=True)
class SourceState:
    """What is kept of a source between runs; version 0 and a fresh seed when there is nothing."""

    version: int
    rules: str
    fingerprint: str
    digest: str
    seed: int


@dataclass(frozen=True)
class Applied:
    """What a batch did: the range of its changes (last < first when nothing changed), and the counts."""

    first_seq: int
    last_seq: int
    counts: Counts


def collection_id(db: Db, name: str) -> int | None:
    """The number of a collection, None when it doesn't exist yet."""
    row = db.execute("SELECT collection FROM collection WHERE name = ?", [name]).fetchone()
    return int(row[0]) if row else None


def ensure_collection(db: Db, name: str, source: str | None, key: Sequence[str]) -> int:
    """The number of a collection, made when it is missing. Needs a transaction.

    A source that fed it before must look at every row again, should it come back.
    """
    db.execute(
        "UPDATE source_state SET version = version + 1, rules = '', fingerprint = '', digest = '' "
        "WHERE source = (SELECT source FROM collection WHERE name = ?) AND source IS NOT ?",
        [name, source],
    )
    db.execute(
        "INSERT INTO collection (name, source, key) VALUES (?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET source = excluded.source, key = excluded.key",
        [name, source, msgspec.json.encode(list(key)).decode()],
    )
    found = collection_id(db, name)
    assert found is not None
    return found


def state(db: Db, source: str) -> SourceState:
    """The source's kept state."""
    row = db.execute(
        "SELECT version, rules, fingerprint, digest, seed FROM source_state WHERE source = ?", [source]
    ).fetchone()
    return SourceState(*row) if row else SourceState(0, "", "", "", secrets.randbits(62))


def lookup(db: Db, collection: int | None, ids: Sequence[str]) -> dict[str, tuple[int, bytes | None]]:
    """Ids -> (rec, canonical form); form None for a deleted record, unknown ids are absent."""
    if collection is None or not ids:
        return {}
    found: dict[str, tuple[int, bytes | None]] = {}
    for start in range(0, len(ids), CHUNK):
        wanted = msgspec.json.encode(ids[start : start + CHUNK]).decode()
        rows = db.execute(
            "SELECT record.id, record.rec, CAST(record.doc AS BLOB) FROM json_each(?) AS wanted "
            "CROSS JOIN record ON record.collection = ? AND record.id = wanted.value",
            [wanted, collection],
        )
        found.update((id, (rec, doc)) for id, rec, doc in rows)
    return found


def record_count(db: Db, name: str) -> int:
    """How many live records a collection has; 0 when it doesn't exist."""
    row = db.execute("SELECT records FROM collection WHERE name = ?", [name]).fetchone()
    return int(row[0]) if row else 0


def live(db: Db, collection: int | None) -> Recs:
    """The numbers of all live records of a collection, in no certain order."""
    if collection is None:
        return np.zeros(0, dtype=np.int64)
    rows = db.execute("SELECT rec FROM record WHERE collection = ? AND doc IS NOT NULL", [collection])
    return np.fromiter((row[0] for row in rows), dtype=np.int64)


def holders(db: Db, collection: int | None, pointer: str, values: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Canonical value -> (rec, id) of the live record that has it at a pointer."""
    from autosync.records import Pointer

    if collection is None:
        return {}
    path = "$" + "".join('."' + token.replace('"', '\\"') + '"' for token in Pointer(pointer).tokens)
    found: dict[str, tuple[int, str]] = {}
    for start in range(0, len(values), CHUNK):
        rows = db.execute(
            "SELECT doc -> ?, rec, id FROM record WHERE collection = ? AND doc IS NOT NULL "
            "AND doc -> ? IN (SELECT value FROM json_each(?))",
            [path, collection, path, msgspec.json.encode(values[start : start + CHUNK]).decode()],
        )
        found.update((value, (rec, id)) for value, rec, id in rows)
    return found


def document(db: Db, rec: int) -> bytes:
    """A live record's canonical bytes."""
    return bytes(db.execute("SELECT CAST(doc AS BLOB) FROM record WHERE rec = ?", [rec]).fetchone()[0])


def id_of(db: Db, rec: int) -> str:
    """A record's id."""
    return str(db.execute("SELECT id FROM record WHERE rec = ?", [rec]).fetchone()[0])


def check_token(db: Db, name: str, token: int) -> None:
    """Refuse a writer whose lock a newer one has taken over. Needs a transaction.

    Raises:
        StaleLock: A newer fencing token was given out.
    """
    row = db.execute("SELECT token, run FROM fence WHERE name = ?", [name]).fetchone()
    if row is None or row[0] != token:
        raise StaleLock(
            f"run {row[1] if row else '?'} has taken over {name!r}",
            where="store",
            kept="everything that the newer run wrote; this run wrote nothing",
            todo="nothing; the newer run goes on",
        )


def apply(db: Db, batch: Batch, source: Source, *, run: str, token: int, now: float) -> Applied:
    """Apply a staged batch in one transaction.

    Args:
        run: The run's id, kept with the changes.
        token: The fencing token that the lock stage got.
        now: Unix seconds, UTC; the changes' time.

    Raises:
        StaleLock: A newer run holds the source.
        StoreBusy: The source's state moved since ingest compared with it; ingest again.
    """
    ticket, staged = batch.ticket, batch.staged
    db.execute(f"PRAGMA cache_size = -{WRITE_CACHE_KB}")
    bulk = ticket.counts.inserted > BULK and not db.execute("SELECT 1 FROM record LIMIT 1").fetchone()
    with ThreadPoolExecutor(1) as beside, first_load(db) if bulk else nullcontext(), transaction(db):
        check_token(db, f"source {source.name}", token)
        if state(db, source.name).version != ticket.state_version:
            raise StoreBusy(
                f"another run stored a batch of {source.name!r} in between", kept="that batch", todo="nothing; retried"
            )
        collection = ensure_collection(db, ticket.collection, source.name, ticket.key)
        recs = number_records(db, staged)
        shown = beside.submit(_shown, staged, recs)
        applied = append(db, batch, collection, recs, source=source.name, run=run, token=token, time=now, bulk=bulk)
        _keep_state(db, batch, source, recs, shown.result(), now)
        db.executemany("UPDATE quarantine SET state = 'replayed' WHERE item = ?", [(n,) for n in ticket.replayed])
    if ticket.counts.changed > 100_000:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return applied


def append(
    db: Db,
    batch: Batch,
    collection: int,
    recs: Recs,
    *,
    source: str,
    run: str,
    token: int,
    time: float,
    bulk: bool = False,
) -> Applied:
    """Write a batch's records and their changes after all others; nothing when it changes nothing. Needs a transaction.

    Args:
        recs: The record of every staged row, from `number_records`.
        source, run, token, time: What the changes say of where they come from.
        bulk: The first records of the store, so many that the indexes are better made afterwards.
    """
    ticket, staged, counts = batch.ticket, batch.staged, batch.ticket.counts
    first = _next_seq(db)
    last = first + counts.changed - 1
    if counts.changed:
        number = int(db.execute("SELECT coalesce(max(batch), 0) + 1 FROM batch").fetchone()[0])
        _write(db, batch, recs, collection, number, first, bulk=bulk)
        _delete(db, staged.deletes, number, last - len(staged.deletes) + 1)
        db.execute(
            "INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [number, collection, source, run, ticket.origin, time, first, last]
            + [counts.inserted, counts.updated, counts.deleted, token],
        )
        db.execute(
            "UPDATE collection SET records = records + ? WHERE collection = ?",
            [counts.inserted - counts.deleted, collection],
        )
        widen_view(db, collection, ticket.collection, staged.fields)
    return Applied(first, last, counts)


def number_records(db: Db, staged: Staged) -> Recs:
    """The record of every staged row: new ones get the next numbers, rows refused late -1."""
    recs = staged.recs.copy()
    if staged.skip:
        recs[list(staged.skip)] = -1
    new = np.flatnonzero(recs == 0)
    first = int(db.execute("SELECT coalesce(max(rec), 0) + 1 FROM record").fetchone()[0])
    recs[new] = np.arange(first, first + len(new))
    return recs


def _next_seq(db: Db) -> int:
    return int(db.execute("SELECT coalesce(max(last_seq), 0) + 1 FROM batch").fetchone()[0])


def _write(db: Db, batch: Batch, recs: Recs, collection: int, number: int, seq: int, *, bulk: bool) -> None:
    """Write inserts and updates with their log rows: new records first, in the order of their numbers."""
    staged = batch.staged
    fresh = (staged.recs == 0) & (recs > 0)
    if count := int(fresh.sum()):
        if bulk:
            _drop_indexes(db)
        first, taken = int(recs[fresh][0]), fresh.tobytes()
        ids, docs, levels = (
            compress(column, taken) for column in (batch.ids(), batch.docs(), staged.levels.astype(np.uint8).tobytes())
        )
        rows = zip(range(first, first + count), ids, docs, levels, strict=True)
        _insert(db, f"(?, {collection:d}, ?, ?, ?)", rows, count)
        db.execute(LOG_INSERTS, [seq - first, number, first])
        if bulk:
            _make_indexes(db)
    _update(db, batch, recs, number, seq + count)


def _insert(db: Db, row: str, rows: Iterator[tuple[object, ...]], count: int) -> None:
    """Insert rows, many a statement: stepping through a statement costs more than binding a row."""
    for size in (ROWS_AT_ONCE, 1):
        taken = (list(chain.from_iterable(islice(rows, size))) for _ in range(count // size))
        db.executemany(INSERT + ", ".join([row] * size), taken)
        count %= size


def _update(db: Db, batch: Batch, recs: Recs, number: int, seq: int) -> None:
    """Rewrite records that differ or come back, with their log rows."""
    old = (batch.staged.recs > 0) & (recs > 0)
    wanted = recs[old].tolist()
    if wanted:
        db.executemany(LOG_UPDATE, [(seq + n, number, rec) for n, rec in enumerate(wanted)])
        db.executemany(UPDATE, zip(compress(batch.docs(), old.tobytes()), wanted, strict=True))


def _drop_indexes(db: Db) -> None:
    """Without indexes a first load writes faster; they are made again in the same transaction."""
    for name in INDEX_NAMES:
        db.execute(f"DROP INDEX {name}")


def _make_indexes(db: Db) -> None:
    for statement in INDEXES.split(";"):
        if statement.strip():
            db.execute(statement)


def _delete(db: Db, deletes: Recs, number: int, seq: int) -> None:
    """Turn records into tombstones; their last content goes to the log."""
    numbers = deletes.tolist()
    db.executemany(LOG_DELETE, [(seq + n, number, rec) for n, rec in enumerate(numbers)])
    db.executemany("UPDATE record SET doc = NULL WHERE rec = ?", [(rec,) for rec in numbers])


def widen_view(db: Db, collection: int, name: str, fields: list[tuple[str, ...]]) -> None:
    """Give a collection's view the fields that it lacks. Needs a transaction."""
    row = db.execute("SELECT fields FROM collection WHERE collection = ?", [collection]).fetchone()
    known = [tuple(path) for path in msgspec.json.decode(row[0])]
    columns = inner_fields([*known, *fields])
    if columns != known:
        db.execute(
            "UPDATE collection SET fields = ? WHERE collection = ?",
            [msgspec.json.encode(columns).decode(), collection],
        )
        create_view(db, collection, name, columns)


def _shown(staged: Staged, recs: Recs) -> Entries:
    """The hashes of the rows that are shown and weren't before, with their records; sorted. Takes `staged.entries`."""
    entries, staged.entries = staged.entries, staged.entries[:0].copy()
    entries["rec"] = recs
    taken = recs > 0
    return merge([entries if taken.all() else entries[taken], staged.same])


def _keep_state(db: Db, batch: Batch, source: Source, recs: Recs, shown: Entries, now: float) -> None:
    """Keep what the source showed, in the same transaction as what came of it."""
    ticket, staged = batch.ticket, batch.staged
    if ticket.origin != "source":
        forget_rows(db, source.name, np.concatenate([recs[recs > 0], staged.deletes]))
        return
    if state(db, source.name).rules != ticket.rules:  # what other rules made of a row says nothing any more
        hashes.forget(db, source.name)
        parts.forget(db, source.name)
    parts.keep(db, source.name, batch.parts())
    hashes.update(db, source.name, staged.lost, shown)
    db.execute(
        "INSERT OR REPLACE INTO source_state VALUES (?, ?, ?, ?, ?, ?, ?)",
        [source.name, ticket.state_version + 1, ticket.rules, ticket.fingerprint, ticket.digest, ticket.seed, now],
    )


def forget_rows(db: Db, source: str, recs: Recs) -> None:
    """Forget the raw rows of records that something other than their source changed. Needs a transaction.

    The digest goes too, so that the next run looks at every row again and the source has its say.
    """
    hashes.forget_records(db, source, recs)
    db.execute(
        "UPDATE source_state SET version = version + 1, fingerprint = '', digest = '' WHERE source = ?", [source]
    )


def touch(db: Db, source: str, fingerprint: str) -> None:
    """Keep a new fingerprint of unchanged content, so that the next look is a stat again."""
    with transaction(db, revise=False):
        db.execute("UPDATE source_state SET fingerprint = ? WHERE source = ?", [fingerprint, source])


def read_rows(db: sqlite3.Connection, collection: int) -> Iterator[tuple[str, bytes]]:
    """(id, canonical bytes) of every live record in key order."""
    rows = db.execute(
        "SELECT id, CAST(doc AS BLOB) FROM record WHERE collection = ? AND doc IS NOT NULL ORDER BY id", [collection]
    )
    yield from rows
