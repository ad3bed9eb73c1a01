"""Decisions: what guards refuse and what they say, the order of locks, when a retry helps."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosync import errors
from autosync.errors import AutoSyncError, Refused
from autosync.policy import (
    LOCK_ORDER,
    Counts,
    asked_wait,
    guard_deletes,
    guard_input,
    lock_names,
    retries_at_once,
    retry_delays,
    should_retry,
    wait_before_retry,
)
from autosync.settings import Guard


def refuses_deletes(deleted: int, before: int, share: float, accept: str = "") -> str | None:
    try:
        guard_deletes(deleted, before, Guard(max_delete=share), source="s", accept=accept, code="c0de")
    except Refused as error:
        return str(error)
    return None


def refuses_input(rows: int, refused: int, share: float = 0.5, accept: str = "") -> str | None:
    try:
        guard_input(rows, refused, Guard(max_refuse=share), source="s", accept=accept, code="c0de")
    except Refused as error:
        return str(error)
    return None


@given(st.integers(0, 100), st.integers(0, 100), st.floats(0, 1))
def test_deletes_pass_up_to_their_share(deleted: int, before: int, share: float) -> None:
    """More than the share of the collection is refused, the share itself is not; an empty collection has no share."""
    assert (refuses_deletes(deleted, before, share) is None) == (not before or deleted <= share * before)
    assert refuses_deletes(deleted, before, share, accept="c0de") is None


def test_a_refusal_says_the_numbers_and_the_command() -> None:
    """How many of how many, what is kept, where to look, and the code that lets this very input pass."""
    said = refuses_deletes(30, 100, 0.2)
    assert said is not None
    for words in ("30 of 100", "30%", "20%", "Kept safe", "autosync plan s", "autosync run s --accept c0de"):
        assert words in said
    assert refuses_deletes(30, 100, 0.2, accept="other") == said


def test_an_empty_input_is_refused() -> None:
    """No row at all is no snapshot, until somebody takes it."""
    assert "came back empty" in (refuses_input(0, 0) or "")
    assert refuses_input(0, 0, accept="c0de") is None


@given(st.integers(1, 100), st.integers(0, 100), st.floats(0, 1))
def test_refused_rows_pass_up_to_their_share(rows: int, refused: int, share: float) -> None:
    """A mostly broken input is refused as a whole."""
    assert (refuses_input(rows, refused, share) is None) == (refused <= share * rows)


def test_locks_are_taken_in_one_order_only() -> None:
    """Any other order fails at once, so that deadlock can't happen."""
    assert lock_names() == [f"autosync-{name}" for name in LOCK_ORDER]
    for wanted in permutations(LOCK_ORDER, 2):
        if list(wanted) == sorted(wanted, key=LOCK_ORDER.index):
            assert lock_names(wanted) == [f"autosync-{name}" for name in wanted]
        else:
            with pytest.raises(AssertionError, match="in the order"):
                lock_names(wanted)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (errors.SourceUnavailable("x"), True),
        (errors.StoreBusy("x"), True),
        (errors.LockTimeout("x"), True),
        (errors.RemoteUnavailable("x", retry_after=3), True),
        (errors.RemoteMoved("x"), True),
        (errors.SourceError("x"), False),
        (errors.Refused("x"), False),
        (errors.StoreError("x"), False),
        (errors.StaleLock("x"), False),
        (errors.RemoteError("x"), False),
        (errors.ConfigError("x"), False),
        (ValueError("x"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_only_what_may_pass_by_itself_is_retried(error: BaseException, again: bool) -> None:
    """A fault that somebody must mend is told at once."""
    assert should_retry(error) is again


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (errors.RemoteUnavailable("x"), True),
        (errors.RemoteUnavailable("x", retry_after=3), False),
        (errors.SourceUnavailable("x", retry_after=0), False),
        (errors.RemoteError("x"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_who_asks_to_wait_is_not_asked_again_at_once(error: BaseException, again: bool) -> None:
    """Prefect's own delays are for errors that ask for no time."""
    assert retries_at_once(error) is again


NOW = 1_700_000_000  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": " 7.5 "}, 7.5),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT"}, 30),
        ({"retry-after": "Tuesday, 14-Nov-23 22:13:50 GMT"}, 30),
        ({"retry-after": "Tue Nov 14 22:13:50 2023"}, 30),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT", "date": "Tue, 14 Nov 2023 22:13:40 GMT"}, 10),
        ({"retry-after": "Tue, 14 Nov 2023 22:00:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "²"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"x-ratelimit-reset": str(NOW + 90)}, None),
        ({"x-ratelimit-reset": str(NOW + 90), "x-ratelimit-remaining": "4"}, None),
        ({"x-ratelimit-reset": str(NOW + 90), "x-ratelimit-remaining": "0"}, 90),
        (
            {"x-ratelimit-reset": str(NOW + 90), "x-ratelimit-remaining": "0", "date": "Tue, 14 Nov 2023 22:14:20 GMT"},
            30,
        ),
        ({"x-ratelimit-reset": str(NOW - 1), "x-ratelimit-remaining": "0"}, 0),
        ({"x-ratelimit-reset": "later", "x-ratelimit-remaining": "0"}, None),
        ({"x-ratelimit-reset": str(NOW + 90), "x-ratelimit-remaining": "0", "retry-after": "20"}, 90),
    ],
)
def test_what_an_answer_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, all three forms of a date, a spent limit's reset; by the server's own clock where it tells it."""
    assert asked_wait(headers, now=NOW) == seconds


def test_a_wait_is_never_shorter_than_asked() -> None:
    """What is asked, or more when tries fail one after the other."""
    assert [wait_before_retry(6, tries) for tries in range(6)] == [6, 6, 6, 8, 16, 32]
    assert [wait_before_retry(0, tries) for tries in range(3)] == [1, 2, 4]
    assert wait_before_retry(3600, 0) == 3600


def test_waits_grow_up_to_a_ceiling() -> None:
    """Exponential, then constant."""
    assert retry_delays(5, first=1, factor=3, most=20) == [1, 3, 9, 20, 20]
    assert retry_delays(0) == []


def test_counts_say_what_changed() -> None:
    """Refused and unchanged rows are no changes."""
    counts = Counts(inserted=1, updated=2, deleted=3, quarantined=4, unchanged=5)
    assert counts.changed == 6 and str(counts) == "+1 ~2 -3"


def test_an_error_reads_as_sentences() -> None:
    """What, where, what is safe, what to do; parts that are not known are left out."""
    full = AutoSyncError("it broke", where="a.json, line 3", kept="all", todo="mend it")
    assert str(full) == "it broke. Where: a.json, line 3. Kept safe: all. What to do: mend it."
    assert str(AutoSyncError("it broke!")) == "it broke!"
