"""Opening the database, its tables, and the view of each collection for people who query."""

from __future__ import annotations

import re
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Concatenate, ParamSpec, Self, TypeVar
from urllib.parse import quote

from autosync.errors import StoreBusy, StoreError
from autosync.shards import MIRROR_BITS

SCHEMA_VERSION = 1
MAX_VIEW_COLUMNS = 500
CACHE_KB, WRITE_CACHE_KB = 8 << 10, 32 << 10

TABLES = """
CREATE TABLE collection (
  collection INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, source TEXT, key TEXT NOT NULL,
  records INTEGER NOT NULL DEFAULT 0, fields TEXT NOT NULL DEFAULT '[]');
CREATE TABLE record (
  rec INTEGER PRIMARY KEY, collection INTEGER NOT NULL, id TEXT NOT NULL,
  doc TEXT, level INTEGER NOT NULL);
CREATE TABLE change (
  seq INTEGER PRIMARY KEY, batch INTEGER NOT NULL, rec INTEGER NOT NULL, op TEXT NOT NULL, before TEXT);
CREATE TABLE batch (
  batch INTEGER PRIMARY KEY, collection INTEGER NOT NULL, source TEXT NOT NULL, run TEXT NOT NULL,
  origin TEXT NOT NULL, time REAL NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL,
  inserted INTEGER NOT NULL, updated INTEGER NOT NULL, deleted INTEGER NOT NULL, token INTEGER NOT NULL);
CREATE TABLE source_state (
  source TEXT PRIMARY KEY, version INTEGER NOT NULL, rules TEXT NOT NULL, fingerprint TEXT NOT NULL,
  digest TEXT NOT NULL, seed INTEGER NOT NULL, time REAL NOT NULL);
CREATE TABLE seen (source TEXT NOT NULL, bucket INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (source, bucket))
  WITHOUT ROWID;
CREATE TABLE consumer (
  consumer TEXT NOT NULL, collection INTEGER NOT NULL, seq INTEGER NOT NULL, time REAL NOT NULL, info TEXT NOT NULL,
  PRIMARY KEY (consumer, collection)) WITHOUT ROWID;
CREATE TABLE fence (
  name TEXT PRIMARY KEY, token INTEGER NOT NULL, run TEXT NOT NULL, since REAL NOT NULL, released REAL);
CREATE TABLE run (
  run TEXT PRIMARY KEY, source TEXT NOT NULL, started REAL NOT NULL, ended REAL, scheduled REAL, outcome TEXT,
  seq INTEGER, inserted INTEGER NOT NULL DEFAULT 0, updated INTEGER NOT NULL DEFAULT 0,
  deleted INTEGER NOT NULL DEFAULT 0, quarantined INTEGER NOT NULL DEFAULT 0, commit_sha TEXT, root TEXT,
  error TEXT, retries INTEGER NOT NULL DEFAULT 0);
CREATE INDEX run_source ON run (source, started);
CREATE TABLE stage (
  run TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL, started REAL NOT NULL, seconds REAL NOT NULL,
  retries INTEGER NOT NULL, PRIMARY KEY (run, name));
CREATE TABLE outbox (
  notice INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, created REAL NOT NULL, body TEXT NOT NULL,
  claimed REAL, delivered REAL, channel TEXT, attempts INTEGER NOT NULL DEFAULT 0, error TEXT);
CREATE INDEX outbox_open ON outbox (notice) WHERE delivered IS NULL;
CREATE TABLE quarantine (
  item INTEGER PRIMARY KEY, source TEXT NOT NULL, digest BLOB NOT NULL, run TEXT NOT NULL, first_seen REAL NOT NULL,
  last_seen REAL NOT NULL, place TEXT NOT NULL, id TEXT, reason TEXT NOT NULL, raw BLOB NOT NULL,
  state TEXT NOT NULL DEFAULT 'open', UNIQUE (source, digest));
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('revision', 0);
"""

