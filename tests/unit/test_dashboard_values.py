"""What the dashboard computes: differences, chart buckets, attention, timelines, words, addresses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosync.attention import split_error
from autosync.differences import MOST, changed_fields, describe_change, differences
from autosync.records import canonical
from reports.dashboard.attention import source_status
from reports.dashboard.numbers import buckets
from reports.dashboard.pages import _local
from reports.dashboard.reading import Run, SourceState, Stage
from reports.dashboard.timeline import WHOLE, timeline
from reports.dashboard.words import LANGUAGES, Say, page_words

NOW = 1_790_000_000.0
RUN = Run(
    "r", "s", "changed", datetime.fromtimestamp(NOW, UTC), None, None, None, None, 0, 0, 0, 0, None, None, None, 0
)


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(canonical(value))


def changed(before: Any, after: Any) -> list[tuple[str, str, Any, Any]]:
    """Differences with their values decoded."""

    def plain(side: Any) -> Any:
        return None if side is None else msgspec.json.decode(bytes(side))

    return [(one.op, one.path, plain(one.old), plain(one.new)) for one in differences(raw(before), raw(after))]


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, [("replace", "/a", 1, 2)]),
        ({"a": None}, {}, [("remove", "/a", None, None)]),
        ({}, {"a/b~c": 1}, [("add", "/a~1b~0c", None, 1)]),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 9, 2]}}, [("add", "/a/b/1", None, 9)]),
        ({"a": [1, 2, 3]}, {"a": [1, 3]}, [("remove", "/a/1", 2, None)]),
        ({"a": [{"x": 1}]}, {"a": [{"x": 2}]}, [("replace", "/a/0/x", 1, 2)]),
        ({"a": {"b": 1}}, {"a": [1]}, [("replace", "/a", {"b": 1}, [1])]),
        (1, 2, [("replace", "", 1, 2)]),
    ],
)
def test_differences(before: Any, after: Any, found: list[Any]) -> None:
    """Each place that differs is named once, by its JSON Pointer."""
    assert changed(before, after) == found


def test_differences_keep_digits_and_end() -> None:
    """Numbers stay as written, and a huge difference is cut."""
    one = differences(msgspec.Raw(b'{"a":1.0}'), msgspec.Raw(b'{"a":12345678901234567890123}'))[0]
    assert (bytes(one.old), bytes(one.new)) == (b"1.0", b"12345678901234567890123")
    assert len(differences(raw([]), raw(list(range(2000))))) == MOST


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, JSON)
def test_no_difference_means_equal(before: Any, after: Any) -> None:
    """There is a difference exactly when the canonical bytes differ, and no path is named twice."""
    found = differences(raw(before), raw(after))
    assert bool(found) == (canonical(before) != canonical(after))
    assert len({one.path for one in found}) == len(found)


@given(*[st.dictionaries(st.text(max_size=3), JSON, max_size=4)] * 2)
def test_changed_fields_are_those_of_the_differences(before: dict[str, Any], after: dict[str, Any]) -> None:
    """The fields that plan and log name are the first tokens of the pointers that the pages show."""
    fields = changed_fields(canonical(before), canonical(after))
    tokens = {
        one.path.split("/")[1].replace("~1", "/").replace("~0", "~") for one in differences(raw(before), raw(after))
    }
    assert fields == sorted(tokens)
    words = describe_change("update", canonical(before).decode(), canonical(after).decode())
    assert all(name in words for name in fields[:3]) and bool(words) == bool(fields)


def row(
    started: float, outcome: str = "changed", seconds: float = 2.0, scheduled: float | None = None
) -> dict[str, Any]:
    """A run as analytics takes it."""
    return {"started": started, "ended": started + seconds, "scheduled": scheduled, "outcome": outcome}


def test_buckets_have_no_gaps() -> None:
    """Hours for a few days, days for longer; empty ones are there; a delay counts from the planned time."""
    assert buckets([], NOW) == (3600.0, [])
    size, found = buckets([row(NOW - 7200, scheduled=NOW - 7210), row(NOW - 100, "failed")], NOW)
    assert size == 3600 and [one.start % 3600 for one in found] == [0] * len(found) and len(found) in (3, 4)
    assert sum(one.changed for one in found) == sum(one.failed for one in found) == 1
    assert found[0].p50 == found[0].p95 == 12.0 and found[1].p50 is None
    size, found = buckets([row(NOW - 20 * 86_400), row(NOW - 90 * 86_400)], NOW, 30)
    assert size == 86_400 and len(found) == 31 and sum(one.changed for one in found) == 1


def state(**facts: Any) -> SourceState:
    """A source that is well, but for the given facts."""
    given: dict[str, Any] = {"last_run": RUN, "last_finished": RUN, "last_success": RUN.started, "quarantined": 0}
    well: dict[str, Any] = {"freshness": "fresh", "warn_after": None, "error_after": None, "records": 1, "behind": {}}
    return SourceState(source="s", collection="s", **{**well, **given, **facts})


FAILED = Run(**{**vars(RUN), "status": "failed", "error": "it broke"})
RUNNING = Run(**{**vars(RUN), "status": "running", "started": datetime.now(UTC)})
ABANDONED = Run(**{**vars(RUN), "status": "running"})


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ({}, "ok"),
        ({"freshness": "warn"}, "warning"),
        ({"freshness": "error"}, "error"),
        ({"quarantined": 1}, "warning"),
        ({"last_run": FAILED, "last_finished": FAILED}, "error"),
        ({"last_run": RUNNING, "last_finished": FAILED}, "warning"),
        ({"last_run": FAILED, "last_finished": FAILED, "last_success": None, "freshness": "unknown"}, "error"),
        ({"last_run": RUNNING, "last_finished": None, "last_success": None, "freshness": "unknown"}, "unknown"),
        ({"last_run": ABANDONED}, "warning"),
    ],
)
def test_a_source_is_as_bad_as_its_worst_part(facts: dict[str, Any], status: str) -> None:
    """Failure, lateness and quarantine each count; a failure that is being tried again is a warning."""
    assert source_status(state(**facts)) == status


def test_errors_say_what_to_do() -> None:
    """The advice in an error's text is split off."""
    assert split_error("It broke. Where: x. What to do: mend it.") == ("It broke. Where: x.", "mend it")
    assert split_error("boom") == ("boom", "")


