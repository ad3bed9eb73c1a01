"""The forms of questions and answers of the API: what OpenAPI says comes from here and from `reading`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from autosync.attention import Status
from autosync.differences import Difference
from reports.dashboard.attention import Point
from reports.dashboard.reading import (
    Change,
    Lock,
    Module,
    Op,
    Refusals,
    Run,
    RunStatus,
    SourceState,
    Stage,
)

__all__ = [
    "Anomalies",
    "Badge",
    "ChangePage",
    "ChangeQuery",
    "ChangeRow",
    "HistoryQuery",
    "Modules",
    "NumbersQuery",
    "RecordPage",
    "RunDetail",
    "RunPage",
    "RunQuery",
    "SourceRow",
    "Sources",
    "Summary",
]

LIMIT = 500


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


Time = Annotated[
    datetime,
    AfterValidator(_utc),
    Field(ge=datetime(1970, 1, 1, tzinfo=UTC), description="ISO 8601, or Unix seconds; UTC when no zone is given."),
]
Limit = Annotated[int, Field(ge=1, le=LIMIT, description=f"Rows a page, at most {LIMIT}.")]
Cursor = Annotated[str, Field(max_length=200, description="`next` of the page before, as it is.")]
Name = Annotated[str, Field(max_length=63)]


class Query(BaseModel):
    """Parameters; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid")


class Paged(Query):
    """What every list takes."""

    limit: Limit = 50
    cursor: Cursor | None = None


class Listed(Paged):
    """What lists over time take: `since` is included, `until` is not."""

    source: Name | None = None
    since: Time | None = None
    until: Time | None = None

    def times(self) -> dict[str, Any]:
        """since and until in Unix seconds."""
        given = {"since": self.since, "until": self.until}
        return {name: time.timestamp() for name, time in given.items() if time is not None}


class RunQuery(Listed):
    """Which runs."""

    status: RunStatus | None = None


class ChangeQuery(Listed):
    """Which changes."""

    collection: Name | None = None
    run: Annotated[str, Field(max_length=100)] | None = None
    op: Op | None = None


class HistoryQuery(Paged):
    """Which part of a record's history."""


class NumbersQuery(Query):
    """Over how many days back from now."""

    days: Annotated[int, Field(ge=1, le=366)] = 30
    source: Name | None = None


@dataclass(frozen=True)
class SourceRow(SourceState):
    """A source and its status: the worst of its last finished run, freshness and quarantine."""

    status: Status


@dataclass(frozen=True)
class Sources:
    """Every configured source."""

    items: list[SourceRow]


@dataclass(frozen=True)
class Summary:
    """Everything at a glance. `status` is the worst of `attention`, `verdict` says it in one line."""

    status: Status
    verdict: str
    revision: str
    sources: list[SourceRow]
    attention: list[Point]
    quarantine: list[Refusals]
    locks: list[Lock]
    waiting: int


@dataclass(frozen=True)
class RunPage:
    """Runs, newest first. `next` is the next page's cursor, null on the last."""

    items: list[Run]
    next: str | None


@dataclass(frozen=True)
class RunDetail:
    """A run with its stages in order, and where it can be seen in Prefect and in the repository."""

    run: Run
    stages: list[Stage]
    prefect: str | None
    commit_link: str | None


@dataclass(frozen=True)
class ChangeRow(Change):
    """A change and, for an update, what differs per JSON Pointer."""

    differences: list[Difference]


@dataclass(frozen=True)
class ChangePage:
    """Changes, newest first. `next` is the next page's cursor, null on the last."""

    items: list[ChangeRow]
    next: str | None


@dataclass(frozen=True)
class RecordPage:
    """A record as it is now (null when it was deleted) and its history, newest change first."""

    collection: str
    id: str
    live: bool
    record: Any
    history: list[ChangeRow]
    next: str | None


@dataclass(frozen=True)
class Modules:
    """The health of every module; `status` is the worst of those that are on."""

    status: Literal["ok", "warning", "error", "off"]
    modules: list[Module]


@dataclass(frozen=True)
class Anomaly:
    """An hour whose value is unusual for this series; `low` and `high` are what was expected."""

    source: str
    name: str
    time: datetime
    value: float
    low: float | None
    high: float | None
    score: float


@dataclass(frozen=True)
class Anomalies:
    """Unusual hours, newest first, and how many series were looked at."""

    items: list[Anomaly]
    series: int


@dataclass(frozen=True)
class Badge:
    """A badge in the form that badge services read."""

    schemaVersion: int  # the name that those services read
    label: str
    message: str
    color: str


@dataclass(frozen=True)
class Probe:
    """The answer of a probe."""

    status: Literal["ok", "error"]


@dataclass(frozen=True)
class Revision:
    """The store's revision."""

    revision: str