# Newer than the first databases: made when one is opened.
LATER = (
    "CREATE TABLE IF NOT EXISTS seen_part (source TEXT NOT NULL, name TEXT NOT NULL, size INTEGER, mtime INTEGER, "
    "inode INTEGER, digest TEXT NOT NULL, rows BLOB NOT NULL, PRIMARY KEY (source, name))",
    # No collection's view can have this name: theirs begin with a letter.
    "CREATE TABLE IF NOT EXISTS _lease (run TEXT PRIMARY KEY, name TEXT NOT NULL, since REAL NOT NULL, lease TEXT, "
    "released REAL, pid INTEGER NOT NULL, process_start TEXT NOT NULL, boot TEXT NOT NULL)",
    f"CREATE INDEX IF NOT EXISTS record_mirror ON record (collection, id) WHERE level >= {MIRROR_BITS}",
)

INDEXES = """
CREATE UNIQUE INDEX IF NOT EXISTS record_id ON record (collection, id);
CREATE INDEX IF NOT EXISTS record_boundary ON record (collection, id) WHERE level >= 4;
CREATE INDEX IF NOT EXISTS change_rec ON change (rec, seq);
"""

INDEX_NAMES = ("record_id", "record_boundary", "change_rec")

CHANGE_LOG = """
SELECT change.seq, batch.run, batch.source, collection.name AS collection, record.id, change.op, change.before,
  CASE change.op WHEN 'delete' THEN NULL ELSE coalesce(
    (SELECT later.before FROM change AS later WHERE later.rec = change.rec AND later.seq > change.seq
     ORDER BY later.seq LIMIT 1), record.doc) END AS after,
  batch.origin, strftime('%Y-%m-%dT%H:%M:%fZ', batch.time, 'unixepoch') AS time
FROM change JOIN batch USING (batch) JOIN record USING (rec)
JOIN collection ON collection.collection = record.collection
"""

Db = sqlite3.Connection
P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def explained(path: Path | str = "the database") -> Iterator[None]:
    """Turn SQLite's errors into ours, with what to do."""
    kept = "everything written before; the transaction was undone"
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "locked" in text or "busy" in text:
            raise StoreBusy(f"another program holds the database: {text}", where=str(path), kept=kept) from None
        todo = {"full": "make room on the disk, then run again", "readonly": "make the folder writable"}
        todo |= {"unable to open": "make the folder writable", "disk I/O": "check the disk, then run again"}
        help_text = next((advice for sign, advice in todo.items() if sign in text), "run: autosync verify")
        raise StoreError(f"the database can't be written: {text}", where=str(path), kept=kept, todo=help_text) from None
    except sqlite3.DatabaseError as error:
        raise StoreError(
            f"the database is damaged or no database: {error}",
            where=str(path),
            kept="mirror and repository",
            todo="run: autosync rebuild; it keeps the file aside and makes the store anew from the mirror",
        ) from None


def connect(path: Path, *, read_only: bool = False) -> Db:
    """Open the store, creating it when it doesn't exist (unless `read_only`).

    Raises:
        StoreError: The folder or the file can't be written, the file is no database, or a newer AutoSync made it.
    """
    with explained(path):
        if read_only:
            db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None, timeout=30)
            db.execute("PRAGMA query_only = 1")
        else:
            _make_folder(path.parent)
            db = sqlite3.connect(path, isolation_level=None, timeout=30)
        db.execute(f"PRAGMA cache_size = -{CACHE_KB}")
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        if version > SCHEMA_VERSION:
            raise StoreError("a newer AutoSync wrote this database", where=str(path), todo="update AutoSync")
        if version == 0 and not read_only:
            _create(db)
        if not read_only:
            db.execute("PRAGMA synchronous = FULL")
            for statement in LATER:
                db.execute(statement)
            _set_journal_mode(db, "WAL")  # again, should a first load have died (see first_load)
    return db


