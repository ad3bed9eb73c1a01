"""Decisions as values: what a guard says, when a retry helps and after what wait, in which order locks are taken."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from autosync.errors import AutoSyncError, Refused
from autosync.settings import Guard

LOCK_ORDER = ("scheduler", "db-write", "git-push", "notify")
LEASE_SECONDS = 60
_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]+)?")
LONGEST_WAIT = 300.0
"""Seconds that a run waits in all because a service asks for it; past them it ends and leaves the rest to the next."""
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


def retries_at_once(error: BaseException) -> bool:
    """Whether a retry may help and nobody asked to wait for a time of their own."""
    return should_retry(error) and isinstance(error, AutoSyncError) and error.retry_after is None


def asked_wait(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds that an HTTP answer asks to wait: Retry-After (seconds or a date), the reset of a spent rate limit.

    Args:
        headers: Names in lower case.
        now: Unix seconds, for an answer that doesn't tell its own time in Date.

    Returns:
        None when it asks for nothing that can be read; the longer one when it asks for both.
    """
    sent = _http_date(headers.get("date", ""))
    clock = now if sent is None else sent
    after, reset = headers.get("retry-after", "").strip(), headers.get("x-ratelimit-reset", "").strip()
    asked = list[float]()
    if _SECONDS.fullmatch(after):
        asked.append(float(after))
    elif (at := _http_date(after)) is not None:
        asked.append(max(at - clock, 0.0))
    if headers.get("x-ratelimit-remaining", "").strip() == "0" and _SECONDS.fullmatch(reset):
        asked.append(max(float(reset) - clock, 0.0))
    return max(asked, default=None)


def _http_date(text: str) -> float | None:
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def wait_before_retry(asked: float, tries: int) -> float:
    """Seconds to wait when somebody asks for a wait: never less than asked, more when tries before this one failed."""
    return max(asked, *retry_delays(tries + 1))


def retry_delays(attempts: int, first: float = 1.0, factor: float = 2.0, most: float = 60.0) -> list[float]:
    """The seconds to wait before each retry: exponential backoff with a ceiling."""
    return [min(first * factor**n, most) for n in range(attempts)]
