"""Change detection: what a batch does, decided from raw rows, their hashes of last time and the stored records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosync.change_detection import Block, ChangeDetector, Staged
from autosync.errors import SourceError
from autosync.records import Pointer, parse
from autosync.row_hashes import Recs, RowHashes, merge, update_bucket
from autosync.settings import Expect, Source

SEED = 7


@dataclass
class Table:
    """A collection as plain dicts, with what its source showed last time; takes batches as the store does."""

    source: Source = field(default_factory=lambda: Source(name="s", location="s.json", key="/id"))
    recs: dict[str, int] = field(default_factory=dict)
    docs: dict[str, bytes] = field(default_factory=dict)
    seen: RowHashes = field(default_factory=lambda: RowHashes([], SEED))
    lines: list[tuple[str, bytes]] = field(default_factory=list)

    def write(self, ids: bytes, docs: bytes) -> None:
        self.lines += zip(ids.decode().splitlines(), docs.splitlines(), strict=True)

    def read(self, positions: Iterable[int]) -> dict[int, tuple[str, bytes]]:
        return {n: self.lines[n] for n in positions}

    def lookup(self, ids: Sequence[str]) -> dict[str, tuple[int, bytes | None]]:
        known = [id for id in ids if id in self.recs]
        return {id: (self.recs[id], self.docs.get(id)) for id in known}

    def live(self) -> Recs:
        return np.array([self.recs[id] for id in self.docs], dtype=np.int64)

    def holders(self, pointer: str, values: Sequence[str]) -> dict[str, tuple[int, str]]:
        found = {}
        for id, doc in self.docs.items():
            value = Pointer(pointer).get(parse(doc)[0])
            if value is not None and (text := msgspec.json.encode(value).decode()) in values:
                found[text] = (self.recs[id], id)
        return found

    def detect(self, rows: Sequence[bytes], size: int = 3) -> Staged:
        """Detect changes in raw rows, in blocks of a size."""
        self.lines = []
        detector = ChangeDetector(self.source, self.seen, self.lookup, self)
        for block in blocks(rows, size):
            detector.block(block)
        return detector.finish(self.read, self.live, len(self.docs), self.holders)

    def take(self, rows: Sequence[bytes | dict[str, Any]]) -> Staged:
        """Detect and apply."""
        staged = self.detect([row if isinstance(row, bytes) else msgspec.json.encode(row) for row in rows])
        entries = staged.entries.copy()
        for n, (id, doc) in enumerate(self.lines):
            if n not in staged.skip:
                self.recs.setdefault(id, len(self.recs) + 1)
                self.docs[id] = doc
                entries["rec"][n] = self.recs[id]
        by_rec = {rec: id for id, rec in self.recs.items()}
        for rec in staged.deletes.tolist():
            del self.docs[by_rec[rec]]
        fresh = merge([staged.same, entries[entries["rec"] > 0]])
        before = self.seen.entries(np.arange(len(self.seen))).tobytes()
        self.seen = RowHashes([update_bucket(before, staged.lost, fresh)], SEED)
        return staged


def blocks(rows: Sequence[bytes], size: int) -> Iterator[Block]:
    for first in range(0, len(rows), size):
        yield Block(rows[first : first + size], lambda n, first=first: f"row {first + n}")  # type: ignore[misc]


def table(mode: str = "snapshot", **expect: Any) -> Table:
    """An empty table with these checks."""
    return Table(Source(name="s", location="s.json", key="/id", mode=mode, expect=Expect(**expect)))  # type: ignore[arg-type]


def reasons(staged: Staged) -> list[str]:
    return [refusal.reason for refusal in staged.refused]


def test_unchanged_rows_are_not_parsed() -> None:
    """A row that was seen is neither staged nor refused; it stays known."""
    things = table()
    things.take([{"id": "a"}, {"id": "b"}])
    again = things.take([{"id": "b"}, {"id": "a"}])
    assert (len(again.recs), again.unchanged, len(again.deletes), again.rows) == (0, 2, 0, 2)


def test_another_spelling_is_no_change_and_is_known_from_then_on() -> None:
    """The same content in other bytes is compared once; the next time its bytes are known."""
    things = table()
    things.take([{"id": "a", "n": 1}])
    spelt = b'{ "n": 1, "id": "a" }'
    assert len(things.take([spelt]).recs) == 0
    assert things.seen.rec.tolist() == [1]
    assert things.take([spelt]).unchanged == 1


def test_blank_rows_are_no_rows() -> None:
    """Empty lines count for nothing."""
    staged = table().take([b"\n", b'{"id":"a"}\n', b"  \r\n", b""])
    assert (staged.rows, staged.inserted, staged.refused) == (1, 1, [])


def test_a_record_that_comes_back_is_an_insert_with_its_old_number() -> None:
    """Insert, delete, insert: one number in the end."""
    things = table()
    things.take([{"id": "a"}, {"id": "b"}])
    assert things.take([{"id": "b"}]).deletes.tolist() == [1]
    back = things.take([{"id": "a", "n": 2}, {"id": "b"}])
    assert (back.recs.tolist(), back.inserted, back.updated) == ([1], 1, 0)


def test_a_record_in_two_spellings_is_deleted_once() -> None:
    """Two entries of one record, and another record that was not seen: both go, each once."""
    things = table(required=["/n"])
    things.take([{"id": "a", "n": 1}, {"id": "x", "n": 1}, {"id": "c", "n": 1}])
    things.take([{"id": "a", "n": 1}, b'{ "id": "a", "n": 1 }', {"id": "x"}, {"id": "c", "n": 1}])
    gone = things.take([{"id": "c", "n": 1}])
    assert gone.deletes.tolist() == [1, 2]
    assert set(things.docs) == {"c"}


def test_a_record_that_lost_one_of_its_spellings_stays() -> None:
    """One of a's two rows goes, and so does x, whose row was refused last time and so wasn't seen: only x is deleted,
    though as many seen rows are missing as records.
    """
    things = table(required=["/n"])
    things.take([{"id": "a", "n": 1}, {"id": "x", "n": 1}, {"id": "c", "n": 1}])
    things.take([{"id": "a", "n": 1}, b'{ "id": "a", "n": 1 }', {"id": "x"}, {"id": "c", "n": 1}])
    gone = things.take([{"id": "a", "n": 1}, {"id": "c", "n": 1}])
    assert gone.deletes.tolist() == [2]
    assert set(things.docs) == {"a", "c"}


def test_nothing_is_deleted_while_a_row_has_no_id() -> None:
    """The row without a key may be the record that seems gone; upserts delete nothing anyway."""
    things = table()
    things.take([{"id": "a"}, {"id": "b"}])
    held = things.take([{"id": "a"}, {"x": 1}])
    assert held.deletes_withheld and len(held.deletes) == 0
    assert things.take([{"id": "a"}]).deletes.tolist() == [2], "what was withheld goes with the next clean snapshot"
    upserts = table("upsert")
    upserts.take([{"id": "a"}])
    assert not upserts.take([{"x": 1}]).deletes_withheld and "a" in upserts.docs


def test_a_record_whose_row_is_refused_stays() -> None:
    """A refused row is not a missing one."""
    things = table(ranges={"/n": (0, 9)})
    things.take([{"id": "a", "n": 1}, {"id": "b", "n": 1}])
    staged = things.take([{"id": "a", "n": 99}, {"id": "b", "n": 1}])
    assert reasons(staged) == ["/n must lie in [0, 9], is 99"]
    assert len(staged.deletes) == 0 and parse(things.docs["a"])[0]["n"] == 1


@pytest.mark.parametrize("before", [[], [{"id": "a", "n": 1}]])
def test_equal_rows_count_once_and_different_ones_not_at_all(before: list[dict[str, Any]]) -> None:
    """One key, equal content in any spelling: one record. Different content: nobody is right."""
    things = table()
    things.take([*before, {"id": "z"}])
    same = things.take([{"id": "a", "n": 2}, b'{"n": 2, "id": "a"}', {"id": "a", "n": 2}, {"id": "z"}])
    assert (same.inserted + same.updated, same.repeated, same.refused) == (1, 2, [])
    clash = things.take([{"id": "a", "n": 3}, {"id": "a", "n": 4}, {"id": "z"}])
    assert len(clash.refused) == 2 and "row 0, row 1" in reasons(clash)[0]
    assert parse(things.docs["a"])[0]["n"] == 2


def test_a_second_row_beside_an_unchanged_one_is_refused() -> None:
    """The unchanged row is not parsed, yet its record can't be overwritten by another row."""
    things = table()
    things.take([{"id": "a", "n": 1}])
    staged = things.take([{"id": "a", "n": 1}, {"id": "a", "n": 2}])
    assert len(staged.refused) == 1 and parse(things.docs["a"])[0]["n"] == 1