def test_timeline_stays_in_the_run() -> None:
    """Every bar can be seen and none leaves the picture, whatever the clocks said."""
    start = RUN.started
    stages = [
        Stage("a", "done", start - timedelta(seconds=5), 0.0, 0),
        Stage("b", "done", start, 1e-9, 0),
        Stage("c", "failed", start + timedelta(days=1), 30.0, 2),
    ]
    bars = timeline(stages, RUN)
    assert len(bars) == 3 and all(bar.x >= 0 and bar.x + bar.width <= WHOLE + 0.1 and bar.width >= 5 for bar in bars)
    assert timeline([], RUN) == []


def test_words_are_complete() -> None:
    """Every word of the pages has both languages with the same places to fill."""
    for word, texts in page_words().items():
        assert len(texts) == len(LANGUAGES) and all(texts), word
        fields = [sorted(part.split("}")[0] for part in text.split("{")[1:]) for text in texts]
        assert fields[0] == fields[1], word
    assert Say("fa")("overview") != Say("en")("overview") and Say("en")("ok") == "ok"


@pytest.mark.parametrize(
    ("to", "kept"),
    [
        ("/runs?a=1", "/runs?a=1"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("/\t/evil.example", "/"),
        ("", "/"),
    ],
)
def test_sign_in_leads_nowhere_else(to: str, kept: str) -> None:
    """After signing in only an address of ours is opened."""
    assert _local(to) == kept