class Readers:
    """Connections that read what a connection's database holds, for threads; each is lent to one at a time."""

    def __init__(self, db: Db, count: int) -> None:
        path = db.execute("PRAGMA database_list").fetchone()[2]
        self._free, self._count = SimpleQueue[Db](), count
        for _ in range(count):
            reader = sqlite3.connect(
                f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None, timeout=30, check_same_thread=False
            )
            self._free.put(reader)

    def lend(self, use: Callable[Concatenate[Db, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function with a connection that nobody else uses meanwhile."""
        reader = self._free.get()
        try:
            return use(reader, *args, **kwargs)
        finally:
            self._free.put(reader)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for _ in range(self._count):
            self._free.get().close()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"the folder for the database can't be made: {error.strerror}",
            where=str(folder),
            todo="make it writable, or choose another with --home",
        ) from None


def _create(db: Db) -> None:
    database = _sqlite_utils().Database(db)
    db.execute("PRAGMA journal_mode = WAL")
    with transaction(db, revise=False):
        if int(db.execute("PRAGMA user_version").fetchone()[0]) == SCHEMA_VERSION:
            return
        for statement in (TABLES + INDEXES).split(";"):
            if statement.strip():
                db.execute(statement)
        database.create_view("change_log", CHANGE_LOG)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _sqlite_utils() -> ModuleType:
    """sqlite-utils, without the 0.3 s for pandas while nobody else may be importing it: no frames come here."""
    if not {"sqlite_utils", "pandas"} & sys.modules.keys() and threading.active_count() == 1:
        sys.modules["pandas"] = None  # type: ignore[assignment]  # as if it were not installed
        try:
            return import_module("sqlite_utils")
        finally:
            del sys.modules["pandas"]
    return import_module("sqlite_utils")


@contextmanager
def transaction(db: Db, *, revise: bool = True) -> Iterator[None]:
    """One write transaction: everything or nothing. Readers see the state before until it ends.

    `revise` counts the store's revision up, from which readers see that something changed.
    """
    db.execute("BEGIN IMMEDIATE")
    with db:  # commits, or rolls back after an error
        yield
        if revise:
            db.execute("UPDATE meta SET value = value + 1 WHERE name = 'revision'")


@contextmanager
def snapshot(db: Db) -> Iterator[None]:
    """Let several queries see one state of the store."""
    db.execute("BEGIN")
    with db:
        yield


@contextmanager
def first_load(db: Db) -> Iterator[None]:
    """Write new pages once instead of to the write-ahead log and then to the file, while nobody else has it open.

    As safe as ever: a rollback journal keeps the few pages that were there before.
    """
    _set_journal_mode(db, "DELETE")
    try:
        yield
    finally:
        _set_journal_mode(db, "WAL")


def _set_journal_mode(db: Db, mode: str) -> None:
    """Change the journal mode; while somebody else has the store open it stays, and nobody waits."""
    patience = int(db.execute("PRAGMA busy_timeout").fetchone()[0])
    db.execute("PRAGMA busy_timeout = 0")
    with suppress(sqlite3.OperationalError):
        db.execute(f"PRAGMA journal_mode = {mode}")
    db.execute(f"PRAGMA busy_timeout = {patience}")


def damage(db: Db, *, most: int = 1, quick: bool = False) -> list[str]:
    """What SQLite finds wrong with a database's file, at most so many; none when it is whole.

    Args:
        quick: Without comparing indexes with their tables.
    """
    look = "quick_check" if quick else "integrity_check"
    return [text for (text,) in db.execute(f"PRAGMA {look}({most})") if text != "ok"]


def column_name(path: tuple[str, ...]) -> str:
    """A column's name from a field's path: letters, digits and _ of any script; the parts joined with _."""
    return re.sub(r"\W", "_", "_".join(path)) or "_"


def create_view(db: Db, collection: int, name: str, fields: list[tuple[str, ...]]) -> None:
    """Make the view named like the collection: its id and one column a field, nested objects one level flattened."""
    columns, taken = ["id AS _id"], {"_id", "_record"}
    for path in fields[:MAX_VIEW_COLUMNS]:
        if "\0" in "".join(path):  # SQL can't name it; it is in _record
            continue
        column = column_name(path)
        while column.lower() in taken:
            column += "_"
        taken.add(column.lower())
        inner = "".join('."' + part.replace('"', '\\"') + '"' for part in path).replace("'", "''")
        columns.append(f"json_extract(doc, '${inner}') AS \"{column}\"")
    columns.append("doc AS _record")
    sql = f"SELECT {', '.join(columns)} FROM record WHERE collection = {collection} AND doc IS NOT NULL"
    _sqlite_utils().Database(db).create_view(name, sql, replace=True)
