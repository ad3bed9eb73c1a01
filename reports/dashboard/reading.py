"""What the pages and the API need to know, as values, and who tells them: `Reading`. Times are UTC.

The dashboard only ever reads. `revision` changes with everything that readers can see, so that
answers can be kept until it does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from autosync.attention import Freshness

__all__ = [
    "Change",
    "ChangeFilter",
    "Lock",
    "Module",
    "Reading",
    "Record",
    "Refusals",
    "Run",
    "RunFilter",
    "SourceState",
    "Stage",
]

RunStatus = Literal["running", "changed", "unchanged", "refused", "failed"]
Op = Literal["insert", "update", "delete"]


@dataclass(frozen=True)
class Run:
    """One execution of the sync flow for one source. `status` is `running` until it ends."""

    run: str
    source: str
    status: RunStatus
    started: datetime
    ended: datetime | None
    scheduled: datetime | None
    seconds: float | None
    seq: int | None
    inserted: int
    updated: int
    deleted: int
    quarantined: int
    commit: str | None
    root: str | None
    error: str | None
    retries: int


@dataclass(frozen=True)
class Stage:
    """A stage of a run and how it ended."""

    name: str
    state: str
    started: datetime
    seconds: float
    retries: int


@dataclass(frozen=True)
class Change:
    """A row of the change log. `before` and `after` are records, or None where there was none."""

    seq: int
    time: datetime
    run: str
    source: str
    collection: str
    id: str
    op: Op
    origin: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Record:
    """A record as it is now; `doc` is None when it was deleted."""

    collection: str
    id: str
    doc: Any


@dataclass(frozen=True)
class SourceState:
    """How a source is. `behind`: consumer -> changes that it has not read yet. Limits are in seconds."""

    source: str
    collection: str
    freshness: Freshness
    last_success: datetime | None
    warn_after: float | None
    error_after: float | None
    records: int
    quarantined: int
    behind: Mapping[str, int]
    last_run: Run | None
    last_finished: Run | None


@dataclass(frozen=True)
class Refusals:
    """Open quarantine rows of one source that were refused for one reason, with the id of one of them."""

    source: str
    reason: str
    rows: int
    last_seen: datetime
    id: str | None


@dataclass(frozen=True)
class Lock:
    """A place that a run holds."""

    name: str
    run: str
    since: datetime


@dataclass(frozen=True)
class Module:
    """How a module is, proven by doing something harmless with it."""

    module: str
    status: Literal["ok", "warning", "error", "off"]
    text: str
    seconds: float


@dataclass(frozen=True)
class RunFilter:
    """Which runs, newest first. `after` is the last run of the page before."""

    source: str | None = None
    status: RunStatus | None = None
    since: float | None = None
    until: float | None = None
    after: str | None = None
    limit: int = 50


@dataclass(frozen=True)
class ChangeFilter:
    """Which changes, newest first. `before` is the last seq of the page before."""

    source: str | None = None
    collection: str | None = None
    run: str | None = None
    op: Op | None = None
    since: float | None = None
    until: float | None = None
    before: int | None = None
    limit: int = 50


class Reading(Protocol):
    """Where the dashboard reads. Every call may come from any thread."""

    def revision(self) -> str:
        """Changes when something that readers can see does; empty while there is no database."""
        ...

    def sources(self) -> Sequence[SourceState]:
        """Every configured source, in the configuration's order."""
        ...

    def refusals(self) -> Sequence[Refusals]:
        """Open quarantine rows by source and reason, most rows first."""
        ...

    def locks(self) -> Sequence[Lock]:
        """Who holds which place, oldest first."""
        ...

    def waiting(self) -> int:
        """How many notices were not delivered yet."""
        ...

    def runs(self, which: RunFilter) -> Sequence[Run]: ...

    def run(self, run: str) -> Run | None: ...

    def stages(self, run: str) -> Sequence[Stage]:
        """The stages of a run in order."""
        ...

    def changes(self, which: ChangeFilter) -> Sequence[Change]: ...

    def record(self, collection: str, id: str) -> Record | None:
        """A record, also a deleted one; None when there never was one."""
        ...

    def history(self, collection: str, id: str, before: int | None, limit: int) -> Sequence[Change]:
        """The changes of a record, newest first, with a seq below `before`."""
        ...

    def run_rows(self, since: float) -> Sequence[Mapping[str, Any]]:
        """Runs that started since a Unix time as rows for analytics: times are Unix seconds."""
        ...

    def modules(self) -> Sequence[Module]:
        """Look at every module now; may take seconds."""
        ...

    def run_link(self, run: str) -> str | None:
        """The run's page in Prefect, when a server is known."""
        ...

    def commit_link(self, run: str) -> str | None:
        """Where the commit of a run can be seen: an address, or a command."""
        ...
