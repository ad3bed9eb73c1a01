"""Compaction: batches between two kept points of a collection become one, with only the net change of each record.

What a record was at the earlier point is the `before` of its first change since then, so that one stays; the later
ones go. Their rows keep their seqs: a merged batch spans more seqs than it has changes, and those of other
collections may lie between.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from autosync.retention import Point, kept, portions, protected, spans
from autosync.settings import Retention
from blocks.store import history
from blocks.store.batches import check_token
from blocks.store.schema import Db, transaction

ROWS_AT_ONCE = 200_000
FREE_SHARE, FREE_BYTES = 0.25, 4 << 20

# The records with several changes in a span of batches: the first one's seq, and the net operation, NULL for none.
NETTED = """
WITH span AS (
  SELECT rec, min(seq) AS first, max(seq) AS last FROM change
  WHERE seq BETWEEN :first AND :last AND batch IN (SELECT value FROM json_each(:batches))
  GROUP BY rec HAVING count(*) > 1),
ends AS (
  SELECT span.rec, span.first, old.before, CASE new.op WHEN 'delete' THEN NULL ELSE coalesce(
    (SELECT later.before FROM change AS later WHERE later.rec = span.rec AND later.seq > span.last
     ORDER BY later.seq LIMIT 1), record.doc) END AS after
  FROM span JOIN change AS old ON old.seq = span.first JOIN change AS new ON new.seq = span.last
  JOIN record ON record.rec = span.rec),
netted AS (
  SELECT rec, first, CASE WHEN before IS after THEN NULL WHEN before IS NULL THEN 'insert'
    WHEN after IS NULL THEN 'delete' ELSE 'update' END AS op FROM ends)
"""
SURPLUS = """
FROM netted CROSS JOIN change ON change.rec = netted.rec AND change.seq BETWEEN :first AND :last
WHERE (change.seq != netted.first OR netted.op IS NULL) AND change.batch IN (SELECT value FROM json_each(:batches))
"""


class _Batch(NamedTuple):
    """A row of the table batch, as far as merging needs it."""

    number: int
    time: float
    first: int
    last: int
    rows: int


@dataclass(frozen=True)
class Removed:
    """What compaction removes of a collection's log: points, changes and the bytes of their contents before."""

    points: int = 0
    rows: int = 0
    bytes: int = 0

    def __add__(self, other: Removed) -> Removed:
        return Removed(self.points + other.points, self.rows + other.rows, self.bytes + other.bytes)


def _batches(db: Db, collection: int) -> list[_Batch]:
    rows = db.execute(
        "SELECT batch, time, first_seq, last_seq, inserted + updated + deleted FROM batch WHERE collection = ? "
        "ORDER BY last_seq",
        [collection],
    )
    return [_Batch(*row) for row in rows]


def points(db: Db, collection: int) -> list[Point]:
    """The moments of a collection that can be gone back to, oldest first: the end of each of its batches."""
    return [Point(batch.last, batch.time) for batch in _batches(db, collection)]


def points_to_keep(db: Db, collection: int, rule: Retention, now: float) -> frozenset[int]:
    """The seqs of the points that the rule or a consumer that hasn't read so far needs."""
    found = points(db, collection)
    cursors = [row[0] for row in db.execute("SELECT seq FROM consumer WHERE collection = ?", [collection])]
    return kept(found, rule, now) | protected(found, cursors)


def plan(db: Db, collection: int, keep: frozenset[int]) -> Removed:
    """What `compact` would remove."""
    total = Removed()
    for span in _spans(db, collection, keep):
        sql = f"{NETTED} SELECT count(*), coalesce(sum(length(CAST(change.before AS BLOB))), 0) {SURPLUS}"
        total += Removed(len(span) - 1, *db.execute(sql, _range(span)).fetchone())
    return total


def compact(db: Db, collection: int, keep: frozenset[int], *, place: str, token: int) -> Removed:
    """Merge the batches between kept points, in transactions of bounded size: a dead one leaves those before it done.

    Args:
        keep: From `points_to_keep`.
        place: Where the fencing token is from, so that nobody else writes meanwhile.

    Raises:
        StaleLock: Somebody else was given the place; what was merged until now stays.
    """
    total = Removed()
    for span in _spans(db, collection, keep):
        while len(span) > 1:
            merged = list[_Batch]()
            for portion in portions(span, lambda batch: batch.rows, ROWS_AT_ONCE):
                with transaction(db):
                    check_token(db, place, token)
                    batch, removed = _merge(db, collection, portion)
                merged.append(batch)
                total += removed
            span = merged
    return total


