"""The store as a copy of a collection: its change log has the state after every change, unless compaction merged it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec

from autosync.copies import proof_of, too_old
from autosync.ports import PointInTime, Proof, Replaced
from autosync.suggestions import unknown_name
from blocks.store import batches, history, ledger
from blocks.store.schema import Db

BEFORE_ALL = PointInTime(0, -math.inf)


class _Batch(NamedTuple):
    """A batch as far as its points tell; `single` when every seq in it is one."""

    first: int
    last: int
    time: float
    single: bool
    rebuilt: bool


@dataclass(frozen=True)
class StoreCopy:
    """A collection in the store; `database` opens it for reading."""

    database: Callable[[], AbstractContextManager[Db]]
    collection: str

    @property
    def key(self) -> list[str]:
        """The JSON pointers of its key."""
        with self.database() as db:
            return msgspec.json.decode(_collection(db, self.collection)["key"], type=list[str])

    def points(self) -> Iterator[PointInTime]:
        """The end of every batch, and every seq in one that holds all its changes; the empty state before the first."""
        with self.database() as db:
            number = batches.collection_id(db, self.collection)
            log = [] if number is None else _batches(db, number)
        for batch in log:
            yield PointInTime(batch.last, batch.time)
            if batch.single:
                yield from (PointInTime(seq, batch.time) for seq in range(batch.last - 1, batch.first - 1, -1))
        if number is not None and not (log and log[-1].rebuilt):
            yield BEFORE_ALL

    def at(self, moment: int | float | None) -> PointInTime:
        """The state at a moment, with the seq that was asked for unless it lies inside a merged batch."""
        with self.database() as db:
            row = _collection(db, self.collection)
            number, newest = row["collection"], ledger.newest_seq(db, row["collection"])
            wanted = newest if moment is None else moment
            wanted = min(wanted, newest) if isinstance(wanted, int) else history.seq_at(db, number, wanted)
            seq, begins = history.kept_seq(db, number, wanted), history.beginning(db, number)
            if begins and seq < begins[0]:
                raise too_old(f"the database's history of {self.collection!r}", *begins)
            return PointInTime(seq, _time(db, number, seq), records=row["records"] if seq == newest else None)

    def rows(self, point: PointInTime) -> Iterator[tuple[str, bytes]]:
        """The records at a point, in one query."""
        with self.database() as db:
            yield from history.as_of(db, _collection(db, self.collection)["collection"], point.seq)

    def replaced(self) -> Iterator[Replaced]:
        """What each batch replaced."""
        with self.database() as db:
            number = _collection(db, self.collection)["collection"]
            log = _batches(db, number)
            ends = [PointInTime(batch.last, batch.time) for batch in log]
            if not (log and log[-1].rebuilt):
                ends.append(BEFORE_ALL)
            for after, before in pairwise(ends):
                changes = history.changes_since(db, number, before.seq, after.seq)
                yield Replaced(before, {id: line for id, (_, line) in changes.items()}, proven=True)

    def prove(self, point: PointInTime | None = None) -> Proof | None:
        """The root of the records at a point, or of the live ones."""
        if point is not None:
            rows = list(self.rows(point))
            return proof_of(rows, len(rows), point.seq)
        with self.database() as db:
            number = batches.collection_id(db, self.collection)
            if number is None:
                return None
            records = batches.record_count(db, self.collection)
            return proof_of(batches.read_rows(db, number), records, ledger.newest_seq(db, number))


def _collection(db: Db, name: str) -> dict[str, Any]:
    rows = {row["name"]: row for row in history.collections(db)}
    if name not in rows:
        raise unknown_name("collection", name, rows)
    return rows[name]


def _batches(db: Db, collection: int) -> list[_Batch]:
    """The batches of a collection, newest first."""
    rows = db.execute(
        "SELECT first_seq, last_seq, time, inserted + updated + deleted, origin FROM batch WHERE collection = ? "
        "ORDER BY last_seq DESC",
        [collection],
    )
    return [
        _Batch(first, last, time, changes == last - first + 1 and origin != history.REBUILT, origin == history.REBUILT)
        for first, last, time, changes, origin in rows
    ]


def _time(db: Db, collection: int, seq: int) -> float:
    """When the state at a seq was stored."""
    row = db.execute(
        "SELECT time FROM batch WHERE collection = ? AND first_seq <= ? ORDER BY last_seq DESC LIMIT 1",
        [collection, seq],
    ).fetchone()
    return float(row[0]) if row else BEFORE_ALL.time
