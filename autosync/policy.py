"""Decisions as values: what a guard says, when a retry helps, in which order locks are taken."""

from __future__ import annotations

from dataclasses import dataclass

from autosync.errors import AutoSyncError, Refused
from autosync.settings import Guard

LOCK_ORDER = ("scheduler", "db-write", "git-push", "notify")
LEASE_SECONDS = 60
LOCK_LIMITS = {f"autosync-{name}": 1 for name in LOCK_ORDER}


@dataclass(frozen=True)
class Counts:
    """What a batch does to a collection, in records."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    quarantined: int = 0
    unchanged: int = 0

    @property
    def changed(self) -> int:
        """Inserts, updates and deletes together."""
        return self.inserted + self.updated + self.deleted

    def __str__(self) -> str:
        return f"+{self.inserted} ~{self.updated} -{self.deleted}"


def lock_names(wanted: tuple[str, ...] = LOCK_ORDER) -> list[str]:
    """The concurrency limits to take, always in the one order that excludes deadlock."""
    places = [LOCK_ORDER.index(name) for name in wanted]
    if places != sorted(places):
        raise AssertionError(f"locks must be taken in the order {LOCK_ORDER}, not {wanted}")
    return [f"autosync-{name}" for name in wanted]


def guard_input(rows: int, refused: int, guard: Guard, *, source: str, accept: str, code: str) -> None:
    """Refuse an input that came back empty or mostly broken.

    Args:
        rows: Rows that the input has, refused ones included.
        refused: Rows that failed their checks.
        accept: The code that the user gave to let this very input pass.
        code: This input's code.

    Raises:
        Refused: The input is empty, or more rows fail than the guard allows.
    """
    if accept == code:
        return
    if rows == 0:
        raise Refused(
            f"source {source!r} came back empty",
            kept="every record of the collection",
            todo=f"check the source; if it is right that all records go, run: autosync run {source} --accept {code}",
        )
    if refused > guard.max_refuse * rows:
        raise Refused(
            f"{refused:,} of {rows:,} rows of source {source!r} fail their checks",
            kept="the collection as it was; the rows are in quarantine",
            todo=f"look at: autosync quarantine list; fix the source or its checks, or run: autosync run {source} "
            f"--accept {code}",
        )


def guard_deletes(
    deleted: int, before: int, guard: Guard, *, source: str, accept: str, code: str, again: str = ""
) -> None:
    """Refuse a batch that deletes a larger share of the collection than its guard allows.

    Args:
        again: The command that makes this batch again; `autosync run` when empty.

    Raises:
        Refused: With the numbers, and the command that lets this very batch pass.
    """
    if accept == code or not before or deleted <= guard.max_delete * before:
        return
    raise Refused(
        f"the run would delete {deleted:,} of {before:,} records ({deleted / before:.0%}); "
        f"source {source!r} may delete {guard.max_delete:.0%}",
        kept="every record of the collection",
        todo=f"if it is right, run: {again} --accept {code}"
        if again
        else f"see what would go: autosync plan {source}; if it is right, run: autosync run {source} --accept {code}",
    )


def should_retry(error: BaseException) -> bool:
    """Whether the same call may succeed later without anybody changing anything."""
    return isinstance(error, AutoSyncError) and error.retryable


def retry_delays(attempts: int, first: float = 1.0, factor: float = 2.0, most: float = 60.0) -> list[float]:
    """The seconds to wait before each retry: exponential backoff with a ceiling."""
    return [min(first * factor**n, most) for n in range(attempts)]
