"""Which points of a collection's history are kept."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from autosync.retention import DAY, Point, kept, portions, protected, spans
from autosync.settings import Retention

NOW = datetime(2026, 11, 23, 15, 0, tzinfo=UTC).timestamp()
RULES = st.builds(Retention, days=st.integers(0, 40), daily=st.integers(0, 90))


@st.composite
def histories(draw: st.DrawFn) -> list[Point]:
    """Points up to half a year old, several an hour or weeks apart, one of them perhaps in the future."""
    gaps = draw(st.lists(st.sampled_from([60.0, 3600.0, 7 * 3600.0, DAY, 9 * DAY, 33 * DAY]), min_size=1, max_size=40))
    time, points = NOW + draw(st.sampled_from([0.0, 3600.0, -90 * DAY])) - sum(gaps), list[Point]()
    for number, gap in enumerate(gaps):
        time += gap
        points.append(Point(3 * number + 1, time))
    return points


def at(text: str, seq: int) -> Point:
    """A point at a time such as 2026-11-20T12:00."""
    return Point(seq, datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def day(point: Point) -> str:
    return datetime.fromtimestamp(point.time, UTC).strftime("%Y-%m-%d")


def test_all_then_daily_then_monthly() -> None:
    """Two days of everything, ten days of each day's last, before that each month's last."""
    points = [
        at("2026-08-01T00:00", 1),
        at("2026-08-31T23:59", 2),  # the last of August
        at("2026-09-01T00:00", 3),
        at("2026-10-02T08:00", 4),
        at("2026-10-02T09:00", 5),  # the last of October
        at("2026-11-10T10:00", 6),  # older than twelve days, and November goes on
        at("2026-11-20T10:00", 7),
        at("2026-11-20T23:00", 8),  # the last of its day
        at("2026-11-21T10:00", 9),  # older than two days, and its day goes on
        at("2026-11-21T15:01", 10),
        at("2026-11-21T15:02", 11),
        at("2026-11-23T14:00", 12),
    ]
    assert kept(points, Retention(days=2, daily=10), NOW) == {2, 3, 5, 8, 10, 11, 12}


def test_the_days_are_those_of_utc() -> None:
    """Midnight in UTC parts two days, whatever the clock on the wall says."""
    points = [
        at("2026-11-01T23:59", 1),
        at("2026-11-02T00:00", 2),
        at("2026-11-02T23:59", 3),
        at("2026-11-03T00:00", 4),
    ]
    assert kept(points, Retention(days=0, daily=100), NOW) == {1, 3, 4}


def test_nothing_is_kept_of_nothing() -> None:
    """No point, no consumer."""
    assert kept([], Retention(), NOW) == protected([], []) == frozenset()
    assert spans([], {1}) == []


@given(histories(), RULES)
def test_each_point_that_goes_has_a_kept_one_after_it(points: list[Point], rule: Retention) -> None:
    """Young points stay; each day of the daily time and each month keep their last; the newest stays; no more do."""
    keep = kept(points, rule, NOW)
    assert points[-1].seq in keep
    for point in points:
        same_day = [other.seq for other in points if day(other) == day(point)]
        same_month = [other.seq for other in points if day(other)[:7] == day(point)[:7]]
        age = NOW - point.time
        if age < rule.days * DAY:
            assert point.seq in keep
        elif age < (rule.days + rule.daily) * DAY:
            assert max(same_day) in keep
            assert (point.seq in keep) == (point.seq == max(same_day))
        else:
            assert max(same_month) in keep
            assert (point.seq in keep) == (point.seq == max(same_month))


@given(histories(), RULES, st.floats(0, 60 * DAY))
def test_thinning_early_and_again_is_thinning_once(points: list[Point], rule: Retention, later: float) -> None:
    """No point is missed later because another one went earlier."""
    early = kept(points, rule, NOW)
    left = [point for point in points if point.seq in early]
    assert kept(left, rule, NOW) == early
    assert kept(left, rule, NOW + later) == kept(points, rule, NOW + later)


@given(histories(), st.lists(st.integers(0, 130), max_size=3))
def test_what_consumers_have_not_read_is_protected(points: list[Point], cursors: list[int]) -> None:
    """The slowest consumer's point and everything after; only the newest when nobody reads."""
    found = protected(points, cursors)
    lowest = min(cursors) if cursors else points[-1].seq
    assert {point.seq for point in points if point.seq > lowest} <= found
    assert len([seq for seq in found if seq <= lowest]) == any(point.seq <= lowest for point in points)
    assert not [seq for seq in found if any(seq < point.seq <= lowest for point in points)]


@given(histories(), RULES)
def test_a_span_ends_with_its_kept_point(points: list[Point], rule: Retention) -> None:
    """Every point is in one span, in order; a span's only kept point is its last."""
    keep = kept(points, rule, NOW)
    found = spans(((point.seq, point) for point in points), keep)
    assert [point for span in found for point in span] == points
    assert all([point.seq in keep for point in span] == [False] * (len(span) - 1) + [True] for span in found)


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(0, 100))
def test_work_is_cut_into_bounded_portions(sizes: list[int], most: int) -> None:
    """Nothing is lost; a portion of more than two stays below the limit; two or more items always get somewhere."""
    found = portions(sizes, int, most)
    assert [size for portion in found for size in portion] == sizes
    assert all(len(portion) <= 2 or sum(portion) <= most for portion in found)
    assert all(len(portion) > 1 for portion in found[:-1])
    assert len(found) < len(sizes) or len(sizes) < 2
