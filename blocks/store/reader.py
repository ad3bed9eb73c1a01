"""Read-only access for the dashboard: one connection a thread, keyset pages, queries that stop at their limit.

Rows come as dicts; times are Unix seconds. Nothing here can write: connections are `mode=ro` and `query_only`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

from blocks.store import history, ledger
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
        where, values = history.conditions(
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

    def changes(self, *, limit: int = 50, **which: Unpack[history.ChangeFilter]) -> list[Row]:
        """The change log, newest first; see `history.changes`."""
        if not self.exists():
            return []
        with explained(self.path):
            return history.changes(self._db(), limit=limit, columns=CHANGE, **which)

    def record(self, collection: str, id: str) -> Row | None:
        """A record with its number and its document, which is None when it was deleted; None for no such record."""
        sql = "SELECT rec, id, doc FROM record WHERE collection = (SELECT collection FROM collection WHERE name = ?)"
        return next(iter(self.rows(f"{sql} AND id = ?", [collection, id])), None)

    def history(self, collection: str, id: str, before: int | None = None, limit: int = 50) -> list[Row]:
        """The changes of a record, newest first, with a seq below `before`."""
        return self.changes(collection=collection, id=id, before=before, limit=limit)

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
