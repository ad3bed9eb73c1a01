"""The feedback score."""

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from analytics.feedback_analyzer import SIGNALS, Count, analyze

count = st.tuples(st.integers(0, 500), st.integers(0, 500)).map(lambda two: Count(two[0], two[0] + two[1]))
counts = st.dictionaries(st.sampled_from(sorted(SIGNALS)), count)
signal = st.sampled_from(sorted(SIGNALS))


def test_no_data() -> None:
    """No data gives 77.6 [42, 96]."""
    found = analyze({})
    assert (round(found.score, 1), round(found.low), round(found.high)) == (77.6, 42, 96)


def test_formula() -> None:
    """The score is 100 * 2^-(sum of w r / h) with the posterior rate of a Beta prior of weight 10."""
    found = analyze({"reverted": Count(3, 40)})
    reverted = 0.30 * (0.2 + 3) / 50 / 0.05
    others = 0.25 * 0.05 / 0.15 + 0.20 * 0.02 / 0.05 + 0.10 * 0.20 / 0.50 + 0.15 * 0.10 / 0.35
    assert found.score == pytest.approx(100 * 2 ** -(reverted + others))
    assert found.contributions["reverted"].halvings == pytest.approx(reverted)


def test_weights_sum_to_one() -> None:
    """The weights are shares."""
    assert sum(one.weight for one in SIGNALS.values()) == pytest.approx(1)


@examples(deadline=None, max_examples=60)
@given(counts)
def test_bounded(given_counts: dict[str, Count]) -> None:
    """The score and its interval are in [0, 100], in order, and each signal's points are not negative."""
    found = analyze(given_counts)
    assert 0 < found.score <= 100
    assert 0 <= found.low <= found.high <= 100
    assert set(found.contributions) == set(SIGNALS)
    assert all(one.points >= 0 for one in found.contributions.values())


@examples(deadline=None, max_examples=60)
@given(counts, signal, st.integers(1, 50))
def test_monotone(given_counts: dict[str, Count], name: str, more: int) -> None:
    """More bad events lower the score and more good ones raise it, whatever the other signals are."""
    now = given_counts.get(name, Count())
    score = analyze(given_counts).score
    assert analyze({**given_counts, name: Count(now.bad + more, now.total + more)}).score < score
    assert analyze({**given_counts, name: Count(now.bad, now.total + more)}).score > score


def test_contribution_is_the_gain_of_perfection() -> None:
    """A signal's points are what the score lacks because of it alone."""
    found = analyze({"failed_run": Count(5, 10)})
    part = found.contributions["failed_run"]
    assert found.score + part.points == pytest.approx(found.score * 2**part.halvings)
    assert max(found.contributions, key=lambda name: found.contributions[name].points) == "failed_run"


def test_data_narrows_the_interval() -> None:
    """With many events the interval closes in on the score."""
    found = analyze({name: Count(0, 5000) for name in SIGNALS})
    assert found.high - found.low < 1
    assert found.low <= found.score <= found.high


def test_repeatable() -> None:
    """Equal counts give equal results, the interval included."""
    assert analyze({"reverted": Count(1, 9)}) == analyze({"reverted": Count(1, 9)})


@pytest.mark.parametrize(("bad", "total"), [(2, 1), (-1, 1)])
def test_impossible_counts(bad: int, total: int) -> None:
    """More bad events than events, or negative ones, raise ValueError."""
    with pytest.raises(ValueError):
        Count(bad, total)


def test_unknown_signal() -> None:
    """A signal that is not in the table raises ValueError naming it."""
    with pytest.raises(ValueError, match="mood"):
        analyze({"mood": Count(1, 2)})