def test_a_row_whose_twin_is_refused_is_refused_too() -> None:
    """One of two rows with a key fails its checks: the other one may be the wrong one as well."""
    things = table(ranges={"/n": (0, 9)})
    staged = things.take([{"id": "a", "n": 99}, {"id": "a", "n": 1}])
    assert len(staged.refused) == 2 and not things.docs


def test_a_unique_value_has_one_holder() -> None:
    """Twice in the input: both refused; held by a record that stays: refused with the holder's id."""
    things = table(unique=["/e"])
    things.take([{"id": "a", "e": 1}, {"id": "b", "e": None}, {"id": "c"}])
    staged = things.take([{"id": "a", "e": 1}, {"id": "b", "e": 1}, {"id": "c", "e": 2}, {"id": "d", "e": 2}])
    assert (
        sorted(reasons(staged)) == ["/e must be unique; 1 belongs to 'a'"] + ["/e must be unique; 2 stands 2 times"] * 2
    )


def test_a_unique_value_may_move_with_its_batch() -> None:
    """Two records swap values; a renamed record takes its value along, as the old one goes."""
    things = table(unique=["/e"])
    things.take([{"id": "a", "e": 1}, {"id": "b", "e": 2}])
    assert things.take([{"id": "a", "e": 2}, {"id": "b", "e": 1}]).updated == 2
    renamed = things.take([{"id": "a2", "e": 2}, {"id": "b", "e": 1}])
    assert (renamed.inserted, len(renamed.deletes), renamed.refused) == (1, 1, [])


