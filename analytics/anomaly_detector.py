"""Streaming anomaly detection for a single series, such as one KPI.

Each value is judged from what came before it and nothing else. The distances to the
nearest earlier stretches (k nearest neighbours, one per stretch length) and a robust
time-of-day deviation are each turned into an online rank, the ranks are averaged, and
a value far outside everything seen counts as a spike. A flag is followed by a rest.

Source: KNN-CAD (Burnaev & Ishimtsev 2016, https://arxiv.org/abs/1608.04585), as an ensemble with
ranks in place of its conformal sum. The measured figures are in docs/analytics.md.
"""

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["AnomalyDetector", "Detection", "Settings", "detect"]

Floats = npt.NDArray[np.float64]
DAY = 86400.0
LARGEST = 1e150  # squares of larger ones would overflow
FULL_SURPRISE = 3.5  # evidence (in powers of ten) that gives score 1


@dataclass(frozen=True)
class Settings:
    """What the detector may be told; the defaults are the benchmarked ones. Raises ValueError for nonsense.

    lengths: of the stretches in points, each twice the one before. neighbours: nearest stretches that count,
    among the last `window` points. smoothing: points a distance is averaged over. memory: numbers kept per rank.
    slots: parts of a day, each keeping slot_memory values and used from slot_least on. season_weight: weight of
    the time-of-day rank beside the mean stretch rank. spike_share: how far outside all values, as a share of their
    range, is a spike. warm_up: points before any flag. patience: evidence (powers of ten) asked for per tenfold
    longer history, from patience_from points on, so that alerts do not grow with a series' length. rest_*: the
    rest after a flag, a share of the points seen, within points. threshold: the score that is flagged.
    """

    lengths: tuple[int, ...] = (6, 12, 24, 48, 96)
    neighbours: int = 3
    window: int = 3000
    smoothing: int = 8
    memory: int = 5000
    slots: int = 48
    slot_memory: int = 42
    slot_least: int = 8
    season_weight: float = 0.5
    spike_share: float = 0.25
    warm_up: int = 24
    patience: float = 0.7
    patience_from: int = 600
    rest_share: float = 1 / 24
    rest_least: int = 12
    rest_most: int = 400
    threshold: float = 0.5

    def __post_init__(self) -> None:
        counts = (self.neighbours, self.smoothing, self.memory, self.slots, self.slot_least, self.patience_from)
        if not self.lengths or min(*self.lengths, *counts) < 1:
            raise ValueError("lengths and counts must be at least 1")
        if self.lengths != tuple(self.lengths[0] * 2**i for i in range(len(self.lengths))):
            raise ValueError(f"each length must be twice the one before: {self.lengths}")
        if self.window < 2 * self.lengths[-1] or self.slot_memory < self.slot_least or not 0 < self.threshold <= 1:
            raise ValueError("window must hold two stretches, slot_memory slot_least, threshold be in (0, 1]")


@dataclass(frozen=True)
class Detection:
    """The verdict on one value.

    score: 0 (nothing unusual) to 1. flagged: worth an alert: at the threshold, and not resting. expected:
    (low, high) from earlier values at this time of day, else the latest ones; None while too few are known.
    missing: the value was NaN or infinite, and passed over.
    """

    score: float
    flagged: bool
    expected: tuple[float, float] | None
    missing: bool = False


class _Rank:
    """How rare a number is among the last `memory` ones: -log10 of its empirical p-value."""

    def __init__(self, memory: int, smoothing: int) -> None:
        self.memory = memory
        self.latest: deque[float] = deque(maxlen=smoothing)
        self.order: deque[float] = deque()
        self.ascending: list[float] = []

    def surprise(self, number: float) -> float:
        self.latest.append(number)
        smooth = sum(self.latest) / len(self.latest)
        known = len(self.ascending)
        at_least = known - bisect_left(self.ascending, smooth)
        insort(self.ascending, smooth)
        self.order.append(smooth)
        if known >= self.memory:
            del self.ascending[bisect_left(self.ascending, self.order.popleft())]
        return math.log10((known + 1) / (at_least + 1))

    def restore(self, latest: list[float], order: list[float]) -> None:
        self.latest.extend(latest)
        self.order.extend(order)
        self.ascending = sorted(order)


