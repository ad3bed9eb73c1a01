"""Reading: a record, the change log, a collection as of any seq, and what status and reports need."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import nlargest
from typing import Any, Literal, TypedDict, Unpack

import msgspec

from autosync.attention import GOOD
from autosync.policy import Counts
from blocks.store.schema import Db

Row = dict[str, Any]
Changes = dict[str, tuple[bool, bytes | None]]
COMPACTED, REBUILT = "compacted", "rebuild"
LOG = "SELECT log.* FROM change_log AS log"
RunKind = Literal["any", "finished", "succeeded"]
RUN_KINDS: dict[RunKind, str] = {
    "any": "1 = 1",
    "finished": "ended IS NOT NULL",
    "succeeded": f"outcome IN {GOOD}",
}


def rows(db: Db, sql: str, parameters: list[Any] | tuple[Any, ...] = ()) -> list[Row]:
    """The answer of a query as dicts."""
    answer = db.execute(sql, parameters)
    names = [column[0] for column in answer.description]
    return [dict(zip(names, row, strict=True)) for row in answer]


def collections(db: Db) -> list[Row]:
    """Every collection: number, name, source, key, records."""
    return rows(db, "SELECT collection, name, source, key, records FROM collection ORDER BY name")


def revision(db: Db) -> int:
    """Counts up with every change that readers can see: good for an ETag."""
    return int(db.execute("SELECT value FROM meta WHERE name = 'revision'").fetchone()[0])


def record(db: Db, collection: str, id: str) -> str | None:
    """A live record's canonical text, or None."""
    row = db.execute(
        "SELECT doc FROM record WHERE collection = (SELECT collection FROM collection WHERE name = ?) AND id = ?",
        [collection, id],
    ).fetchone()
    return str(row[0]) if row and row[0] is not None else None


class ChangeFilter(TypedDict, total=False):
    """Which changes: of a collection, a record (with its collection), a source, a run; of an operation; stored since
    or before a time (Unix seconds); with a seq below `before`, for the next page.
    """

    collection: str | None
    id: str | None
    source: str | None
    run: str | None
    op: str | None
    since: float | None
    until: float | None
    before: int | None


def changes(db: Db, *, limit: int = 50, columns: str = LOG, **which: Unpack[ChangeFilter]) -> list[Row]:
    """The change log, newest first: seq, run, source, collection, id, op, before, after, origin, time.

    A collection's batches follow each other in the log, so batches are filtered first and the log is read from there
    until the limit is reached; nothing is sorted. Merged batches of different collections lie between each other, so
    each collection is read apart. What a merged or rebuilt batch tells belongs to several runs, and so to none.

    Args:
        columns: What to read of them: SQL of ours up to FROM change_log AS log.
    """
    read = _record_seqs if which.get("id") is not None else _collection_seqs
    newest = msgspec.json.encode(nlargest(limit, read(db, limit, which))).decode()
    return rows(db, f"{columns} WHERE log.seq IN (SELECT value FROM json_each(?)) ORDER BY log.seq DESC", [newest])


def _record_seqs(db: Db, limit: int, which: ChangeFilter) -> Iterator[int]:
    """By the record's number: the log's index is on it."""
    where, values = conditions(
        ("collection.name = ?", which.get("collection")), ("record.id = ?", which["id"]), *_conditions(which)
    )
    picked = (
        "SELECT change.seq FROM record JOIN collection USING (collection) CROSS JOIN change USING (rec) "
        f"CROSS JOIN batch USING (batch) WHERE {where} AND change.seq < ? ORDER BY change.seq DESC LIMIT ?"
    )
    return (row[0] for row in db.execute(picked, [*values, _upto(which), limit]))


def _collection_seqs(db: Db, limit: int, which: ChangeFilter) -> Iterator[int]:
    """The + keeps SQLite from indexing the log."""
    where, values = conditions(*_conditions(which))
    picked = (
        "SELECT change.seq FROM batch CROSS JOIN change ON change.seq BETWEEN batch.first_seq AND batch.last_seq "
        f"WHERE +change.batch = batch.batch AND batch.collection = ? AND batch.first_seq < ? AND change.seq < ? "
        f"AND {where} ORDER BY batch.batch DESC, change.seq DESC LIMIT ?"
    )
    names, name = conditions(("name = ?", which.get("collection")))
    for (collection,) in db.execute(f"SELECT collection FROM collection WHERE {names}", name).fetchall():
        for row in db.execute(picked, [collection, _upto(which), _upto(which), *values, limit]):
            yield row[0]


def _upto(which: ChangeFilter) -> int:
    before = which.get("before")
    return 1 << 62 if before is None else before


def _conditions(which: ChangeFilter) -> list[tuple[str, Any]]:
    counted = {"insert": "inserted", "update": "updated", "delete": "deleted"}.get(which.get("op") or "", "1")
    return [
        ("batch.source = ?", which.get("source")),
        (f"batch.origin NOT IN ('{COMPACTED}', '{REBUILT}') AND batch.run = ?", which.get("run")),
        (f"batch.{counted} > 0 AND +change.op = ?", which.get("op")),
        ("batch.time >= ?", which.get("since")),
        ("batch.time < ?", which.get("until")),
    ]


def conditions(*each: tuple[str, Any]) -> tuple[str, list[Any]]:
    """The conditions whose value is given, as SQL with its values."""
    given = [(sql, value) for sql, value in each if value is not None]
    return " AND ".join(["1 = 1", *(sql for sql, _ in given)]), [value for _, value in given]


