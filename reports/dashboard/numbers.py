"""KPIs, anomalies and chart values: computed when asked for, kept until the store's revision changes.

Everything from pandas is imported at first use, so that pages and lists come at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from reports.dashboard.models import Anomalies, Anomaly
from reports.dashboard.reading import Reading

if TYPE_CHECKING:
    import pandas as pd

    from analytics.anomaly_detector import AnomalyDetector
    from analytics.kpi_tracker import Report

__all__ = ["Bucket", "Numbers", "buckets"]

T = TypeVar("T")
HOUR, DAY = 3600.0, 86_400.0
FEW_DAYS = 3
JUDGED = ("changes", "unsuccessful", "quarantined", "duration_p50")
HISTORY_DAYS = 45
KEPT = 32


@dataclass(frozen=True)
class Bucket:
    """One hour or day of runs: how many ended how; seconds from their planned time, else start, to their end."""

    start: float
    changed: int
    unchanged: int
    refused: int
    failed: int
    p50: float | None
    p95: float | None


def buckets(rows: Sequence[Mapping[str, Any]], now: float, days: int = 30) -> tuple[float, list[Bucket]]:
    """The size of a bucket in seconds and the buckets until now, oldest first, without gaps; hours for few days."""
    ended = [row for row in rows if row["ended"] is not None and row["started"] <= now]
    if not ended:
        return HOUR, []
    oldest = max(min(row["started"] for row in ended), now - days * DAY)
    size = HOUR if now - oldest < FEW_DAYS * DAY else DAY
    found: dict[int, list[Mapping[str, Any]]] = {n: [] for n in range(int(oldest // size), int(now // size) + 1)}
    for row in ended:
        found.get(int(row["started"] // size), []).append(row)
    return size, [_bucket(number * size, rows) for number, rows in found.items()]


def _bucket(start: float, rows: list[Mapping[str, Any]]) -> Bucket:
    outcomes = [row["outcome"] for row in rows]
    counts = {name: outcomes.count(name) for name in ("changed", "unchanged", "refused", "failed")}
    delays = sorted(max(0.0, row["ended"] - (row["scheduled"] or row["started"])) for row in rows)
    return Bucket(start, **counts, p50=_quantile(delays, 0.5), p95=_quantile(delays, 0.95))


def _quantile(ascending: list[float], q: float) -> float | None:
    if not ascending:
        return None
    place = q * (len(ascending) - 1)
    low, high = ascending[math.floor(place)], ascending[math.ceil(place)]
    return round(low + (high - low) * (place % 1), 4)


@dataclass
class _Judge:
    """The detector of one series and what it flagged; it sees each hour once, when the hour is over."""

    detector: AnomalyDetector
    upto: float = 0.0
    flagged: list[Anomaly] = field(default_factory=list)

    def see(self, source: str, name: str, at: float, value: float) -> None:
        if at <= self.upto:
            return
        self.upto = at
        found = self.detector.update(value, at)
        if found.flagged and not (name in ("unsuccessful", "quarantined") and value == 0):
            low, high = found.expected or (None, None)
            when = datetime.fromtimestamp(at, UTC)
            self.flagged.append(Anomaly(source, name, when, value, low, high, round(found.score, 4)))


@dataclass
class _Kept:
    """Values that were made, the newest `KEPT`; one thread makes at a time."""

    _lock: Lock = field(default_factory=Lock)
    _values: dict[tuple[object, ...], Any] = field(default_factory=dict)

    def once(self, key: tuple[object, ...], make: Callable[[], T]) -> T:
        """What was made for this key, made now when it wasn't."""
        with self._lock:
            if key not in self._values:
                while len(self._values) >= KEPT:
                    self._values.pop(next(iter(self._values)))
                self._values[key] = make()
            found: T = self._values[key]
            return found


@dataclass
class Numbers:
    """The numbers of one store."""

    reading: Reading
    _buckets: _Kept = field(default_factory=_Kept, repr=False)
    _kpis: _Kept = field(default_factory=_Kept, repr=False)
    _anomalies: _Kept = field(default_factory=_Kept, repr=False)
    _judges: dict[tuple[str, str], _Judge] = field(default_factory=dict, repr=False)

    def tag(self) -> str:
        """What the numbers depend on: the store, and the minute, because ages grow."""
        return f"{self.reading.revision()}-{int(time.time() // 60)}"

    def buckets(self, days: int = 30) -> tuple[float, list[Bucket]]:
        """Chart values; see `buckets`."""
        now = time.time()
        return self._buckets.once(
            (self.tag(), days), lambda: buckets(self.reading.run_rows(now - days * DAY), now, days)
        )

    def kpis(self, days: int) -> Report:
        """The KPIs of the last `days` days."""
        return self._kpis.once((self.tag(), days), lambda: self._track(days))

    def _track(self, days: int) -> Report:
        import pandas as pd

        from analytics.kpi_tracker import track

        now = time.time()
        limits = [(one.source, one.warn_after, one.error_after) for one in self.reading.sources()]
        frame = pd.DataFrame(limits, columns=["source", "warn_after", "error_after"])
        return track(self._runs(now - days * DAY), frame, now)

    def _runs(self, since: float) -> pd.DataFrame:
        import pandas as pd

        frame = pd.DataFrame([dict(row) for row in self.reading.run_rows(since)])
        return frame.assign(outcome=frame["outcome"].fillna("running")) if len(frame) else frame

    def anomalies(self, days: int) -> Anomalies:
        """The unusual hours of the last `days` days, of every source's series."""
        hour = int(time.time() // HOUR)
        return self._anomalies.once((self.reading.revision(), hour, days), lambda: self._judge(days, hour * HOUR))

    def _judge(self, days: int, over: float) -> Anomalies:
        from analytics.anomaly_detector import AnomalyDetector
        from analytics.kpi_tracker import series

        frame = series(self._runs(over - HISTORY_DAYS * DAY), "1h")
        frame = frame[(frame["source"] != "all") & frame["name"].isin(JUDGED)]
        seconds = frame["time"].astype("int64") // 10 ** {"s": 0, "ms": 3, "us": 6, "ns": 9}[_unit(frame)]
        for source, name, at, value in zip(frame["source"], frame["name"], seconds, frame["value"], strict=True):
            if at < over:
                judge = self._judges.setdefault((source, name), _Judge(AnomalyDetector()))
                judge.see(source, name, float(at), float(value))
        since = datetime.fromtimestamp(over - days * DAY, UTC)
        found = [one for judge in self._judges.values() for one in judge.flagged if one.time >= since]
        return Anomalies(sorted(found, key=lambda one: one.time, reverse=True), len(self._judges))


def _unit(frame: pd.DataFrame) -> str:
    return str(getattr(frame["time"].dtype, "unit", "ns"))
