"""KPIs of the syncs: per source and in total, from the table of runs.

A run succeeded when its outcome is `changed` or `unchanged`; `refused` and `failed` did not; any
other outcome means that it is not over and only counts where said. An incident is an unbroken
series of runs of one source that did not succeed: it begins at the first one's planned time (else
start), is detected when that run ends and is resolved when the next successful run ends.

Sources: dbt's source freshness; data downtime, incidents x (time to detect + time to resolve), of
Moses, "Data Quality Fundamentals" (2022); DORA's four (Forsgren et al., "Accelerate", 2018). All
intervals are 95 %: Wilson's (1927) of shares, Byar's of counts, order statistics of medians.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from autosync import attention

__all__ = ["Dora", "Downtime", "Freshness", "Kpis", "Median", "Ratio", "Report", "series", "track"]

STATUSES: tuple[attention.Freshness, ...] = ("fresh", "unknown", "warn", "error")  # best to worst
DAY = 86400.0
Z = 1.959964
GOOD, BAD = frozenset(attention.GOOD), frozenset(attention.BAD)
COUNTS = ("retries", "inserted", "updated", "deleted", "quarantined")
LIMITS = ("source", "warn_after", "error_after")
COLUMNS = ("source", "outcome", "started", "ended", "scheduled", *COUNTS)


@dataclass(frozen=True)
class Ratio:
    """count / total with its interval; the total is of cases or days. None when it is 0."""

    count: int
    total: float
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Median:
    """Median and p95 of `count` lengths in seconds; the median's interval needs six. None where undefined."""

    count: int
    p50: float | None
    p95: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Freshness:
    """Age of the newest successful run's end against the limits; unknown without one. Total: the worst."""

    seconds: float | None
    status: attention.Freshness


@dataclass(frozen=True)
class Downtime:
    """incidents, of which `open` last until now; seconds = incidents x (to_detect + to_resolve), means in seconds."""

    incidents: int
    open: int
    seconds: float
    to_detect: float | None
    to_resolve: float | None


@dataclass(frozen=True)
class Dora:
    """DORA's four, a deployment being a run that changed something; lead_time: its planned time or start to its end.

    change_failure: share after which the source's next run did not succeed. restore: incident begin to resolution.
    """

    deployments: Ratio
    lead_time: Median
    change_failure: Ratio
    restore: Median


@dataclass(frozen=True)
class Kpis:
    """All numbers of one source, or of all (source None). success: share of the finished runs.

    availability: share of planned runs, due by now, that succeeded within warn_after (any time if not given).
    """

    source: str | None
    runs: int
    success: Ratio
    freshness: Freshness
    duration: Median
    retries: int
    inserted: int
    updated: int
    deleted: int
    quarantined: int
    availability: Ratio
    downtime: Downtime
    dora: Dora


@dataclass(frozen=True)
class Report:
    """The numbers at unix time `now`: of all sources together, and of each, by name."""

    now: float
    total: Kpis
    sources: tuple[Kpis, ...]


class _Run(NamedTuple):
    source: str
    outcome: str
    started: float
    ended: float
    scheduled: float
    begun: float  # the first known of scheduled, started, ended
    over: float  # the first known of ended, started, scheduled


_Incident = tuple[float, float, float | None]  # begun, detected, resolved


def track(runs: pd.DataFrame, sources: pd.DataFrame, now: float) -> Report:
    """The KPIs at unix time `now`, in seconds.

    runs: one row a run with source, outcome (text), started, ended, scheduled (unix seconds or NaN) and the
    counts retries, inserted, updated, deleted, quarantined. sources: source, warn_after, error_after (seconds
    or NaN). Either may be empty; a source in either is reported. Raises ValueError when a column is missing.
    """
    runs = _checked(runs, COLUMNS)
    known = _checked(sources, LIMITS)[list(LIMITS)]
    limits = dict.fromkeys(sorted({*runs["source"], *known["source"]}), (math.nan, math.nan))
    for name, warn, error in known.itertuples(index=False, name=None):
        limits[name] = (warn, error)
    each = [_kpis(name, runs[runs["source"] == name], {name: limits[name]}, now) for name in limits]
    return Report(now, _kpis(None, runs, limits, now), tuple(each))