def _spans(db: Db, collection: int, keep: frozenset[int]) -> list[list[_Batch]]:
    """The batches that are to become one, where there are several."""
    found = spans(((batch.last, batch) for batch in _batches(db, collection)), keep)
    return [span for span in found if len(span) > 1]


def _range(span: Sequence[_Batch]) -> dict[str, int | str]:
    numbers = msgspec.json.encode([batch.number for batch in span]).decode()
    return {"first": span[0].first, "last": span[-1].last, "batches": numbers}


def _merge(db: Db, collection: int, span: list[_Batch]) -> tuple[_Batch, Removed]:
    """Make one batch of several. Needs a transaction."""
    if len(span) == 1:
        return span[0], Removed()
    where = _range(span)
    db.execute("DROP TABLE IF EXISTS temp.netted")
    db.execute(f"CREATE TEMP TABLE netted AS {NETTED} SELECT * FROM netted", where)
    surplus, size = db.execute(f"SELECT count(*), sum(length(CAST(change.before AS BLOB))) {SURPLUS}", where).fetchone()
    db.execute(f"DELETE FROM change WHERE seq IN (SELECT change.seq {SURPLUS})", where)
    db.execute("UPDATE change SET op = netted.op FROM temp.netted WHERE change.seq = netted.first")
    _forget_the_dead(db, collection)
    # The batch with the most changes lends its number, so that few rows are written again.
    number = max(span, key=lambda batch: batch.rows).number
    db.execute(
        "UPDATE change SET batch = :number WHERE seq BETWEEN :first AND :last AND batch != :number "
        "AND batch IN (SELECT value FROM json_each(:batches))",
        where | {"number": number},
    )
    rows = _replace(db, span, number)
    merged = _Batch(number, span[-1].time, span[0].first, span[-1].last, rows)
    return merged, Removed(len(span) - 1, surplus, size or 0)


def _replace(db: Db, span: list[_Batch], number: int) -> int:
    """Put the merged batch in the place of the others; its number of changes."""
    first, last = span[0], span[-1]
    found = db.execute(
        "SELECT op, count(*) FROM change WHERE seq BETWEEN ? AND ? AND batch = ? GROUP BY op",
        [first.first, last.last, number],
    )
    counts: dict[str, int] = dict(found.fetchall())
    source, run, token = db.execute("SELECT source, run, token FROM batch WHERE batch = ?", [last.number]).fetchone()
    collection = db.execute("SELECT collection FROM batch WHERE batch = ?", [number]).fetchone()[0]
    begins = history.beginning(db, collection) == (first.last, first.time)
    origin = history.REBUILT if begins else history.COMPACTED
    db.executemany("DELETE FROM batch WHERE batch = ?", [(batch.number,) for batch in span])
    db.execute(
        "INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [number, collection, source, run, origin, last.time, first.first, last.last]
        + [counts.get(op, 0) for op in ("insert", "update", "delete")]
        + [token],
    )
    return sum(counts.values())


def _forget_the_dead(db: Db, collection: int) -> None:
    """Delete the tombstones of records that came and went within the span and that the log no longer mentions.

    The newest number stays taken, so that no number is given twice. A batch that was staged before may name one of
    the others: the source's state gets a new version, from which the store sees that it must be staged again.
    """
    gone = db.execute(
        "DELETE FROM record WHERE rec IN (SELECT rec FROM temp.netted WHERE op IS NULL) AND doc IS NULL "
        "AND rec < (SELECT max(rec) FROM record) AND NOT EXISTS (SELECT 1 FROM change WHERE change.rec = record.rec)"
    )
    if gone.rowcount:
        db.execute(
            "UPDATE source_state SET version = version + 1 "
            "WHERE source = (SELECT source FROM collection WHERE collection = ?)",
            [collection],
        )


def shrink(db: Db, path: Path) -> int:
    """Give free space back to the disk when it is much, and when there is room to write the file anew.

    Returns:
        By how many bytes the database's file became smaller.
    """
    pages, free, size = (int(db.execute(f"PRAGMA {name}").fetchone()[0]) for name in _SPACE)
    room = shutil.disk_usage(path.parent).free
    if free * size < FREE_BYTES or free < FREE_SHARE * pages or room < 2 * pages * size:
        return 0
    db.execute("VACUUM")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return (pages - int(db.execute("PRAGMA page_count").fetchone()[0])) * size


_SPACE = ("page_count", "freelist_count", "page_size")
