"""What was seen: keyed hashes found again, and the version that makes every row be read anew."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosync import records
from autosync import row_hashes as seen
from autosync.row_hashes import ENTRY, Entries, RowHashes, in_buckets, merge, raw_digests, rules_version, update_bucket
from autosync.settings import Expect, Guard, Source

HALF = st.one_of(st.integers(0, 3), st.sampled_from([2**56, 2**56 - 1, 255 << 56, 2**63, 2**64 - 1]))
HASHES = st.lists(st.tuples(HALF, HALF), max_size=40)


@dataclass(frozen=True)
class Table:
    """Entries of some hashes, as merged, and the same as a dict."""

    entries: Entries
    plain: dict[tuple[int, int], int]


def entries_of(hashes: list[tuple[int, int]]) -> Entries:
    entries = np.zeros(len(hashes), dtype=ENTRY)
    for n, (hi, lo) in enumerate(hashes):
        entries[n] = (hi, lo, n + 1)
    return entries


def table(hashes: list[tuple[int, int]]) -> Table:
    unique = sorted(set(hashes))
    return Table(merge([entries_of(unique)]), {pair: n + 1 for n, pair in enumerate(unique)})


@pytest.mark.parametrize("small", [0, seen.SMALL])
@given(HASHES, HASHES)
def test_find_is_a_dict(small: int, kept: list[tuple[int, int]], asked: list[tuple[int, int]]) -> None:
    """Every hash that was kept is found where it is, with equal halves beside it or not; no other one is.

    In a small table and in one that is searched as a large one is.
    """
    known = table(kept)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seen, "SMALL", small)
        places = RowHashes([known.entries.tobytes()], 0).find(entries_of(asked))
    found = [int(known.entries["rec"][place]) if place >= 0 else None for place in places]
    assert found == [known.plain.get(pair) for pair in asked]


@given(HASHES)
def test_buckets_join_to_what_was_cut(hashes: list[tuple[int, int]]) -> None:
    """Cut by the top byte and joined again, the entries are the same, in the order of their hashes."""
    entries = table(hashes).entries
    parts = in_buckets(entries)
    assert len(parts) == seen.BUCKETS
    joined = RowHashes([part.tobytes() for part in parts], 0)
    assert joined.entries(np.arange(len(joined))).tobytes() == entries.tobytes()
    for number, part in enumerate(parts):
        assert all(int(hi) >> 56 == number for hi in part["hi"])


@given(HASHES, HASHES, st.data())
def test_a_bucket_loses_and_gains_what_it_is_told(
    before: list[tuple[int, int]], more: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Lost entries are gone, fresh ones are there once, the others stay, all in the order of their hashes."""
    old = table(before)
    lost = sorted(data.draw(st.sets(st.sampled_from(sorted(old.plain)))) if old.plain else [])
    fresh = sorted(set(more) - set(old.plain))
    updated = update_bucket(old.entries.tobytes(), entries_of(lost), entries_of(fresh))
    now = [(int(hi), int(lo)) for hi, lo, _ in np.frombuffer(updated, dtype=ENTRY)]
    assert sorted(now) == sorted((set(old.plain) - set(lost)) | set(fresh))
    assert [hi for hi, _ in now] == sorted(hi for hi, _ in now)


@given(HASHES, HASHES)
def test_merged_parts_are_all_their_hashes_in_order(one: list[tuple[int, int]], two: list[tuple[int, int]]) -> None:
    """Parts join to one sorted table that finds what any of them holds; equal rows take one place."""
    merged = merge([entries_of(one), entries_of(two)])
    apart = list({hi: (hi, lo) for hi, lo in one}.values())
    assert len(merge([entries_of(apart), entries_of(apart)])) == len(apart)
    assert list(merged["hi"]) == sorted(merged["hi"])
    assert (RowHashes([merged.tobytes()], 0).find(entries_of(one + two)) >= 0).all()


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=10), st.integers(0, 2**62), st.integers(0, 2**62))
def test_raw_digests_are_keyed(rows: list[bytes], one: int, two: int) -> None:
    """The same row and key give the same 128 bits, another key gives others: nobody outside can prepare a collision."""
    first, again, other = raw_digests(rows, one), raw_digests(rows, one), raw_digests(rows, two)
    assert first.tobytes() == again.tobytes()
    if one != two:
        assert not ((first["hi"] == other["hi"]) | (first["lo"] == other["lo"])).any()
    assert len({entry.tobytes() for entry in first}) == len(set(rows))


SOURCE = Source(name="a", location="a.json", key="/id")


@pytest.mark.parametrize(
    "change",
    [
        {"key": "/other"},
        {"key": ["/id", "/x"]},
        {"records": "/rows"},
        {"mode": "upsert"},
        {"collection": "b"},
        {"expect": Expect(required=["/x"])},
        {"expect": Expect(ranges={"/n": (0, 1)})},
    ],
)
def test_rules_that_decide_about_rows_change_the_version(change: dict[str, object]) -> None:
    """Key, place of the records, mode, collection, checks: with another one, every row is read again."""
    assert rules_version(msgspec.structs.replace(SOURCE, **change)) != rules_version(SOURCE)


@pytest.mark.parametrize(
    "change", [{"guard": Guard(max_delete=1.0)}, {"schedule": 60.0}, {"timeout": 5.0}, {"location": "b.json"}]
)
def test_other_settings_leave_the_version(change: dict[str, object]) -> None:
    """What doesn't touch a row's meaning costs no new reading."""
    assert rules_version(msgspec.structs.replace(SOURCE, **change)) == rules_version(SOURCE)


def test_the_version_knows_how_rows_become_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another canonical form or another layout of the state makes every row be read again."""
    before = rules_version(SOURCE)
    monkeypatch.setattr(seen, "CANONICAL_VERSION", records.CANONICAL_VERSION + 1)
    other = rules_version(SOURCE)
    monkeypatch.setattr(seen, "SEEN_VERSION", seen.SEEN_VERSION + 1)
    assert len({before, other, rules_version(SOURCE)}) == 3
