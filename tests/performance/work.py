"""One measurement in a process of its own: `python -m tests.performance.work floor|stats|upsert_all|CASE FOLDER INPUT`.

Prints JSON: seconds in all and by part, counted after the imports, and the process's own peak memory.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

FLAT = "id name amount count active tag1 tag2 city zip lat lon updated note v".split()


def _documents(source: Path) -> Iterator[dict[str, Any]]:
    if source.is_dir():
        for path in sorted(source.iterdir()):
            yield from orjson.loads(path.read_bytes())
    else:
        with source.open("rb") as handle:
            yield from map(orjson.loads, handle)


def _flat(source: Path) -> Iterator[tuple[Any, ...]]:
    for r in _documents(source):
        a = r["address"]
        yield (
            r["id"],
            r["name"],
            r["amount"],
            r["count"],
            r["active"],
            r["tags"][0],
            r["tags"][1],
            a["city"],
            a["zip"],
            a["lat"],
            a["lon"],
            r["updated"],
            r["note"],
            r["v"],
        )


def floor(folder: Path, source: Path) -> dict[str, Any]:
    """The floor: `orjson.loads` of every line or file, `executemany` of 14 columns in one WAL transaction."""
    path = folder / "floor.db"
    for end in ("", "-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    clock = time.perf_counter()
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"CREATE TABLE t ({', '.join(FLAT)}, PRIMARY KEY (id))")
    db.execute("BEGIN")
    db.executemany(f"INSERT INTO t VALUES ({', '.join('?' * 14)})", _flat(source))
    db.execute("COMMIT")
    db.close()
    return {"parts": {"floor": time.perf_counter() - clock}}


def stats(folder: Path, source: Path) -> dict[str, Any]:
    """What looking at a folder costs at least: its listing, and a stat of every file."""
    clock = time.perf_counter()
    with os.scandir(source) as entries:
        for entry in entries:
            os.stat(entry.path)  # noqa: PTH116  # what is measured
    return {"parts": {"stats": time.perf_counter() - clock}}


def upsert_all(folder: Path, source: Path) -> dict[str, Any]:
    """sqlite-utils' upsert_all of the rows, as people use it today, into the table of the run before."""
    from sqlite_utils import Database

    clock = time.perf_counter()
    with source.open("rb") as handle:
        Database(folder / "upsert.db").table("t").upsert_all((json.loads(line) for line in handle), pk="id")
    return {"parts": {"upsert_all": time.perf_counter() - clock}}


def case(folder: Path, name: str) -> dict[str, Any]:
    """Ingest, store and mirror of the source as it now is."""
    from autosync.settings import Home
    from blocks.store import ledger
    from flows.operations.ingest import ingest
    from flows.operations.mirror import mirror
    from flows.operations.store import store
    from flows.workspace import Workspace

    workspace = Workspace(Home(folder / "home"), folder / "autosync.toml")
    run = f"run-{name}-{time.time()}"
    clock = time.perf_counter()
    found = ingest(workspace, "things", run)
    parts = {"ingest": time.perf_counter() - clock}
    if found.batch:
        with workspace.database() as db:
            token = ledger.grant(db, "source things", run, now=time.time())
        clock = time.perf_counter()
        store(workspace, "things", found.batch, run, token)
        parts["store"] = time.perf_counter() - clock
        clock = time.perf_counter()
        mirror(workspace, "things")
        parts["mirror"] = time.perf_counter() - clock
    counts = found.counts
    return {"parts": parts, "counts": [counts.inserted, counts.updated, counts.deleted, counts.quarantined]}


def own_peak() -> int:
    """The peak of this process alone, in bytes, counted by the kernel since the program began."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def main() -> None:
    """Measure one thing and print it."""
    what, folder, source = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    alone = {"floor": floor, "stats": stats, "upsert_all": upsert_all}
    found = alone[what](folder, source) if what in alone else case(folder, what)
    found["seconds"] = sum(found["parts"].values())
    found["own_mb"] = own_peak() / 1e6
    print(json.dumps(found))


if __name__ == "__main__":
    main()
