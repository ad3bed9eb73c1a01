"""The values that a report is made of: one set for Markdown, PDF and charts. Times are Unix seconds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from autosync.attention import SourceFacts, Status

if TYPE_CHECKING:
    from analytics.feedback_analyzer import Feedback
    from analytics.kpi_tracker import Report

__all__ = [
    "Anomaly",
    "Change",
    "Commit",
    "Day",
    "Failure",
    "LastRun",
    "Quarantined",
    "ReportValues",
    "Status",
    "per_day",
]

DAY = 86_400
MOST_DAYS = 366


@dataclass(frozen=True)
class Failure:
    """A run that failed or was refused. An empty `todo` is taken from the error's own `What to do`.

    state: `open` while the source has not succeeded since, `retrying` when a retry is on its way.
    """

    source: str
    run: str
    time: float
    error: str
    todo: str = ""
    outcome: Literal["failed", "refused"] = "failed"
    state: Literal["open", "retrying", "resolved"] = "open"


@dataclass(frozen=True)
class LastRun:
    """A source's newest run; `outcome` is None while it runs."""

    source: str
    started: float
    outcome: str | None
    seconds: float | None = None


@dataclass(frozen=True)
class Day:
    """One day of runs (UTC): how many ended how, p50 and p95 of their seconds, and what they changed."""

    start: float
    changed: int = 0
    unchanged: int = 0
    refused: int = 0
    failed: int = 0
    p50: float | None = None
    p95: float | None = None
    inserted: int = 0
    updated: int = 0
    deleted: int = 0

    @property
    def runs(self) -> int:
        """All finished runs."""
        return self.changed + self.unchanged + self.refused + self.failed

    @property
    def bad(self) -> int:
        """Runs that failed or were refused."""
        return self.refused + self.failed


@dataclass(frozen=True)
class Change:
    """A row of the change log; `what` says in a few words what became different."""

    seq: int
    time: float
    collection: str
    id: str
    op: str
    what: str = ""


@dataclass(frozen=True)
class Commit:
    """A commit that a push made."""

    sha: str
    time: float
    source: str
    subject: str = ""


@dataclass(frozen=True)
class Quarantined:
    """Open rows of one source that were refused for one reason, with the id of one of them."""

    source: str
    reason: str
    rows: int
    last_seen: float
    id: str = ""


@dataclass(frozen=True)
class Anomaly:
    """A value that the detector flagged, with what it expected when that is known."""

    time: float
    series: str
    value: float
    expected: tuple[float, float] | None = None
    score: float = 1.0


@dataclass(frozen=True)
class ReportValues:
    """Everything a report says. Lists are newest first, `days` oldest first.

    states: how each configured source stands. waiting: notices that were not delivered yet.
    limits: a source's (warn, error) limits in seconds, None for one that is not set.
    title: empty for the language's own.
    """

    generated: float
    since: float
    until: float
    kpis: Report
    title: str = ""
    feedback: Feedback | None = None
    days: tuple[Day, ...] = ()
    states: tuple[SourceFacts, ...] = ()
    waiting: int = 0
    last_runs: tuple[LastRun, ...] = ()
    failures: tuple[Failure, ...] = ()
    changes: tuple[Change, ...] = ()
    commits: tuple[Commit, ...] = ()
    quarantine: tuple[Quarantined, ...] = ()
    anomalies: tuple[Anomaly, ...] = ()
    limits: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)


def per_day(runs: Iterable[Mapping[str, Any]], since: float, until: float) -> tuple[Day, ...]:
    """The days of (since, until], oldest first, without gaps; from the first run on, and 366 at most.

    runs: started, ended, outcome, inserted, updated, deleted; what is not over is left out.
    """
    last = int(until // DAY)
    days: dict[int, list[Mapping[str, Any]]] = {}
    for run in runs:
        started, ended = (_number(run[name]) for name in ("started", "ended"))
        if math.isfinite(started) and math.isfinite(ended) and since <= started <= until:
            days.setdefault(int(started // DAY), []).append(run)
    if not days:
        return ()
    first = max(min(days), last - MOST_DAYS + 1)
    return tuple(_day(number, days.get(number, [])) for number in range(first, last + 1))


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _day(number: int, runs: list[Mapping[str, Any]]) -> Day:
    lengths = sorted(float(run["ended"]) - float(run["started"]) for run in runs)
    outcomes = [str(run["outcome"]) for run in runs]
    ends = {name: outcomes.count(name) for name in ("changed", "unchanged", "refused", "failed")}
    sums = {name: sum(int(run[name] or 0) for run in runs) for name in ("inserted", "updated", "deleted")}
    day = Day(float(number * DAY), **ends, **sums)
    return replace(day, p50=_quantile(lengths, 0.5), p95=_quantile(lengths, 0.95)) if lengths else day


def _quantile(ascending: list[float], q: float) -> float:
    place = q * (len(ascending) - 1)
    low = int(place)
    high = min(low + 1, len(ascending) - 1)
    return ascending[low] + (ascending[high] - ascending[low]) * (place - low)
