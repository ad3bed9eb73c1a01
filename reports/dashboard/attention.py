"""What needs attention: the worst first, each with what to do; and the one status that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from reports.dashboard.reading import Lock, Reading, Refusals, Run, SourceState
from reports.dashboard.words import Say

__all__ = ["Point", "State", "Status", "look", "source_status", "split_error"]

Status = Literal["ok", "unknown", "warning", "error"]
ORDER: tuple[Status, ...] = ("ok", "unknown", "warning", "error")
LONG_RUN = 6 * 3600.0
BAD = ("failed", "refused")


@dataclass(frozen=True)
class Point:
    """One thing to look at. `run` is the run that shows it, where there is one."""

    status: Status
    source: str
    what: str
    todo: str
    run: str | None


@dataclass(frozen=True)
class State:
    """Everything at a glance, read once."""

    revision: str
    sources: Sequence[SourceState]
    quarantine: Sequence[Refusals]
    locks: Sequence[Lock]
    waiting: int
    points: Sequence[Point]
    status: Status
    verdict: str


def look(reading: Reading, say: Say) -> State:
    """Read everything that the overview needs."""
    revision, sources, refusals, waiting = reading.revision(), reading.sources(), reading.refusals(), reading.waiting()
    found = [point for state in sources for point in _source(state, say)]
    found += [_refused(rows, say) for rows in refusals]
    if waiting:
        found.append(Point("warning", "", say("notices_wait", n=say.number(waiting)), say("do_outbox"), None))
    found.sort(key=lambda point: -ORDER.index(point.status))
    status = _worst([point.status for point in found] + [source_status(state) for state in sources])
    return State(revision, sources, refusals, reading.locks(), waiting, found, status, _verdict(status, found, say))


def source_status(state: SourceState) -> Status:
    """The worst of a source's last finished run, its freshness and its quarantine."""
    last = state.last_finished
    if last is None:
        return "unknown"
    fresh: dict[str, Status] = {"fresh": "ok", "warn": "warning", "error": "error", "unknown": "unknown"}
    found = [fresh[state.freshness] if state.last_success else "warning"]
    if last.status in BAD:
        again = state.last_run is not None and state.last_run.status == "running"
        found.append("warning" if again else "error")
    if state.quarantined:
        found.append("warning")
    return _worst(found)


def split_error(error: str) -> tuple[str, str]:
    """What happened, and what to do where the error says so."""
    what, _, todo = error.partition(" What to do: ")
    return what, todo.removesuffix(".")


def _worst(found: Sequence[Status]) -> Status:
    return max(found, key=ORDER.index, default="unknown")


def _source(state: SourceState, say: Say) -> list[Point]:
    points = []
    last, run = state.last_finished, state.last_run
    if last is not None and last.status in BAD:
        points.append(_failing(state, last, say))
    elif last is not None and state.freshness in ("warn", "error") and state.last_success:
        age = (datetime.now(UTC) - state.last_success).total_seconds()
        status: Status = "error" if state.freshness == "error" else "warning"
        todo = say("do_run", command=f"autosync run {state.source}")
        points.append(Point(status, state.source, say("is_late", age=say.age(age)), todo, last.run))
    if run is not None and run.status == "running":
        since = (datetime.now(UTC) - run.started).total_seconds()
        if since > LONG_RUN:
            what = say("runs_long", age=say.age(since))
            points.append(Point("warning", state.source, what, say("do_status"), run.run))
    return points


def _failing(state: SourceState, last: Run, say: Say) -> Point:
    what, todo = split_error(last.error or last.status)
    again = state.last_run is not None and state.last_run.status == "running"
    return Point("warning" if again else "error", state.source, what, todo or say("do_status"), last.run)


def _refused(rows: Refusals, say: Say) -> Point:
    what = say("rows_held", n=say.number(rows.rows), reason=say.isolated(rows.reason))
    return Point("warning", rows.source, what, say("do_look", command="autosync quarantine list"), None)


def _verdict(status: Status, found: Sequence[Point], say: Say) -> str:
    if not found:
        return say("verdict_ok" if status == "ok" else "verdict_unknown")
    parts = []
    for kind in ("error", "warning"):
        if n := sum(point.status == kind for point in found):
            parts.append(say(f"{kind}s_one") if n == 1 else say(f"{kind}s_many", n=say.number(n)))
    return say(f"verdict_{status}", n=say("and", a=parts[0], b=parts[1]) if len(parts) == 2 else parts[0])