class _Stretches:
    """Distances from the newest stretch to its nearest earlier ones, one per length.

    Entry l of a row is for the stretches that end now and l + 1 points ago. A stretch of 2m points is
    one of m now plus one of m m points ago: one addition per lag, and no rounding error builds up.
    """

    def __init__(self, settings: Settings) -> None:
        self.lengths, self.neighbours, self.window = settings.lengths, settings.neighbours, settings.window
        self.keep = self.window + 2 * self.lengths[-1]
        self.values: Floats = np.zeros(4 * self.keep)
        self.end = self.keep
        self.count = 0
        self.single: Floats = np.zeros((self.lengths[0], self.window))
        self.rows: list[Floats] = [np.zeros((m, self.window)) for m in self.lengths]

    def push(self, value: float) -> list[float]:
        """Take in a value; the distances (root of summed squares) that exist so far, shortest first."""
        row = self.single[self.count % self.lengths[0]]
        np.square(self.values[self.end - self.window : self.end][::-1] - value, out=row)
        total: Floats = self.single.sum(axis=0)
        found: list[float] = []
        for m, rows in zip(self.lengths, self.rows, strict=True):
            reach = min(self.window, self.count - m + 1)  # lags whose stretch lies wholly in the data
            if reach < self.neighbours:
                break
            nearest = np.partition(total[:reach], self.neighbours - 1)[: self.neighbours]
            found.append(float(np.sqrt(nearest).mean()))
            older = rows[self.count % m]
            longer = total + older
            older[:] = total
            total = longer
        self._store(value)
        return found

    def _store(self, value: float) -> None:
        if self.end == len(self.values):
            self.values[: self.keep] = self.values[-self.keep :]
            self.end = self.keep
        self.values[self.end] = value
        self.end += 1
        self.count += 1

    def recent(self, most: int) -> Floats:
        """The latest values, oldest first, shape (<= most,)."""
        return self.values[self.end - min(most, self.count) : self.end]

    def restore(self, values: list[float], count: int) -> None:
        """Go to where `count` values had been pushed, of which `values` are the last."""
        known = max(0, len(values) - 2 * self.lengths[-1])
        self.values[self.end - known : self.end] = values[:known]
        self.count = count - (len(values) - known)
        for value in values[known:]:
            self.push(value)