def counts(db: Db, collection: int, after: int, upto: int) -> Counts:
    """How many changes of each kind the batches that end in (after, upto] hold."""
    row = db.execute(
        "SELECT sum(inserted), sum(updated), sum(deleted) FROM batch "
        "WHERE collection = ? AND last_seq > ? AND last_seq <= ?",
        [collection, after, upto],
    ).fetchone()
    return Counts(*(value or 0 for value in row))


def changes_since(db: Db, collection: int, after: int, upto: int) -> Changes:
    """Ids changed in (after, upto] -> whether the record is live now, and its canonical bytes after `after`."""
    found = db.execute(
        "SELECT record.id, record.doc IS NOT NULL, CAST(change.before AS BLOB) FROM batch "
        "CROSS JOIN change ON change.seq BETWEEN max(batch.first_seq, ?) AND min(batch.last_seq, ?) "
        "AND +change.batch = batch.batch "
        "CROSS JOIN record USING (rec) WHERE batch.collection = ? AND batch.last_seq > ? "
        "ORDER BY batch.batch DESC, change.seq DESC",
        [after + 1, upto, collection, after],
    )
    return {id: (bool(live), before) for id, live, before in found}  # of several changes the first one stays


def as_of(db: Db, collection: int, seq: int) -> Iterator[tuple[str, bytes]]:
    """(id, canonical bytes) of every record that was live after change `seq`, in key order.

    A record's content then is what its first later change found before it, else what it is now.
    """
    yield from db.execute(
        "WITH later AS (SELECT rec, min(seq) AS seq FROM change WHERE seq > ? GROUP BY rec) "
        "SELECT id, CAST(iif(later.seq IS NULL, doc, "
        "(SELECT before FROM change WHERE seq = later.seq)) AS BLOB) AS body "
        "FROM record LEFT JOIN later USING (rec) WHERE collection = ? AND body IS NOT NULL ORDER BY id",
        [seq, collection],
    )


def seq_at(db: Db, collection: int, time: float) -> int:
    """The last seq of a collection at a time (Unix seconds)."""
    row = db.execute(
        "SELECT coalesce(max(last_seq), 0) FROM batch WHERE collection = ? AND time <= ?", [collection, time]
    ).fetchone()
    return int(row[0])


def beginning(db: Db, collection: int) -> tuple[int, float] | None:
    """Seq and time (Unix seconds) of the first state that the log of a store that was made anew tells; None when the
    log tells all from the first record on.
    """
    row = db.execute(
        "SELECT last_seq, time, origin FROM batch WHERE collection = ? ORDER BY last_seq LIMIT 1", [collection]
    ).fetchone()
    return (row[0], row[1]) if row and row[2] == REBUILT else None


def kept_seq(db: Db, collection: int, seq: int) -> int:
    """The newest seq up to `seq` whose state is still known exactly: `seq` itself, unless it lies inside a batch that
    compaction merged with others, or that was told by mirror or repository as one, in which case it is the last seq
    before that batch (0: no records yet).
    """
    row = db.execute(
        "SELECT first_seq, last_seq, inserted + updated + deleted, origin FROM batch "
        "WHERE collection = ? AND first_seq <= ? ORDER BY last_seq DESC LIMIT 1",
        [collection, seq],
    ).fetchone()
    if row is None or seq >= row[1] or (row[2] == row[1] - row[0] + 1 and row[3] != REBUILT):
        return seq
    before = "SELECT coalesce(max(last_seq), 0) FROM batch WHERE collection = ? AND last_seq < ?"
    return int(db.execute(before, [collection, row[0]]).fetchone()[0])


def runs(db: Db, source: str | None = None, *, since: float = 0, limit: int = 10_000) -> list[Row]:
    """Runs, newest first."""
    return rows(
        db,
        "SELECT * FROM run WHERE (? IS NULL OR source = ?) AND started >= ? ORDER BY started DESC LIMIT ?",
        [source, source, since, limit],
    )


def run(db: Db, run: str) -> Row:
    """A run's row."""
    return rows(db, "SELECT * FROM run WHERE run = ?", [run])[0]


def arrivals(db: Db, source: str, since: float) -> list[float]:
    """When the runs of a source since a time began that brought changes; Unix seconds, in order."""
    sql = (
        "SELECT started FROM run WHERE source = ? AND started >= ? AND inserted + updated + deleted > 0 "
        "ORDER BY started"
    )
    return [row[0] for row in db.execute(sql, [source, since])]


def newest_run(
    db: Db, source: str, kind: RunKind = "any", *, but: str = "", columns: str = "SELECT * FROM run"
) -> Row | None:
    """A source's newest run of a kind, in the order in which runs began.

    Args:
        but: A run that is left out.
        columns: What to read of it: SQL of ours up to FROM run.
    """
    sql = f"{columns} WHERE source = ? AND run != ? AND {RUN_KINDS[kind]} ORDER BY started DESC LIMIT 1"
    return next(iter(rows(db, sql, [source, but])), None)


def stages(db: Db, run: str) -> list[Row]:
    """The stages of a run in order: name, state, seconds, retries."""
    return rows(db, "SELECT name, state, seconds, retries FROM stage WHERE run = ? ORDER BY started", [run])


def cursors(db: Db) -> list[Row]:
    """Every consumer's cursor with the collection's newest seq."""
    return rows(
        db,
        "SELECT consumer, collection.name AS collection, consumer.seq, consumer.time, "
        "(SELECT coalesce(max(last_seq), 0) FROM batch WHERE batch.collection = collection.collection) AS newest "
        "FROM consumer JOIN collection USING (collection) ORDER BY collection.name, consumer",
    )


def locks(db: Db) -> list[Row]:
    """Places that are held: name, run, since, token."""
    return rows(db, "SELECT name, run, since, token FROM fence WHERE released IS NULL ORDER BY since")
