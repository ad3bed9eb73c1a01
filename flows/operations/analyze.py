"""analyze: KPIs, feedback score and anomalies from runs, changes and commits, as the values of a report."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from autosync.attention import BAD, GOOD
from autosync.differences import describe_change
from blocks.store import history, ledger
from blocks.store.schema import Db
from flows.operations.status import all_facts
from flows.workspace import Workspace, now

if TYPE_CHECKING:
    import pandas as pd

    from reports.report_values import Anomaly, Failure, LastRun, Quarantined, ReportValues

RUN_COLUMNS = ["source", "started", "ended", "outcome", "retries", "inserted", "updated", "deleted", "quarantined"]
DAYS = 30.0
NEWEST = 50
WATCHED_SERIES = ("changes", "duration_p50", "quarantined")

Rows = list[dict[str, Any]]


def run_frame(runs: Rows) -> pd.DataFrame:
    """Finished runs as analytics takes them; times in Unix seconds."""
    import pandas as pd

    frame = pd.DataFrame([row for row in runs if row["ended"] is not None], columns=[*RUN_COLUMNS, "scheduled"])
    return frame.astype({"started": "float64", "ended": "float64", "scheduled": "float64", "outcome": "str"})


def source_frame(workspace: Workspace) -> pd.DataFrame:
    """The sources with their freshness limits in seconds."""
    import pandas as pd

    rows = [(s.name, s.freshness.warn_after, s.freshness.error_after) for s in workspace.settings.source]
    frame = pd.DataFrame(rows, columns=["source", "warn_after", "error_after"])
    return frame.astype({"warn_after": "float64", "error_after": "float64"})


def analyze(workspace: Workspace, days: float = DAYS) -> ReportValues:
    """Everything that the report of the last `days` days says."""
    from analytics.feedback_analyzer import Count
    from analytics.feedback_analyzer import analyze as feedback
    from analytics.kpi_tracker import track
    from reports.report_values import ReportValues, per_day

    time = now()
    since = time - days * 86_400
    with workspace.database(read_only=True) as db:
        runs = history.runs(db, since=since, limit=100_000)
        frame = run_frame(runs)
        ended = [row for row in runs if row["ended"] is not None]
        failed = sum(row["outcome"] == "failed" for row in ended)
        return ReportValues(
            generated=time,
            since=since,
            until=time,
            kpis=track(frame, source_frame(workspace), time),
            feedback=feedback({"failed_run": Count(failed, len(ended))}),
            days=per_day(ended, since, time),
            states=tuple(all_facts(db, workspace.settings.source, time)),
            waiting=ledger.waiting(db),
            last_runs=tuple(_last_runs(db, workspace)),
            failures=tuple(_failures(runs)),
            changes=tuple(_changes(db)),
            commits=tuple(_commits(ended)),
            quarantine=tuple(_quarantine(db)),
            anomalies=tuple(find_anomalies(frame)),
            limits={s.name: (s.freshness.warn_after, s.freshness.error_after) for s in workspace.settings.source},
        )


def _last_runs(db: Db, workspace: Workspace) -> Iterator[LastRun]:
    from reports.report_values import LastRun

    for source in workspace.settings.source:
        row = history.newest_run(db, source.name)
        if row is not None:
            seconds = None if row["ended"] is None else row["ended"] - row["started"]
            yield LastRun(source.name, row["started"], row["outcome"], seconds)


def _failures(runs: Rows) -> Iterator[Failure]:
    """Failed and refused runs, newest first; until a later run of the source succeeded they are open, or being
    retried while a later one goes on.
    """
    from reports.report_values import Failure

    states: dict[str, Any] = {}
    for row in runs:
        source = row["source"]
        if row["ended"] is None:
            states.setdefault(source, "retrying")
        elif row["outcome"] in GOOD:
            states[source] = "resolved"
        elif row["outcome"] in BAD:
            state = states.setdefault(source, "open")
            yield Failure(source, row["run"], row["started"], row["error"] or "", outcome=row["outcome"], state=state)


def _changes(db: Db) -> Iterator[Any]:
    from reports.report_values import Change

    for row in history.changes(db, limit=NEWEST):
        time = datetime.fromisoformat(row["time"]).timestamp()
        yield Change(
            row["seq"],
            time,
            row["collection"],
            row["id"],
            row["op"],
            describe_change(row["op"], row["before"], row["after"]),
        )


def _commits(runs: Rows) -> Iterator[Any]:
    from reports.report_values import Commit

    for row in [row for row in runs if row["commit_sha"]][:NEWEST]:
        subject = f"sync({row['source']}): +{row['inserted']} ~{row['updated']} -{row['deleted']}"
        yield Commit(row["commit_sha"], row["ended"], row["source"], subject)


def _quarantine(db: Db) -> Iterator[Quarantined]:
    """Open refused rows, together by source and reason."""
    from reports.report_values import Quarantined

    groups: dict[tuple[str, str], Rows] = {}
    for item in ledger.open_items(db):
        groups.setdefault((item["source"], item["reason"]), []).append(item)
    for (source, reason), items in groups.items():
        newest = max(item["last_seen"] for item in items)
        yield Quarantined(source, reason, len(items), newest, items[0]["id"] or "")


def find_anomalies(frame: pd.DataFrame) -> list[Anomaly]:
    """Hours whose changes, durations or refusals are unlike those before, newest first."""
    from analytics.anomaly_detector import detect
    from analytics.kpi_tracker import series
    from reports.report_values import Anomaly

    found: list[Anomaly] = []
    values = series(frame, "1h")
    for (source, name), part in values[values["name"].isin(WATCHED_SERIES)].groupby(["source", "name"]):
        if source == "all":
            continue
        hourly = part.set_index("time")["value"]
        marked = detect(hourly)
        for time, row in marked[marked["flagged"]].iterrows():
            expected = None if math.isnan(row["low"]) else (float(row["low"]), float(row["high"]))
            moment: Any = time
            value = float(hourly.loc[moment])
            found.append(Anomaly(moment.timestamp(), f"{source}: {name}", value, expected, float(row["score"])))
    return sorted(found, key=lambda anomaly: -anomaly.time)