class AnomalyDetector:
    """Judges a series value by value; memory is bounded and nothing later is ever used."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        s = self.settings
        self._stretches = _Stretches(s)
        self._ranks = [_Rank(s.memory, s.smoothing) for _ in (*s.lengths, "season")]
        self._slots: list[deque[float]] = [deque(maxlen=s.slot_memory) for _ in range(s.slots)]
        self._low, self._high = math.inf, -math.inf
        self._resting_until = 0

    def update(self, value: float, time: float | None = None) -> Detection:
        """Judge the next value of the series; `time` is unix seconds, None leaves out the time of day.

        NaN and infinite values are reported as missing and change nothing. Never raises for a float.
        """
        slot = self._slot(time)
        expected = self._expected(slot)
        if not math.isfinite(value):
            return Detection(0.0, False, expected, missing=True)
        value = min(max(float(value), -LARGEST), LARGEST)
        score = self._score(value, slot)
        self._low, self._high = min(self._low, value), max(self._high, value)
        if slot is not None:
            slot.append(value)
        return self._decide(score, expected)

    def _slot(self, time: float | None) -> deque[float] | None:
        if time is None or not math.isfinite(time):
            return None
        return self._slots[int(time % DAY / DAY * self.settings.slots) % self.settings.slots]

    def _expected(self, slot: deque[float] | None) -> tuple[float, float] | None:
        s = self.settings
        values = slot if slot is not None and len(slot) >= s.slot_least else self._stretches.recent(s.slot_memory)
        if len(values) < s.slot_least:
            return None
        middle, spread = _middle_and_spread(values)
        return middle - 6 * spread, middle + 6 * spread  # about four standard deviations

    def _score(self, value: float, slot: deque[float] | None) -> float:
        s = self.settings
        seen = self._stretches.count
        floor = 1e-9 * max(abs(self._low), abs(self._high), abs(value)) if seen else 0.0
        distances = [d if d > floor else 0.0 for d in self._stretches.push(value)]
        surprises = [rank.surprise(d) for rank, d in zip(self._ranks, distances, strict=False)]
        evidence = sum(surprises) / len(surprises) if surprises else 0.0
        if slot is not None and len(slot) >= s.slot_least:
            season = self._ranks[-1].surprise(_deviation(value, slot))
            evidence = (evidence + s.season_weight * season) / (1 + s.season_weight)
        evidence -= min(evidence, 1.0) * s.patience * math.log10(max(seen, s.patience_from) / 4000)
        return 1.0 if self._is_spike(value) else min(max(evidence / FULL_SURPRISE, 0.0), 1.0)

    def _is_spike(self, value: float) -> bool:
        margin = self.settings.spike_share * (self._high - self._low)
        return margin > 0 and not self._low - margin <= value <= self._high + margin

    def _decide(self, score: float, expected: tuple[float, float] | None) -> Detection:
        s = self.settings
        seen = self._stretches.count
        if seen <= max(s.warm_up, self._resting_until):
            return Detection(min(score, 0.99 * s.threshold), False, expected)
        flagged = score >= s.threshold
        rest = min(s.rest_most, max(s.rest_least, int(seen * s.rest_share)))
        self._resting_until = seen + rest if flagged else self._resting_until
        return Detection(score, flagged, expected)

    def state(self) -> dict[str, Any]:
        """Everything needed to go on later, as JSON-able values; see `from_state`."""
        stretches = self._stretches
        return {
            "settings": asdict(self.settings) | {"lengths": list(self.settings.lengths)},
            "count": stretches.count,
            "values": stretches.recent(stretches.keep).tolist(),
            "ranks": [[list(rank.latest), list(rank.order)] for rank in self._ranks],
            "slots": [list(slot) for slot in self._slots],
            "range": [self._low, self._high] if stretches.count else None,
            "resting_until": self._resting_until,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "AnomalyDetector":
        """The detector that gave `state`, to the last bit. Raises KeyError or TypeError for another mapping."""
        one = cls(Settings(**{**state["settings"], "lengths": tuple(state["settings"]["lengths"])}))
        one._stretches.restore(list(state["values"]), int(state["count"]))
        for rank, (latest, order) in zip(one._ranks, state["ranks"], strict=True):
            rank.restore(latest, order)
        for slot, values in zip(one._slots, state["slots"], strict=True):
            slot.extend(values)
        one._low, one._high = state["range"] or (math.inf, -math.inf)
        one._resting_until = int(state["resting_until"])
        return one


def detect(series: "pd.Series[Any]", settings: Settings | None = None) -> pd.DataFrame:
    """Judge a whole series of numbers, shape (n,), oldest first, exactly as `update` would one by one.

    The times of a DatetimeIndex are used (without a zone: UTC). Returns n rows with the same index
    and columns score, flagged, low, high (NaN while unknown).
    """
    detector = AnomalyDetector(settings)
    values = pd.to_numeric(series, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    found = [detector.update(float(v), t) for v, t in zip(values, _times(series.index), strict=True)]
    rows = [(d.score, d.flagged, *(d.expected or (math.nan, math.nan))) for d in found]
    frame = pd.DataFrame(rows, index=series.index, columns=["score", "flagged", "low", "high"])
    return frame.astype({"score": float, "flagged": bool, "low": float, "high": float})


def _times(index: "pd.Index[Any]") -> Iterable[float | None]:
    if not isinstance(index, pd.DatetimeIndex):
        return [None] * len(index)
    utc = index.tz_localize("UTC") if index.tz is None else index.tz_convert("UTC")
    seconds = utc.as_unit("us").asi8 / 1e6
    return [None if unknown else float(t) for t, unknown in zip(seconds, index.isna(), strict=True)]


def _middle(values: list[float]) -> float:
    ascending, half = sorted(values), len(values) // 2
    return (ascending[half] + ascending[-1 - half]) / 2


def _middle_and_spread(values: Iterable[float]) -> tuple[float, float]:
    """Median, and median absolute deviation."""
    middle = _middle(known := [float(v) for v in values])
    return middle, _middle([abs(v - middle) for v in known])


def _deviation(value: float, earlier: Iterable[float]) -> float:
    """Robust z: distance from the median in spreads, the least spread being a hundredth of the level."""
    middle, spread = _middle_and_spread(earlier)
    return abs(value - middle) / (spread + 0.01 * abs(middle) + 1e-9)
