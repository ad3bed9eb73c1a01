"""The KPIs of runs and sources."""

import dataclasses
import math
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from analytics.anomaly_detector import detect
from analytics.kpi_tracker import COLUMNS, Kpis, Report, series, track

NOW = 1_700_000_000.0
HOUR, DAY = 3600.0, 86400.0
SOURCES = pd.DataFrame({"source": ["a"], "warn_after": [HOUR], "error_after": [DAY]})


def row(outcome: str, ago: float, **other: Any) -> dict[str, Any]:
    """A run of source a that started `ago` seconds before NOW and took 10 s."""
    started = NOW - ago
    plain = {"retries": 0, "inserted": 0, "updated": 0, "deleted": 0, "quarantined": 0, "scheduled": math.nan}
    return {"source": "a", "outcome": outcome, "started": started, "ended": started + 10, **plain, **other}


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(COLUMNS))


def kpis(*rows: dict[str, Any]) -> Kpis:
    """The one source's numbers."""
    return track(frame(*rows), SOURCES, NOW).sources[0]


def numbers(value: Any) -> list[float]:
    """Every number inside a report."""
    if dataclasses.is_dataclass(value):
        return [n for field in dataclasses.fields(value) for n in numbers(getattr(value, field.name))]
    if isinstance(value, tuple):
        return [n for one in value for n in numbers(one)]
    return [value] if isinstance(value, int | float) else []


@pytest.mark.parametrize("empty", [pd.DataFrame(), frame()])
def test_empty_frames(empty: pd.DataFrame) -> None:
    """Empty frames, with or without columns, give zeros and None, never NaN."""
    report = track(empty, pd.DataFrame(), NOW)
    assert report.sources == ()
    assert (report.total.runs, report.total.success.value, report.total.freshness.status) == (0, None, "unknown")
    assert all(math.isfinite(n) for n in numbers(report))
    assert series(empty).empty


times = st.one_of(st.floats(0, 2e9), st.just(math.nan))
runs = st.fixed_dictionaries(
    {
        "source": st.sampled_from("ab"),
        "outcome": st.sampled_from(["changed", "unchanged", "refused", "failed", "running"]),
        "started": times,
        "ended": times,
        "scheduled": times,
        **{name: st.integers(0, 9) for name in ("retries", "inserted", "updated", "deleted", "quarantined")},
    }
)


@examples(deadline=None, max_examples=60)
@given(st.lists(runs, max_size=12))
def test_never_nan(rows: list[dict[str, Any]]) -> None:
    """Whatever is missing in the runs, no number of the report is NaN, and the shares stay within their totals."""
    report: Report = track(frame(*rows), SOURCES, NOW)
    assert all(math.isfinite(n) for n in numbers(report))
    for one in (report.total, *report.sources):
        assert 0 <= one.availability.count <= one.availability.total
        if one.success.total:
            assert 0 <= (one.success.low or 0) <= (one.success.value or 0) <= (one.success.high or 0) <= 1


def test_success_share_with_wilson_interval() -> None:
    """Changed and unchanged succeed, refused and failed do not, a running one does not count."""
    share = kpis(
        *[row("changed", 9), row("unchanged", 8), row("failed", 7), row("refused", 6), row("running", 5)]
    ).success
    assert (share.count, share.total, share.value) == (2, 4, 0.5)
    assert [share.low, share.high] == pytest.approx([0.1500, 0.8500], abs=1e-4)


@pytest.mark.parametrize(("ago", "status"), [(60.0, "fresh"), (HOUR + 11, "warn"), (DAY + 11, "error")])
def test_freshness_against_limits(ago: float, status: str) -> None:
    """The age of the newest successful run decides; later failures do not refresh."""
    fresh = kpis(row("unchanged", ago), row("failed", 20)).freshness
    assert (fresh.seconds, fresh.status) == (ago - 10, status)


def test_freshness_unknown() -> None:
    """A source that never succeeded is of unknown freshness; without limits a success stays fresh."""
    assert kpis(row("failed", 20)).freshness.status == "unknown"
    assert track(frame(row("changed", 20)), pd.DataFrame(), NOW).total.freshness.status == "fresh"


def test_total_freshness_is_the_worst() -> None:
    """One stale source makes the whole stale."""
    limits = pd.DataFrame({"source": ["a", "b"], "warn_after": [HOUR, HOUR], "error_after": [DAY, DAY]})
    report = track(frame(row("changed", 20), row("changed", 2 * HOUR, source="b")), limits, NOW)
    assert (report.total.freshness.status, report.total.freshness.seconds) == ("warn", 2 * HOUR - 10)


def test_counts_add_up() -> None:
    """Retries, changes and quarantined rows are sums."""
    one = kpis(
        row("changed", 9, retries=2, inserted=3, updated=1, deleted=4, quarantined=5), row("changed", 8, inserted=1)
    )
    assert (one.retries, one.inserted, one.updated, one.deleted, one.quarantined) == (2, 4, 1, 4, 5)


