"""What needs attention, judged once for report, pages, API, status and health. Ages are in seconds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

Status = Literal["ok", "unknown", "warning", "error"]
Freshness = Literal["fresh", "warn", "error", "unknown"]

ORDER: tuple[Status, ...] = ("ok", "unknown", "warning", "error")
GOOD, BAD = ("changed", "unchanged"), ("failed", "refused")
LONG_RUN = 6 * 3600.0


@dataclass(frozen=True)
class SourceFacts:
    """How a source stands at a moment.

    Attributes:
        freshness: Of its newest success against its limits.
        success_age: Since that success ended; None when it never succeeded.
        finished: Whether a run of it ever ended.
        error: What its newest finished run ended with, when that failed or was refused.
        running_age: Since its newest run began, while that goes on.
        quarantined: Its open quarantine rows.
    """

    source: str
    freshness: Freshness = "unknown"
    success_age: float | None = None
    finished: bool = False
    error: str | None = None
    running_age: float | None = None
    quarantined: int = 0


class Concern(NamedTuple):
    """What is wrong with a source's runs, and how bad it is."""

    kind: Literal["failing", "late", "long run"]
    status: Status


def freshness(age: float | None, warn_after: float | None, error_after: float | None) -> Freshness:
    """The age of the newest success against limits, of which either may be None; unknown without a success."""
    if age is None:
        return "unknown"
    if error_after is not None and age > error_after:
        return "error"
    return "warn" if warn_after is not None and age > warn_after else "fresh"


def concerns(facts: SourceFacts) -> list[Concern]:
    """What is wrong with a source's runs, the worst first. A failure that is being tried again is a warning, and
    hides a lateness that is not worse.
    """
    status: Status
    present: list[Concern] = []
    if facts.error is not None:
        present.append(Concern("failing", "error" if facts.running_age is None else "warning"))
    if facts.freshness in ("warn", "error"):
        status = "error" if facts.freshness == "error" else "warning"
        if not present or ORDER.index(status) > ORDER.index(present[0].status):
            present.insert(0, Concern("late", status))
    if facts.running_age is not None and facts.running_age > LONG_RUN:
        present.append(Concern("long run", "warning"))
    return present


def source_status(facts: SourceFacts) -> Status:
    """The worst of a source's runs, freshness and quarantine; unknown while no run ended."""
    statuses: list[Status] = [concern.status for concern in concerns(facts)]
    statuses.append("warning" if facts.quarantined else "ok")
    return worst([*statuses, "ok" if facts.finished else "unknown"])


def worst(statuses: Iterable[Status]) -> Status:
    """The worst status; unknown when there is none."""
    return max(statuses, key=ORDER.index, default="unknown")


def split_error(error: str) -> tuple[str, str]:
    """What happened, and what to do where the error says so."""
    what, _, todo = error.partition(" What to do: ")
    return what, todo.removesuffix(".")
