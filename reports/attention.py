"""What needs attention, in the report's words: the worst first, each with what to do; and the one status of all."""

from __future__ import annotations

from dataclasses import dataclass

from autosync.attention import ORDER, Concern, SourceFacts, Status, concerns, source_status, split_error, worst
from reports.report_values import Anomaly, Failure, Quarantined, ReportValues
from reports.signs import clean, isolated
from reports.words import Words

__all__ = ["Point", "error_and_todo", "overall", "points"]


@dataclass(frozen=True)
class Point:
    """One thing to look at. Data within `what` and `todo` is clean."""

    status: Status
    source: str
    what: str
    todo: str


def points(values: ReportValues, say: Words) -> tuple[Point, ...]:
    """Everything that needs attention: errors first, then warnings."""
    present = [_source(facts, concern, say) for facts in values.states for concern in concerns(facts)]
    present += [_rejected(rows, say) for rows in values.quarantine]
    if values.waiting:
        todo = isolated("autosync health", say.direction)
        what = say("notices_wait", n=say.number(values.waiting))
        present.append(Point("warning", "", what, say("do_look", command=todo)))
    present += [_unusual(anomaly, say) for anomaly in values.anomalies]
    return tuple(sorted(present, key=lambda point: -ORDER.index(point.status)))


def overall(values: ReportValues, present: tuple[Point, ...]) -> Status:
    """The worst status of all points and sources."""
    return worst([point.status for point in present] + [source_status(facts) for facts in values.states])


def error_and_todo(failure: Failure) -> tuple[str, str]:
    """What happened and what to do, which the error's own text may say."""
    error, todo = split_error(failure.error)
    return (error, failure.todo or todo) if todo else (failure.error, failure.todo)


def _source(facts: SourceFacts, concern: Concern, say: Words) -> Point:
    status, name = concern.status, facts.source
    match concern.kind:
        case "failing":
            error, todo = split_error(facts.error or "")
            return Point(status, name, clean(error), clean(todo) or "autosync status")
        case "late":
            todo = say("do_run", command=isolated(f"autosync run {name}", say.direction))
            return Point(status, name, say("is_late", age=say.duration(facts.success_age)), todo)
        case "long run":
            todo = say("do_look", command=isolated("autosync status", say.direction))
            return Point(status, name, say("runs_long", age=say.duration(facts.running_age)), todo)


def _rejected(rows: Quarantined, say: Words) -> Point:
    todo = say("do_look", command=isolated("autosync quarantine list", say.direction))
    reason = isolated(rows.reason, say.direction)
    return Point("warning", rows.source, say("rows_wait", n=say.number(rows.rows), reason=reason), todo)


def _unusual(anomaly: Anomaly, say: Words) -> Point:
    value, series = say.brief(anomaly.value), isolated(anomaly.series, say.direction)
    if anomaly.expected is None:
        what = say("is_unusual_bare", series=series, value=value)
    else:
        low, high = (say.brief(bound) for bound in anomaly.expected)
        what = say("is_unusual", series=series, value=value, low=low, high=high)
    return Point("warning", "", f"{say.moment(anomaly.time)}: {what}", say("do_compare"))