def test_duration_quantiles() -> None:
    """Duration p50 and p95 are linear quantiles; the median's interval appears from six runs on."""
    rows = [row("unchanged", 1000 - i, ended=NOW - 1000 + i + length) for i, length in enumerate(range(1, 22))]
    found = kpis(*rows).duration
    assert (found.count, found.p50, found.p95) == (21, 11, 20)
    assert (found.low, found.high) == (6, 16)
    assert kpis(*rows[:5]).duration.low is None


def test_availability_counts_planned_runs_in_time() -> None:
    """A planned run counts when it succeeded within the warn limit; late, failed and missed ones do not."""
    share = kpis(
        row("changed", 5 * HOUR, scheduled=NOW - 5 * HOUR),
        row("changed", 5 * HOUR, scheduled=NOW - 7 * HOUR),
        row("failed", 4 * HOUR, scheduled=NOW - 4 * HOUR),
        row("missed", 0, scheduled=NOW - 3 * HOUR, started=math.nan, ended=math.nan),
        row("running", 60, scheduled=NOW - 60, ended=math.nan),
        row("planned", 0, scheduled=NOW + 60, started=math.nan, ended=math.nan),
        row("changed", 60),
    ).availability
    assert (share.count, share.total) == (1, 4)


def test_downtime_is_detect_plus_resolve() -> None:
    """An incident runs from the planned time of the first bad run to the end of the next good one."""
    found = kpis(
        row("changed", 500),
        row("failed", 400, scheduled=NOW - 420),
        row("refused", 300),
        row("unchanged", 200),
        row("failed", 100),
    ).downtime
    assert (found.incidents, found.open) == (2, 1)
    assert found.seconds == (30 + 200) + (10 + 90)
    assert (found.to_detect, found.to_resolve) == (20, 145)


def test_total_adds_the_incidents_of_all_sources() -> None:
    """A good run of one source does not end the incident of another."""
    report = track(frame(row("failed", 100), row("changed", 50, source="b")), SOURCES, NOW)
    assert (report.total.downtime.incidents, report.total.downtime.open) == (1, 1)


def test_dora_four() -> None:
    """Deployments a day, lead time, change-failure rate and time to restore come with counts and intervals."""
    dora = kpis(
        row("changed", 2 * DAY, scheduled=NOW - 2 * DAY - 20),
        row("failed", DAY),
        row("changed", DAY / 2),
        row("unchanged", 60),
    ).dora
    assert [dora.deployments.count, dora.deployments.value] == pytest.approx([2, 1.0])
    assert (dora.deployments.low or 9) < 1 < (dora.deployments.high or 0)
    assert (dora.lead_time.count, dora.lead_time.p50) == (2, 20)
    assert (dora.change_failure.count, dora.change_failure.total) == (1, 2)
    assert (dora.restore.count, dora.restore.p50) == (1, DAY / 2 + 10)


def test_poisson_interval() -> None:
    """Byar's interval of 10 events in 10 days is within a hundredth of the exact [0.480, 1.839] a day."""
    rows = [row("changed", (10 - i) * DAY) for i in range(10)]
    found = kpis(*rows).dora.deployments
    assert [found.low, found.high] == pytest.approx([0.480, 1.839], abs=0.01)


def test_missing_column_is_named() -> None:
    """A frame without a needed column is refused by name."""
    with pytest.raises(ValueError, match="outcome"):
        track(frame(row("changed", 1)).drop(columns="outcome"), SOURCES, NOW)


def test_input_is_not_changed() -> None:
    """The frames given are left as they were."""
    given_runs = frame(row("changed", 100), row("failed", 50))
    before = given_runs.copy()
    track(given_runs, SOURCES, NOW)
    series(given_runs)
    pd.testing.assert_frame_equal(given_runs, before)


def test_series_is_tidy_and_gapless() -> None:
    """Hourly series have a 0 for counts in an hour without runs, no row for shares, and an `all` source."""
    tidy = series(frame(row("changed", 3 * HOUR, inserted=2), row("failed", 60, source="a")))
    assert list(tidy.columns) == ["time", "source", "name", "value"]
    assert set(tidy["source"]) == {"a", "all"}
    one = tidy[tidy["source"] == "a"]
    assert list(one[one["name"] == "changes"]["value"]) == [2, 0, 0, 0]
    assert list(one[one["name"] == "success_share"]["value"]) == [1, 0]
    assert not tidy["value"].isna().any()


def test_series_by_day_feeds_the_detector() -> None:
    """A daily KPI series goes straight into the anomaly detector, which finds the bad day."""
    rows = [row("changed", (60 - i) * DAY, inserted=900 if i == 50 else 10 + i % 3) for i in range(60)]
    tidy = series(frame(*rows), every="1d")
    one = tidy[(tidy["source"] == "a") & (tidy["name"] == "changes")].set_index("time")["value"]
    flagged = detect(one)["flagged"]
    assert list(one[flagged]) == [900]
