"""A report as it is read: its values as sections of words, the same for Markdown and PDF."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from analytics.kpi_tracker import Kpis, Median, Ratio
from autosync.attention import Status, source_status
from reports.attention import Point, error_and_todo, overall, points
from reports.charts import chart_names
from reports.report_values import ReportValues
from reports.signs import MOST_ID, MOST_TEXT, clean
from reports.words import NOTHING, Language, Words

__all__ = ["Column", "Page", "Section", "page"]

SOURCES, ROWS, CHANGES = 50, 20, 30
SEVERITY = ("error", "warning", "ok", "unknown")
Kind = Literal["text", "id", "number", "status", "word"]
Row = tuple[str, ...]


@dataclass(frozen=True)
class Column:
    """A table's column. kind: `id` and `text` hold data; `width` is its share of a printed line."""

    title: str
    kind: Kind = "text"
    width: float = 1.0


@dataclass(frozen=True)
class Section:
    """A part of the page: a table, or `empty` in its place, and the charts that go with it."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    empty: str
    note: str = ""
    more: str = ""
    charts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Page:
    """The whole report in words. `words` are those that the templates need themselves."""

    language: Language
    direction: Literal["ltr", "rtl"]
    title: str
    period: str
    generated: str
    status: Status
    verdict: str
    sections: tuple[Section, ...]
    words: dict[str, str]


def page(values: ReportValues, language: Language) -> Page:
    """The report in a language: everything that either format shows."""
    say = Words(language)
    found = points(values, say)
    parts: tuple[Callable[[ReportValues, Words], Section | None], ...]
    parts = (_failures, _sources, _week, _totals, _per_source, _dora, _feedback, _anomalies)
    parts += (_changes, _commits, _quarantine)
    sections = [_attention(found, say), *(part(values, say) for part in parts)]
    needed = ("period", "generated", "page", "unshown", "ok", "unknown", "warning", "error")
    return Page(
        language,
        say.direction,
        clean(values.title) or say("report"),
        say("to", a=say.moment(values.since, year=True), b=f"{say.moment(values.until, year=True)} UTC"),
        f"{say.moment(values.generated, year=True)} UTC",
        overall(values, found),
        _verdict(overall(values, found), found, say),
        tuple(section for section in sections if section is not None),
        {word: say(word) for word in needed},
    )


def _verdict(status: Status, found: tuple[Point, ...], say: Words) -> str:
    if not found:
        return say("verdict_ok" if status == "ok" else "verdict_empty")
    parts = []
    for kind in ("error", "warning"):
        if n := sum(point.status == kind for point in found):
            parts.append(say(f"{kind}s_one") if n == 1 else say(f"{kind}s_many", n=say.number(n)))
    return say(f"verdict_{status}", n=say("and", a=parts[0], b=parts[1]) if len(parts) == 2 else parts[0])


def _table(
    name: str,
    say: Words,
    columns: Sequence[Column],
    rows: Sequence[Row],
    *,
    most: int = ROWS,
    empty: str = "none",
    note: str = "",
    charts: Sequence[str] = (),
) -> Section:
    """A section of at most `most` rows, its data cleaned."""
    limits = {"id": MOST_ID, "text": MOST_TEXT}
    made = tuple(
        tuple(
            clean(cell, limits[column.kind]) if column.kind in limits else cell
            for cell, column in zip(row, columns, strict=True)
        )
        for row in rows[:most]
    )
    more = say("more", n=say.number(len(rows) - most)) if len(rows) > most else ""
    return Section(name, say(name), tuple(columns), made, say(empty), note, more, tuple(charts))


def _columns(say: Words, *given: tuple[str, Kind, float]) -> tuple[Column, ...]:
    return tuple(Column(say(title)[:1].upper() + say(title)[1:], kind, width) for title, kind, width in given)


def _attention(found: tuple[Point, ...], say: Words) -> Section:
    columns = _columns(say, ("status", "status", 0.9), ("source", "id", 1.2), ("what", "word", 3), ("todo", "word", 2))
    rows = [(point.status, point.source or NOTHING, point.what, point.todo) for point in found]
    return _table("attention", say, columns, rows, most=SOURCES, empty="attention_none")


def _failures(values: ReportValues, say: Words) -> Section:
    columns = _columns(
        say, ("time", "word", 1), ("source", "id", 1.1), ("outcome", "word", 0.8), ("status", "word", 0.9)
    ) + _columns(say, ("what", "text", 2.6), ("todo", "text", 1.8), ("run", "id", 0.9))
    rows = []
    for one in values.failures:
        error, todo = error_and_todo(one)
        row = (say.moment(one.time), one.source, say(one.outcome), say(one.state))
        rows.append((*row, error, todo or NOTHING, one.run[:8]))
    return _table("failures", say, columns, rows, empty="failures_none")


def _sources(values: ReportValues, say: Words) -> Section:
    columns = _columns(say, ("status", "status", 0.9), ("source", "id", 1.5), ("last_run", "word", 1))
    columns += _columns(say, ("outcome", "word", 0.9), ("age", "word", 1.1), ("limits", "word", 1.3))
    last = {run.source: run for run in values.last_runs}
    rows = []
    for facts in values.states:
        name = facts.source
        run = last.get(name)
        outcome = NOTHING if run is None else _outcome(run.outcome, say)
        started = say.moment(run.started if run else None)
        limits = " / ".join(say.duration(limit) for limit in values.limits.get(name, (None, None)))
        rows.append((source_status(facts), name, started, outcome, say.duration(facts.success_age), limits))
    rows.sort(key=lambda row: SEVERITY.index(row[0]))
    charts = [name for name in ("freshness",) if name in chart_names(values)]
    return _table("sources", say, columns, rows, most=SOURCES, empty="sources_none", charts=charts)


def _outcome(outcome: str | None, say: Words) -> str:
    known = ("changed", "unchanged", "refused", "failed")
    return say("running") if outcome is None else say(outcome) if outcome in known else clean(outcome, 30)


def _week(values: ReportValues, say: Words) -> Section:
    names = ("runs", "changed", "unchanged", "refused", "failed", "p50", "p95", "inserted", "updated", "deleted")
    columns = _columns(say, ("day", "word", 1.2), *((name, "number", 1) for name in names))
    rows = []
    for day in reversed(values.days[-7:]):
        counts = (day.runs, day.changed, day.unchanged, day.refused, day.failed)
        changes = (day.inserted, day.updated, day.deleted)
        lengths = (say.duration(day.p50), say.duration(day.p95))
        rows.append((say.day(day.start), *map(say.number, counts), *lengths, *map(say.number, changes)))
    charts = [name for name in ("runs",) if name in chart_names(values)]
    return _table("week", say, columns, rows, empty="week_none", charts=charts)


def _ratio(ratio: Ratio, say: Words) -> tuple[str, str, str]:
    """Value, interval, cases."""
    if ratio.value is None:
        return NOTHING, NOTHING, NOTHING
    cases = say("of", a=say.number(ratio.count), b=say.number(ratio.total))
    return say.share(ratio.value), say("to", a=say.share(ratio.low), b=say.share(ratio.high)), cases


def _totals(values: ReportValues, say: Words) -> Section | None:
    total = values.kpis.total
    if not total.runs:
        return None
    columns = _columns(say, ("measure", "word", 2), ("value", "number", 1.4), ("interval", "number", 1.4))
    columns += _columns(say, ("cases", "number", 1))
    down = total.downtime
    changes = " / ".join(say.number(n) for n in (total.inserted, total.updated, total.deleted))
    incidents = say(
        "downtime_text", time=say.duration(down.seconds), n=say.number(down.incidents), open=say.number(down.open)
    )
    lengths = f"{say.duration(total.duration.p50)} / {say.duration(total.duration.p95)}"
    rows = [
        (say("success_long"), *_ratio(total.success, say)),
        (say("availability_long"), *_ratio(total.availability, say)),
        (say("duration"), lengths, _spread(total.duration, say), say.number(total.duration.count)),
        (say("change_count"), changes, "", ""),
        (say("refused_rows"), say.number(total.quarantined), "", ""),
        (say("retries"), say.number(total.retries), "", ""),
        (say("downtime"), incidents if down.incidents else say.number(0), "", ""),
    ]
    charts = [name for name in ("durations", "changes") if name in chart_names(values)]
    return _table("totals", say, columns, rows, charts=charts)


def _spread(median: Median, say: Words) -> str:
    if median.low is None:
        return NOTHING
    return say("to", a=say.duration(median.low), b=say.duration(median.high))


def _per_source(values: ReportValues, say: Words) -> Section | None:
    names = ("runs", "success", "availability", "p50", "p95", "changes_short", "retries", "quarantined", "incidents")
    columns = _columns(say, ("source", "id", 1.8), *((name, "number", 1) for name in names))
    rows = [_numbers(kpis, say) for kpis in values.kpis.sources if kpis.runs]
    return _table("per_source", say, columns, rows, most=SOURCES) if rows else None


def _numbers(kpis: Kpis, say: Words) -> Row:
    return (
        kpis.source or "",
        say.number(kpis.runs),
        say.share(kpis.success.value),
        say.share(kpis.availability.value),
        say.duration(kpis.duration.p50),
        say.duration(kpis.duration.p95),
        say.number(kpis.inserted + kpis.updated + kpis.deleted),
        say.number(kpis.retries),
        say.number(kpis.quarantined),
        say.number(kpis.downtime.incidents),
    )


def _dora(values: ReportValues, say: Words) -> Section | None:
    dora = values.kpis.total.dora
    if not values.kpis.total.runs:
        return None
    columns = _columns(say, ("measure", "word", 2), ("value", "number", 1.2), ("interval", "number", 1.6))
    columns += _columns(say, ("cases", "number", 1))
    often = dora.deployments
    known = often.value is not None and often.total >= 1  # days: a part of one tells nothing about a day
    between = say("to", a=say.brief(often.low), b=say.brief(often.high)) if known else NOTHING
    rows = [(say("deployments"), say.brief(often.value if known else None), between, say.number(often.count))]
    rows.append((say("change_failure"), *_ratio(dora.change_failure, say)))
    for name, median in (("lead_time", dora.lead_time), ("restore", dora.restore)):
        rows.append((say(name), say.duration(median.p50), _spread(median, say), say.number(median.count)))
    return _table("dora", say, columns, rows, note=say("dora_note"))


def _feedback(values: ReportValues, say: Words) -> Section | None:
    feedback = values.feedback
    if feedback is None:
        return None
    columns = _columns(say, ("signal", "word", 3), ("bad_of", "number", 1), ("points", "number", 1))
    worst_first = sorted(feedback.contributions.items(), key=lambda item: -item[1].points)
    rows = [
        (say(name), say("of", a=say.number(c.count.bad), b=say.number(c.count.total)), say.number(c.points, 1))
        for name, c in worst_first
    ]
    score, low, high = (say.number(n, 1) for n in (feedback.score, feedback.low, feedback.high))
    return _table("feedback", say, columns, rows, note=say("feedback_note", score=score, low=low, high=high))


def _anomalies(values: ReportValues, say: Words) -> Section | None:
    columns = _columns(
        say, ("time", "word", 1), ("series", "id", 2), ("value", "number", 1), ("expected", "number", 1.4)
    )
    rows = [
        (
            say.moment(one.time),
            one.series,
            say.brief(one.value),
            say("to", a=say.brief(one.expected[0]), b=say.brief(one.expected[1])) if one.expected else NOTHING,
        )
        for one in values.anomalies
    ]
    return _table("anomalies", say, columns, rows) if rows else None


def _changes(values: ReportValues, say: Words) -> Section | None:
    columns = _columns(say, ("time", "word", 1), ("collection", "id", 1.1), ("id", "id", 1.8), ("op", "word", 0.9))
    columns += _columns(say, ("what", "text", 2.6))
    rows = [
        (say.moment(one.time), one.collection, one.id, _op(one.op, say), one.what or NOTHING) for one in values.changes
    ]
    return _table("changes", say, columns, rows, most=CHANGES) if rows else None


def _op(op: str, say: Words) -> str:
    return say(op) if op in ("insert", "update", "delete") else clean(op, 30)


def _commits(values: ReportValues, say: Words) -> Section | None:
    columns = _columns(say, ("time", "word", 1), ("commit", "id", 1), ("source", "id", 1.2), ("subject", "text", 3))
    rows = [(say.moment(one.time), one.sha[:10], one.source, one.subject or NOTHING) for one in values.commits]
    return _table("commits", say, columns, rows) if rows else None


def _quarantine(values: ReportValues, say: Words) -> Section | None:
    columns = _columns(say, ("source", "id", 1.2), ("rows", "number", 0.7), ("reason", "text", 3), ("id", "id", 1.5))
    columns += _columns(say, ("seen", "word", 1.2))
    rows = [
        (one.source, say.number(one.rows), one.reason, one.id or NOTHING, say.moment(one.last_seen))
        for one in values.quarantine
    ]
    return _table("quarantine", say, columns, rows) if rows else None
