"""The sync policy that learns when changes come."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from analytics.predictive_sync import SHAPES, Policy, profile

DAY, HOUR = 86400.0, 3600.0
START = 4 * DAY + 2800 * 7 * DAY  # a Monday, 00:00 UTC


def replay(policy: Policy, events: np.ndarray, days: float) -> tuple[list[float], float]:
    """Sync times and the mean wait of the events after START."""
    now, syncs, waits = START, [], []
    while now < START + days * DAY:
        at = policy.next(now)
        fresh = events[(events > now) & (events <= at)]
        policy.observe(at, fresh)
        waits += [at - e for e in fresh]
        syncs.append(at)
        now = at
    return syncs, float(np.mean(waits)) if waits else 0.0


def daily(days: int, hour: float, first: float) -> np.ndarray:
    return np.array([first + d * DAY + hour * HOUR for d in range(days)])


def test_empty_history_is_a_fixed_interval() -> None:
    """With nothing known the syncs are evenly spaced and use the budget."""
    syncs, _ = replay(Policy(4, np.zeros(0), START), np.zeros(0), 14)
    assert np.diff(syncs) == pytest.approx(6 * HOUR, rel=0.05)


@examples(deadline=None, max_examples=30)
@given(
    st.lists(st.one_of(st.floats(-1e10, 1e10), st.just(math.nan), st.just(math.inf)), max_size=12),
    st.floats(0.01, 2000),
    st.floats(-1e10, 1e10),
)
def test_time_is_always_finite_and_later(history: list[float], budget: float, now: float) -> None:
    """Any history, also of 0, 1 or few arrivals or with rubbish in it, gives a finite later time."""
    at = Policy(budget, np.array(history), now).next(now)
    assert math.isfinite(at)
    assert now < at <= now + 7 * DAY + 1


@pytest.mark.parametrize("budget", [4, 24])
def test_budget_is_kept(budget: int) -> None:
    """Over 30 days of clustered changes the number of syncs is within 5 % of the budget."""
    events = np.sort(np.concatenate([daily(90, h, START - 60 * DAY) for h in (9, 9.2, 14, 14.5)]))
    syncs, _ = replay(Policy(budget, events[events < START], START), events, 30)
    assert len(syncs) == pytest.approx(30 * budget, rel=0.05)


@pytest.mark.parametrize("budget", [4, 24])
def test_regular_changes_wait_less(budget: int) -> None:
    """Changes that come at the same time each day wait less than half as long as with a fixed interval."""
    events = daily(90, 9.4, START - 60 * DAY)
    _, wait = replay(Policy(budget, events[events < START], START), events, 30)
    assert wait < 0.5 * DAY / budget / 2


def test_random_changes_cost_little() -> None:
    """Where nothing can be learnt the wait stays within 6 % of a fixed interval's."""
    rng = np.random.default_rng(0)
    events = np.sort(rng.uniform(START - 100 * DAY, START + 100 * DAY, 4000))
    _, wait = replay(Policy(8, events[events < START], START), events, 100)
    assert wait <= 1.06 * DAY / 8 / 2


def test_learns_without_history() -> None:
    """What its own syncs reveal is enough: the last month's wait is less than half the fixed interval's."""
    events = daily(120, 9.4, START)
    policy = Policy(8, np.zeros(0), START)
    replay(policy, events, 90)
    found = policy.profile(START + 90 * DAY)
    assert found.weights["flat"] < 0.01
    assert max(range(24), key=lambda h: found.hourly[h]) == 9


def test_only_that_something_changed() -> None:
    """When only [now] is told after a long gap, the gap's hours share the event and all stays finite."""
    policy = Policy(2, np.zeros(0), START)
    now = START
    for _ in range(60):
        now = policy.next(now)
        policy.observe(now, np.array([now]))
    found = policy.profile(now)
    assert found.events == pytest.approx(60, rel=0.25)
    assert found.minutes_weight == 0.5
    assert max(found.hourly) < 3 * np.mean(found.hourly)


def test_deterministic_and_restorable() -> None:
    """A policy restored from its state, through JSON, chooses exactly the same times."""
    events = daily(60, 9.4, START - 30 * DAY)
    first = Policy(6, events[:30], START)
    replay(first, events, 5)
    second = Policy.from_state(json.loads(json.dumps(first.state(), allow_nan=False)))
    now = other = START + 6 * DAY
    for i in range(100):
        now, other = first.next(now), second.next(other)
        assert now == other
        fresh = np.array([now - 60.0]) if i % 3 == 0 else np.zeros(0)
        first.observe(now, fresh)
        second.observe(now, fresh)


def test_empty_state_is_json() -> None:
    """A policy that has seen nothing can be saved and restored too."""
    policy = Policy(6, np.zeros(0), START)
    again = Policy.from_state(json.loads(json.dumps(policy.state(), allow_nan=False)))
    assert again.next(START) == policy.next(START)


def test_profile_shows_what_was_learnt() -> None:
    """The profile names the busy hour, weights that sum to 1, and ascending next syncs; it changes nothing."""
    history = np.concatenate([daily(100, 9.4, START - 100 * DAY), daily(100, 9.6, START - 100 * DAY)])
    found = profile(history, 4, START, syncs=12)
    assert len(found.hourly) == 168
    assert max(range(168), key=lambda h: found.hourly[h]) % 24 == 9
    assert found.changes_per_day == pytest.approx(2, rel=0.1)
    assert sum(found.hourly) == pytest.approx(7 * found.changes_per_day)
    assert tuple(found.weights) == SHAPES and sum(found.weights.values()) == pytest.approx(1)
    assert len(found.next_syncs) == 12
    assert np.all(np.diff(found.next_syncs) > 0)
    assert profile(history, 4, START, syncs=12) == found


def test_profile_of_nothing() -> None:
    """Without any history the profile expects no changes and weighs all shapes alike."""
    found = profile(np.zeros(0), 4, START)
    assert set(found.hourly) == {0.0}
    assert set(found.weights.values()) == {0.25}


@pytest.mark.parametrize(("budget", "start"), [(0, START), (-1, START), (math.nan, START), (4, math.inf)])
def test_nonsense_is_refused(budget: float, start: float) -> None:
    """A budget that is not positive, or times that are not finite, raise ValueError."""
    with pytest.raises(ValueError):
        Policy(budget, np.zeros(0), start)
    with pytest.raises(ValueError):
        Policy(1, np.zeros(0), START).next(math.nan)