def _checked(frame: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    frame = frame if len(frame.columns) else pd.DataFrame(columns=list(columns))
    if missing := sorted(set(columns) - set(frame.columns)):
        raise ValueError(f"the frame lacks the columns {missing}")
    text = {name: frame[name].astype(str) for name in columns if name in ("source", "outcome")}
    numbers = {name: pd.to_numeric(frame[name], errors="coerce").astype(float) for name in columns if name not in text}
    return frame.assign(**text, **numbers)


def _kpis(source: str | None, frame: pd.DataFrame, limits: dict[str, tuple[float, float]], now: float) -> Kpis:
    begun = frame["scheduled"].fillna(frame["started"]).fillna(frame["ended"])
    over = frame["ended"].fillna(frame["started"]).fillna(frame["scheduled"])
    ordered = frame.assign(begun=begun, over=over).sort_values("over", kind="stable")[list(_Run._fields)]
    runs = [_Run(*row) for row in ordered.itertuples(index=False, name=None)]
    by_source = [[run for run in runs if run.source == name and math.isfinite(run.over)] for name in limits]
    finished = [run for run in runs if run.outcome in GOOD | BAD]
    counts = {name: int(frame[name].sum()) for name in COUNTS}
    incidents = [incident for one in by_source for incident in _incidents(one)]
    return Kpis(
        source=source,
        runs=len(runs),
        success=_share(sum(run.outcome in GOOD for run in finished), len(finished)),
        freshness=_worst([_freshness(one, limits[name], now) for name, one in zip(limits, by_source, strict=True)]),
        duration=_median([run.ended - run.started for run in finished]),
        availability=_availability(runs, limits, now),
        downtime=_downtime(incidents, now),
        dora=_dora(runs, by_source, incidents, now),
        **counts,
    )


def _share(count: int, total: int) -> Ratio:
    if total == 0:
        return Ratio(0, 0, None, None, None)
    p, z = count / total, Z * Z / total
    middle, half = p + z / 2, Z * math.sqrt(p * (1 - p) / total + z / (4 * total))
    low, high = (middle - half) / (1 + z), (middle + half) / (1 + z)
    return Ratio(count, total, p, max(0.0, min(p, low)), min(1.0, max(p, high)))


def _per_day(count: int, days: float) -> Ratio:
    if days <= 0:
        return Ratio(count, 0.0, None, None, None)
    days = max(days, 1.0)  # two in the first minute are not thousands a day
    more = count + 1
    low = count * (1 - 1 / (9 * count) - Z / (3 * math.sqrt(count))) ** 3 if count else 0.0
    high = more * (1 - 1 / (9 * more) + Z / (3 * math.sqrt(more))) ** 3
    return Ratio(count, days, count / days, max(0.0, low / days), high / days)


def _median(lengths: Sequence[float]) -> Median:
    known = np.sort([length for length in lengths if math.isfinite(length)])
    n = len(known)
    if n == 0:
        return Median(0, None, None, None, None)
    p50, p95 = (float(q) for q in np.quantile(known, [0.5, 0.95]))
    if n < 6:
        return Median(n, p50, p95, None, None)
    rank = max(0, math.floor((n - 1 - Z * math.sqrt(n)) / 2))
    return Median(n, p50, p95, float(known[rank]), float(known[n - 1 - rank]))


def _freshness(runs: Sequence[_Run], limits: tuple[float, float], now: float) -> Freshness:
    good = [run.over for run in runs if run.outcome in GOOD]
    if not good:
        return Freshness(None, "unknown")
    age = max(0.0, now - max(good))
    warn, error = (None if math.isnan(limit) else limit for limit in limits)
    return Freshness(age, attention.freshness(age, warn, error))


def _worst(each: Sequence[Freshness]) -> Freshness:
    ages = [one.seconds for one in each if one.seconds is not None]
    return Freshness(max(ages, default=None), STATUSES[max((STATUSES.index(one.status) for one in each), default=1)])


def _availability(runs: Sequence[_Run], limits: dict[str, tuple[float, float]], now: float) -> Ratio:
    due, good = 0, 0
    for run in runs:
        warn = limits[run.source][0]
        latest = run.scheduled + warn if math.isfinite(warn) else math.inf
        unstarted = math.isnan(run.started) and math.isinf(latest)  # without a limit, one that never began was missed
        if run.scheduled <= now and (run.outcome in GOOD | BAD or latest < now or unstarted):
            due += 1
            good += run.outcome in GOOD and run.over <= latest
    return _share(good, due)


def _incidents(runs: Sequence[_Run]) -> list[_Incident]:
    found: list[_Incident] = []
    first: _Run | None = None
    for run in runs:
        if run.outcome in BAD and first is None:
            first = run
        elif run.outcome in GOOD and first is not None:
            found.append((first.begun, first.over, run.over))
            first = None
    return found if first is None else [*found, (first.begun, first.over, None)]


def _downtime(incidents: Sequence[_Incident], now: float) -> Downtime:
    n = len(incidents)
    detect = sum(max(0.0, detected - begun) for begun, detected, _ in incidents)
    resolve = sum(max(0.0, (now if end is None else end) - detected) for _, detected, end in incidents)
    still_open = sum(end is None for _, _, end in incidents)
    return Downtime(n, still_open, detect + resolve, detect / n if n else None, resolve / n if n else None)


def _dora(
    runs: Sequence[_Run], by_source: Sequence[Sequence[_Run]], incidents: Sequence[_Incident], now: float
) -> Dora:
    changed = [run for run in runs if run.outcome == "changed"]
    starts = [run.started for run in runs if math.isfinite(run.started)]
    finished = [[run for run in one if run.outcome in GOOD | BAD] for one in by_source]
    after = [later.outcome for one in finished for run, later in pairwise(one) if run.outcome == "changed"]
    return Dora(
        deployments=_per_day(len(changed), (now - min(starts, default=now)) / DAY),
        lead_time=_median([run.ended - run.begun for run in changed]),
        change_failure=_share(sum(outcome in BAD for outcome in after), len(after)),
        restore=_median([end - begun for begun, _, end in incidents if end is not None]),
    )


def series(runs: pd.DataFrame, every: Literal["1h", "1d"] = "1h") -> pd.DataFrame:
    """KPI values by hour or day of the runs' start, for charts and the anomaly detector.

    Returns columns time (UTC, start of the bucket), source (`all`: together), name, value. Counts
    (runs, unsuccessful, changes, retries, quarantined) are 0 in a bucket without runs, between a
    source's first and last; success_share and duration_p50 (seconds) have no row there.
    """
    frame = _checked(runs, COLUMNS)
    frame = frame[np.isfinite(frame["started"])]
    columns = ["time", "source", "name", "value"]
    if frame.empty:
        return pd.DataFrame(columns=columns)
    both = pd.concat([frame, frame.assign(source="all")], ignore_index=True)
    parts = [_buckets(one, every).assign(source=name) for name, one in both.groupby("source")]
    return pd.concat(parts)[columns].sort_values(["source", "name", "time"], ignore_index=True)


def _buckets(frame: pd.DataFrame, every: str) -> pd.DataFrame:
    good, bad = frame["outcome"].isin(GOOD), frame["outcome"].isin(BAD)
    sums = ["runs", "unsuccessful", "changes", "retries", "quarantined"]
    values = frame[["retries", "quarantined"]].assign(
        time=pd.to_datetime(frame["started"], unit="s", utc=True),
        runs=1.0,
        unsuccessful=bad.astype(float),
        changes=frame[["inserted", "updated", "deleted"]].sum(axis=1),
        success_share=good.astype(float).where(good | bad),
        duration_p50=frame["ended"] - frame["started"],
    )
    groups = values.set_index("time").resample(every.replace("d", "D"))
    extra = {"success_share": groups["success_share"].mean(), "duration_p50": groups["duration_p50"].median()}
    return groups[sums].sum().assign(**extra).reset_index().melt(id_vars="time", var_name="name").dropna(subset="value")
