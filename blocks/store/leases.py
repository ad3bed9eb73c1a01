"""Leases on concurrency limits, and the processes that hold or await them.

The next run frees what a dead one left by these rows.

A row is written before a lease is asked for and deleted after it was released. Its lease id lets any later run
release it, whichever server keeps the lease, without waiting for it to expire.
"""

from __future__ import annotations

from dataclasses import dataclass

from blocks.processes import ProcessId
from blocks.store.schema import Db, transaction

__all__ = ["LeaseHolder", "add_waiter", "adopt", "holders", "mark_released", "note_lease", "remove"]


@dataclass(frozen=True)
class LeaseHolder:
    """A run that holds a lease or awaits one.

    Attributes:
        run: The flow run's id.
        name: What it locks.
        since: Unix seconds when it began to wait, then when it was granted.
        lease: The lease's id; None while it waits.
        released: Unix seconds when it was done, though the server could not be told; None before.
        process: Where it runs.
    """

    run: str
    name: str
    since: float
    lease: str | None
    released: float | None
    process: ProcessId


def add_waiter(db: Db, run: str, name: str, process: ProcessId, *, now: float) -> None:
    """Note that a run is about to ask for a lease.

    A run may ask again; what its first lease was, when the server could not be told of its release, stays to be freed.
    """
    with transaction(db, revise=False):
        db.execute(
            "UPDATE _lease SET run = run || ' until ' || coalesce(released, since) WHERE run = ? AND lease IS NOT NULL",
            [run],
        )
        db.execute(
            "INSERT OR REPLACE INTO _lease (run, name, since, pid, process_start, boot) VALUES (?, ?, ?, ?, ?, ?)",
            [run, name, now, process.pid, process.start, process.boot],
        )


def note_lease(db: Db, run: str, lease: str, *, now: float) -> None:
    """Note the lease that a run was granted."""
    with transaction(db, revise=False):
        db.execute("UPDATE _lease SET lease = ?, since = ? WHERE run = ?", [lease, now, run])


def mark_released(db: Db, run: str, *, now: float) -> None:
    """Note that a run is done with its lease although the server could not be told: anybody may release it."""
    with transaction(db, revise=False):
        db.execute("UPDATE _lease SET released = ? WHERE run = ?", [now, run])


def remove(db: Db, run: str) -> None:
    """Forget a run whose lease was released."""
    with transaction(db, revise=False):
        db.execute("DELETE FROM _lease WHERE run = ?", [run])


def adopt(db: Db, holder: LeaseHolder, process: ProcessId) -> bool:
    """Make a process the only one that may release an abandoned lease. False when another one was faster."""
    with transaction(db, revise=False):
        updated = db.execute(
            "UPDATE _lease SET pid = ?, process_start = ?, boot = ?, released = NULL "
            "WHERE run = ? AND pid = ? AND process_start = ? AND released IS ?",
            [process.pid, process.start, process.boot, holder.run, holder.process.pid, holder.process.start]
            + [holder.released],
        )
    return updated.rowcount == 1


def holders(db: Db) -> list[LeaseHolder]:
    """Every run that holds or awaits a lease, oldest first."""
    rows = db.execute(
        "SELECT run, name, since, lease, released, pid, process_start, boot FROM _lease ORDER BY since, run"
    )
    return [
        LeaseHolder(run, name, since, lease, released, ProcessId(*process))
        for run, name, since, lease, released, *process in rows
    ]