@pytest.mark.parametrize(
    "rows",
    [
        [{"id": "a", "e": 1}, {"id": "b", "e": 1}, {"id": "c", "e": 2}],
        [{"id": "a", "e": 1}, {"id": "b", "e": 3}, {"id": "b", "e": 4}, {"id": "c", "e": 2}],
    ],
)
def test_a_refused_row_keeps_the_value_of_its_record(rows: list[dict[str, Any]]) -> None:
    """b's new row is refused, so b keeps its value and c can't have it."""
    things = table(unique=["/e"])
    things.take([{"id": "a", "e": 1}, {"id": "b", "e": 2}])
    staged = things.take(rows)
    assert "/e must be unique; 2 belongs to 'b'" in reasons(staged) and "c" not in things.docs


UNIQUE_ROWS = st.lists(
    st.fixed_dictionaries({"id": st.sampled_from("abcdef"), "e": st.sampled_from([1, 2, 3, None])}), max_size=6
)


@given(st.lists(UNIQUE_ROWS, max_size=5), st.sampled_from(["snapshot", "upsert"]))
def test_unique_values_stay_unique(inputs: list[list[dict[str, Any]]], mode: str) -> None:
    """Whatever comes in, no two live records hold one value."""
    things = table(mode, unique=["/e"])
    for rows in inputs:
        things.take(rows)
        values = [value for doc in things.docs.values() if (value := parse(doc)[0]["e"]) is not None]
        assert len(values) == len(set(values))


ROWS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("abcde"), st.integers(-1, 2), st.sampled_from([b"", b" ", b"\t"])),
        st.none(),
    ),
    max_size=8,
)


@given(st.lists(ROWS, max_size=6), st.sampled_from(["snapshot", "upsert"]))
def test_sifting_is_the_plain_comparison(inputs: list[list[tuple[str, int, bytes] | None]], mode: str) -> None:
    """Any history of inputs leaves the records that reading each row in full would leave, and counts its changes."""
    things, plain = table(mode, ranges={"/n": (0, 9)}), dict[str, int]()
    for rows in inputs:
        named = [row for row in rows if row is not None]
        raw = [b'{"id":"%b",%b"n":%d}' % (id.encode(), workspace, n) for id, n, workspace in named]
        staged = things.take(raw + [b"{}"] * (len(rows) - len(named)))
        values: dict[str, set[int]] = {}
        for id, n, _ in named:
            values.setdefault(id, set()).add(n)
        after = dict(plain) if mode == "upsert" or None in rows else {id: plain[id] for id in plain if id in values}
        after |= {id: next(iter(ns)) for id, ns in values.items() if len(ns) == 1 and min(ns) >= 0}
        changed = sum(1 for id in after if id in plain and plain[id] != after[id])
        assert (staged.inserted, staged.updated) == (len(after.keys() - plain.keys()), changed)
        assert len(staged.deletes) == len(set(staged.deletes.tolist())) == len(plain.keys() - after.keys())
        assert {id: parse(doc)[0]["n"] for id, doc in things.docs.items()} == after
        plain = after


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30), st.integers(1, 9))
def test_blocks_make_no_difference(numbers: list[int], size: int) -> None:
    """However the input is cut into blocks, the batch is the same, and rows are named by their place in the input."""
    rows = [b'{"id":%d,"n":%d}' % (n % 7, n // 7) for n in numbers]
    one, other = table().detect(rows, len(rows)), table().detect(rows, size)
    assert (one.inserted, one.repeated, sorted(one.refused)) == (other.inserted, other.repeated, sorted(other.refused))
    assert all(rows[int(refusal.place.removeprefix("row "))] == refusal.raw for refusal in one.refused)


def test_wrong_encoding_speaks_against_the_whole_input() -> None:
    """One row that isn't UTF-8 refuses everything, with its place."""
    with pytest.raises(SourceError, match=r"not encoded in UTF-8.*0xe9.*row 1"):
        table().take([b'{"id":"a"}', b'{"id":"caf\xe9"}'])


def test_fields_are_noted_one_level_deep() -> None:
    """The view's columns: names, and the names inside objects; deeper ones stay together."""
    staged = table().take([{"id": "a", "x": {"y": 1, "z": {"w": 1}}}, {"id": "b", "n": 1, "x": {}}])
    assert set(staged.fields) == {("id",), ("x", "y"), ("x", "z"), ("n",)}
