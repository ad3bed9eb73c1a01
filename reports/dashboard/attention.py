"""What needs attention, in the pages' words: the worst first, each with what to do; and the one status of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from autosync import attention
from autosync.attention import BAD, ORDER, Concern, SourceFacts, Status, concerns, split_error, worst
from reports.dashboard.reading import Lock, Reading, Refusals, SourceState
from reports.dashboard.words import Say

__all__ = ["Point", "State", "look", "source_status"]


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
    found = [_source(state, concern, say) for state in sources for concern in concerns(_facts(state))]
    found += [_refused(rows, say) for rows in refusals]
    if waiting:
        found.append(Point("warning", "", say("notices_wait", n=say.number(waiting)), say("do_outbox"), None))
    found.sort(key=lambda point: -ORDER.index(point.status))
    status = worst([point.status for point in found] + [source_status(state) for state in sources])
    return State(revision, sources, refusals, reading.locks(), waiting, found, status, _verdict(status, found, say))


def source_status(state: SourceState) -> Status:
    """The worst of a source's runs, its freshness and its quarantine."""
    return attention.source_status(_facts(state))


def _facts(state: SourceState) -> SourceFacts:
    """How a source stands now."""
    last, run = state.last_finished, state.last_run
    return SourceFacts(
        source=state.source,
        freshness=state.freshness,
        success_age=_age(state.last_success),
        finished=last is not None,
        error=(last.error or last.status) if last and last.status in BAD else None,
        running_age=_age(run.started) if run and run.status == "running" else None,
        quarantined=state.quarantined,
    )


def _age(time: datetime | None) -> float | None:
    return None if time is None else (datetime.now(UTC) - time).total_seconds()


def _source(state: SourceState, concern: Concern, say: Say) -> Point:
    facts, last, run = _facts(state), state.last_finished, state.last_run
    finished = last.run if last else None
    match concern.kind:
        case "failing":
            what, todo = split_error(facts.error or "")
            return Point(concern.status, state.source, what, todo or say("do_status"), finished)
        case "late":
            todo = say("do_run", command=f"autosync run {state.source}")
            return Point(
                concern.status, state.source, say("is_late", age=say.age(facts.success_age or 0)), todo, finished
            )
        case "long run":
            what = say("runs_long", age=say.age(facts.running_age or 0))
            return Point(concern.status, state.source, what, say("do_status"), run.run if run else None)


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
