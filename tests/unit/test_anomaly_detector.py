"""The streaming anomaly detector."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from analytics.anomaly_detector import AnomalyDetector, Detection, Settings, _Stretches, detect

NAB = Path(__file__).resolve().parents[3] / "shared" / "data" / "nab" / "series"
SMALL = Settings(lengths=(2, 4), window=20, memory=30, slots=4, slot_memory=6, slot_least=2)
anything = st.floats(allow_nan=True, allow_infinity=True)
series_of_anything = st.lists(st.one_of(anything, st.integers(0, 3).map(float)), max_size=80)


def run(values: list[float], settings: Settings | None = None, step: float | None = 3600.0) -> list[Detection]:
    detector = AnomalyDetector(settings)
    return [detector.update(v, None if step is None else i * step) for i, v in enumerate(values)]


def noise(n: int, seed: int = 0) -> list[float]:
    return [float(v) for v in np.random.default_rng(seed).normal(10, 1, n)]


@examples(deadline=None, max_examples=40)
@given(series_of_anything, st.integers(0, 80))
def test_no_look_ahead(values: list[float], cut: int) -> None:
    """The verdicts on a prefix are the prefix of the verdicts, bit for bit."""
    assert run(values, SMALL)[:cut] == run(values[:cut], SMALL)


def test_no_look_ahead_in_frames() -> None:
    """`detect` on a prefix gives the first rows of `detect` on the whole series."""
    series = pd.Series(noise(300), index=pd.date_range("2024-01-01", periods=300, freq="1h"))
    pd.testing.assert_frame_equal(detect(series[:170]), detect(series)[:170])


@examples(deadline=None, max_examples=40)
@given(series_of_anything)
def test_always_defined(values: list[float]) -> None:
    """Any floats, NaN and infinities included, give a finite score in [0, 1] and an ordered range."""
    for one in run(values, SMALL):
        assert 0 <= one.score <= 1
        assert one.expected is None or one.expected[0] <= one.expected[1]
        assert one.flagged is (one.score >= SMALL.threshold)


@examples(deadline=None, max_examples=40)
@given(series_of_anything, st.integers(0, 80))
def test_state_goes_on_exactly(values: list[float], cut: int) -> None:
    """A detector restored from its state, through JSON, judges the rest exactly as the first one."""
    whole = run(values, SMALL)
    first = AnomalyDetector(SMALL)
    for i, value in enumerate(values[:cut]):
        first.update(value, i * 3600.0)
    second = AnomalyDetector.from_state(json.loads(json.dumps(first.state(), allow_nan=False)))
    rest = [second.update(v, i * 3600.0) for i, v in enumerate(values) if i >= cut]
    assert rest == whole[cut:]


def test_state_after_the_window_turned_over() -> None:
    """The state is exact when far more values than the window holds have passed, and it stops growing."""
    values = noise(1000)
    first = AnomalyDetector(SMALL)
    sizes = []
    for i, value in enumerate(values[:700]):
        first.update(value, i * 3600.0)
        sizes.append(len(json.dumps(first.state())) if i in (350, 699) else 0)
    second = AnomalyDetector.from_state(first.state())
    assert [second.update(v, (700 + i) * 3600.0) for i, v in enumerate(values[700:])] == run(values, SMALL)[700:]
    assert sizes[-1] < 1.1 * sizes[350]


def test_neighbour_distances_are_the_plain_ones() -> None:
    """The incremental distances equal those computed from the definition."""
    s = Settings(lengths=(3, 6), window=40, neighbours=2)
    values, stretches = np.array(noise(120)), _Stretches(s)
    for i, value in enumerate(values):
        found = stretches.push(float(value))
        for m, distance in zip(s.lengths, found, strict=False):
            newest = values[i - m + 1 : i + 1]
            lags = range(1, min(s.window, i - m + 1) + 1)
            plain = sorted(np.linalg.norm(newest - values[i - m + 1 - lag : i + 1 - lag]) for lag in lags)
            assert distance == pytest.approx(np.mean(plain[:2]))


def test_constant_series_is_never_flagged() -> None:
    """A constant series scores 0 throughout and its range is the constant."""
    found = run([5.0] * 400)
    assert {one.score for one in found} == {0.0}
    assert found[-1].expected == (5.0, 5.0)


def test_departure_from_a_constant_is_flagged_once() -> None:
    """The first other value after a constant stretch is flagged, and the rest afterwards stays quiet."""
    found = run([5.0] * 70 + [9.0] + [5.0] * 29, step=None)
    assert [i for i, one in enumerate(found) if one.flagged] == [70]


def test_short_series_finds_a_spike() -> None:
    """Fifty points are enough: a spike at the 45th is flagged at once, and lies outside the range."""
    values = noise(50)
    values[45] = 30.0
    spike = run(values)[45]
    assert spike.flagged
    assert spike.score == 1.0
    assert spike.expected is not None and spike.expected[1] < 30.0


def test_noise_raises_few_alerts() -> None:
    """Fifty points of plain noise raise less than one alert in two series."""
    assert sum(one.flagged for seed in range(40) for one in run(noise(50, seed), step=None)) < 20


def test_missing_values_change_nothing() -> None:
    """NaN is reported as missing and the other values are judged as if it had not been there."""
    values = noise(60)
    with_gap = [*values[:30], math.nan, *values[30:]]
    found = run(with_gap, step=None)
    assert found[30].missing and not found[30].flagged and found[30].score == 0.0
    assert found[:30] + found[31:] == run(values, step=None)


def test_a_break_of_the_daily_pattern_is_flagged() -> None:
    """A day without its usual hump is found although every value of it is ordinary."""
    day = [10.0 + 5 * math.sin(math.pi * h / 12) for h in range(24)]
    values = [v + e for v, e in zip(day * 20, noise(480), strict=True)]
    values[15 * 24 : 16 * 24] = [10.0 + e for e in noise(24, 1)]
    assert any(one.flagged for one in run(values)[15 * 24 : 16 * 24 + 12])


def test_detect_frame() -> None:
    """`detect` keeps the index, also an empty or a non-numeric series gives a typed frame."""
    series = pd.Series(["1", None, "x"], index=["a", "b", "c"], dtype=object)
    frame = detect(series)
    assert list(frame.index) == ["a", "b", "c"]
    assert list(frame.columns) == ["score", "flagged", "low", "high"]
    assert detect(pd.Series([], dtype=float))["flagged"].dtype.kind == "b"


@pytest.mark.parametrize(
    "change",
    [{"lengths": ()}, {"lengths": (5, 11)}, {"window": 10}, {"slot_least": 50}, {"threshold": 0.0}, {"neighbours": 0}],
)
def test_settings_refuse_nonsense(change: dict[str, object]) -> None:
    """Settings that contradict themselves raise ValueError."""
    with pytest.raises(ValueError):
        replace(Settings(), **change)  # type: ignore[arg-type]  # the values are wrong on purpose


@pytest.mark.skipif(not NAB.exists(), reason="the benchmark data (../shared/data/nab) is not here")
def test_known_failure_is_found() -> None:
    """In a NAB file with a labelled failure at most six flags are raised, one of them inside a window."""
    table = pd.read_csv(NAB / "realAWSCloudwatch" / "rds_cpu_utilization_e47b3b.csv", parse_dates=["timestamp"])
    frame = detect(table.set_index("timestamp")["value"])
    flags = frame.index[frame["flagged"]]
    assert 1 <= len(flags) <= 6
    assert any(pd.Timestamp("2014-04-13") <= flag <= pd.Timestamp("2014-04-14") for flag in flags)
