"""What needs attention: the worst first, each with what to do; and the one status that follows from it."""

from __future__ import annotations

from dataclasses import dataclass

from analytics.kpi_tracker import Kpis
from reports.report_values import Anomaly, Failure, Quarantined, ReportValues, Status
from reports.signs import clean, isolated
from reports.words import Words

__all__ = ["Point", "points", "source_status", "worst"]

ORDER: tuple[Status, ...] = ("ok", "unknown", "warning", "error")


@dataclass(frozen=True)
class Point:
    """One thing to look at. Data within `what` and `todo` is clean."""

    status: Status
    source: str
    what: str
    todo: str


def points(values: ReportValues, say: Words) -> tuple[Point, ...]:
    """Everything that needs attention: errors first, then warnings."""
    failing = _failing(values)
    found = [_failed(failure) for failure in failing.values()]
    found += [
        point
        for kpis in values.kpis.sources
        if kpis.source not in failing and (point := _source(kpis, say)) is not None
    ]
    found += [_waiting(rows, say) for rows in values.quarantine]
    found += [_unusual(anomaly, say) for anomaly in values.anomalies]
    return tuple(sorted(found, key=lambda point: -ORDER.index(point.status)))


def worst(values: ReportValues, found: tuple[Point, ...]) -> Status:
    """The worst status of all; `unknown` when nothing ran and nothing is wrong."""
    if found:
        return max((point.status for point in found), key=ORDER.index)
    return "ok" if values.kpis.total.runs else "unknown"


def source_status(kpis: Kpis, values: ReportValues) -> Status:
    """The worst of a source's failures and freshness; a failure with a retry on its way is a warning."""
    found: list[Status] = [_weight(one) for source, one in _failing(values).items() if source == kpis.source]
    fresh: dict[str, Status] = {"fresh": "ok", "warn": "warning", "error": "error"}
    found.append(fresh.get(kpis.freshness.status, "ok" if kpis.success.count else "unknown"))
    if kpis.success.total and not kpis.success.count:
        found.append("warning")
    return max(found, key=ORDER.index)


def error_and_todo(failure: Failure) -> tuple[str, str]:
    """What happened and what to do, which the error's own text may say."""
    error, _, todo = failure.error.partition(" What to do: ")
    return (error, failure.todo or todo.removesuffix(".")) if todo else (failure.error, failure.todo)


def _failing(values: ReportValues) -> dict[str, Failure]:
    """Each source's newest failure that is not resolved."""
    return {one.source: one for one in reversed(values.failures) if one.state != "resolved"}


def _weight(failure: Failure) -> Status:
    weights: dict[str, Status] = {"open": "error", "retrying": "warning", "resolved": "ok"}
    return weights[failure.state]


def _failed(failure: Failure) -> Point:
    error, todo = error_and_todo(failure)
    return Point(_weight(failure), failure.source, clean(error), clean(todo) or "autosync status")


def _source(kpis: Kpis, say: Words) -> Point | None:
    name, fresh = kpis.source or "", kpis.freshness
    todo = say("do_run", command=isolated(f"autosync run {name}", say.direction))
    if fresh.status in ("warn", "error"):
        status: Status = "error" if fresh.status == "error" else "warning"
        return Point(status, name, say("is_late", age=say.duration(fresh.seconds)), todo)
    if kpis.success.total and not kpis.success.count:
        return Point("warning", name, say("never"), todo)
    return None


def _waiting(rows: Quarantined, say: Words) -> Point:
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
