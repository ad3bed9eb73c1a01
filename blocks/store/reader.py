"""Read-only access for the dashboard: one connection a thread, keyset pages, queries that stop at their limit.

Rows come as dicts; times are Unix seconds. Nothing here can write: connections are `mode=ro` and `query_only`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from heapq import nlargest
from pathlib import Path
from typing import Any

import msgspec

from blocks.store import history, ledger
from blocks.store.compaction import COMPACTED
from blocks.store.history import Row
from blocks.store.schema import Db, connect, explained

RUN = """SELECT run, source, coalesce(outcome, 'running') AS status, started, ended, scheduled,
  round(ended - started, 4) AS seconds, seq, inserted, updated, deleted, quarantined, commit_sha AS "commit", root,
  error, retries FROM run"""

CHANGE = """SELECT log.seq, batch.time, log.run, log.source, log.collection, log.id, log.op, log.origin, log.before,
  log.after FROM change_log AS log JOIN change USING (seq) JOIN batch USING (batch)"""


@dataclass
class Reader:
    """The database at `path`, which may not exist yet or be replaced by a backup while this reads."""

    path: Path
    _local: threading.local = field(default_factory=threading.local, repr=False)

    def exists(self) -> bool:
        """Whether anything was synced yet."""
        return self.path.exists()

    def rows(self, sql: str, values: list[Any] | tuple[Any, ...] = ()) -> list[Row]:
        """The answer of a query; empty while there is no database."""
        if not self.exists():
            return []
        with explained(self.path):
            return history.rows(self._db(), sql, values)

    def _db(self) -> Db:
        """This thread's connection, opened again when another file took the database's place."""
        stat = self.path.stat()
        file = (stat.st_dev, stat.st_ino)
        if getattr(self._local, "file", None) != file:
            if (old := getattr(self._local, "db", None)) is not None:
                old.close()
            self._local.db, self._local.file = connect(self.path, read_only=True), file
        db: Db = self._local.db
        return db

    def revision(self) -> str:
        """The store's revision, together with which file it counts for; empty while there is none."""
        found = self.rows("SELECT value FROM meta WHERE name = 'revision'")
        return f"{self.path.stat().st_ino:x}.{found[0]['value']}" if found else ""

    def runs(
        self,
        source: str | None = None,
        status: str | None = None,
        since: float | None = None,
        until: float | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> list[Row]:
        """Runs in the order in which they were first noted, newest first; those noted before the run `after`."""
        where, values = _where(
            ("source = ?", source),
            ("coalesce(outcome, 'running') = ?", status),
            ("started >= ?", since),
            ("started < ?", until),
            ("rowid < (SELECT rowid FROM run WHERE run = ?)", after),
        )
        return self.rows(f"{RUN} WHERE {where} ORDER BY rowid DESC LIMIT ?", [*values, limit])

    def run(self, run: str) -> Row | None:
        """One run, or None."""
        return next(iter(self.rows(f"{RUN} WHERE run = ?", [run])), None)

    def newest_run(self, source: str, kind: history.RunKind = "any") -> Row | None:
        """A source's newest run of a kind."""
        if not self.exists():
            return None
        with explained(self.path):
            return history.newest_run(self._db(), source, kind, columns=RUN)

    def stages(self, run: str) -> list[Row]:
        """The stages of a run in order."""
        sql = "SELECT name, state, started, seconds, retries FROM stage WHERE run = ? ORDER BY started, rowid"
        return self.rows(sql, [run])

    def changes(
        self,
        source: str | None = None,
        collection: str | None = None,
        run: str | None = None,
        op: str | None = None,
        since: float | None = None,
        until: float | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Row]:
        """The change log, newest first, with a seq below `before`.

        A collection's batches follow each other in the log, so batches are filtered first and the log is read from
        there until the limit is reached; nothing is sorted. Merged batches of different collections lie between each
        other, so each collection is read apart. The + keeps SQLite from indexing the log.

        Args:
            run: Not the changes of batches that were merged: they belong to several runs.
        """
        counted = {"insert": "inserted", "update": "updated", "delete": "deleted"}.get(op or "", "1")
        where, values = _where(
            ("batch.source = ?", source),
            (f"batch.origin != '{COMPACTED}' AND batch.run = ?", run),
            (f"batch.{counted} > 0 AND +change.op = ?", op),
            ("batch.time >= ?", since),
            ("batch.time < ?", until),
        )
        upto = 1 << 62 if before is None else before
        picked = (
            "SELECT change.seq FROM batch CROSS JOIN change ON change.seq BETWEEN batch.first_seq AND batch.last_seq "
            f"WHERE +change.batch = batch.batch AND batch.collection = ? AND batch.first_seq < ? AND change.seq < ? "
            f"AND {where} ORDER BY batch.batch DESC, change.seq DESC LIMIT ?"
        )
        names, name = _where(("name = ?", collection))
        seqs = [
            row["seq"]
            for one in self.rows(f"SELECT collection FROM collection WHERE {names}", name)
            for row in self.rows(picked, [one["collection"], upto, upto, *values, limit])
        ]
        newest = msgspec.json.encode(nlargest(limit, seqs)).decode()
        return self.rows(f"{CHANGE} WHERE log.seq IN (SELECT value FROM json_each(?)) ORDER BY log.seq DESC", [newest])

    def record(self, collection: str, id: str) -> Row | None:
        """A record with its number and its document, which is None when it was deleted; None for no such record."""
        sql = "SELECT rec, id, doc FROM record WHERE collection = (SELECT collection FROM collection WHERE name = ?)"
        return next(iter(self.rows(f"{sql} AND id = ?", [collection, id])), None)

    def history(self, collection: str, id: str, before: int | None = None, limit: int = 50) -> list[Row]:
        """The changes of a record, newest first, with a seq below `before`."""
        if (record := self.record(collection, id)) is None:
            return []
        picked = "SELECT seq FROM change WHERE rec = ? AND seq < ? ORDER BY seq DESC LIMIT ?"
        upto = 1 << 62 if before is None else before
        return self.rows(f"{CHANGE} WHERE log.seq IN ({picked}) ORDER BY log.seq DESC", [record["rec"], upto, limit])

    def run_rows(self, since: float) -> list[Row]:
        """Runs that started since a time, oldest first, with what analytics counts."""
        return self.rows(
            "SELECT source, outcome, started, ended, scheduled, retries, inserted, updated, deleted, quarantined "
            "FROM run WHERE started >= ? ORDER BY started",
            [since],
        )

    def refusals(self, limit: int = 100) -> list[Row]:
        """Open quarantine rows by source and reason, most rows first."""
        return self.rows(
            "SELECT source, reason, count(*) AS rows, max(last_seen) AS last_seen, max(id) AS id FROM quarantine "
            "WHERE state = 'open' GROUP BY source, reason ORDER BY count(*) DESC LIMIT ?",
            [limit],
        )

    def quarantined(self) -> dict[str, int]:
        """How many quarantine rows are open, by source."""
        found = self.rows("SELECT source, count(*) AS rows FROM quarantine WHERE state = 'open' GROUP BY source")
        return {row["source"]: row["rows"] for row in found}

    def records(self) -> dict[str, int]:
        """How many live records each collection has."""
        return {row["name"]: row["records"] for row in self.rows("SELECT name, records FROM collection")}

    def behind(self) -> dict[str, dict[str, int]]:
        """collection -> consumer -> changes that it has not read yet, where there are any."""
        found: dict[str, dict[str, int]] = {}
        for row in self._cursors():
            found.setdefault(row["collection"], {})[row["consumer"]] = row["newest"] - row["seq"]
        return {name: {c: n for c, n in consumers.items() if n > 0} for name, consumers in found.items()}

    def _cursors(self) -> list[Row]:
        if not self.exists():
            return []
        with explained(self.path):
            return history.cursors(self._db())

    def locks(self) -> list[Row]:
        """Places that are held: name, run, since."""
        return self.rows("SELECT name, run, since FROM fence WHERE released IS NULL ORDER BY since")

    def waiting(self) -> int:
        """How many notices are not delivered yet."""
        if not self.exists():
            return 0
        with explained(self.path):
            return ledger.waiting(self._db())

    def notice(self, key: str) -> str | None:
        """The text of a notice as JSON, by its key."""
        found = self.rows("SELECT body FROM outbox WHERE key = ?", [key])
        return str(found[0]["body"]) if found else None


def _where(*conditions: tuple[str, Any]) -> tuple[str, list[Any]]:
    """The conditions whose value is given, as SQL with its values."""
    given = [(sql, value) for sql, value in conditions if value is not None]
    return " AND ".join(["1 = 1", *(sql for sql, _ in given)]), [value for _, value in given]
