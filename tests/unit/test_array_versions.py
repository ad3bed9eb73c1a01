"""Versions of an array read by their differences are what each is when it is read alone."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosync.array_versions import ArrayReader
from autosync.row_hashes import raw_digests

SEED = 5
ITEMS = st.one_of(
    st.integers(0, 30),
    st.sampled_from([1.5, True, None, "", "],", '{"id":1},', "é✓", [], [1, 2], {}, [{"id": 1}, {"id": 2}]]),
    st.builds(lambda id, n: {"id": id, "n": n}, st.integers(0, 9), st.sampled_from([0, 1, "x", [{"id": 1}]])),
)
ARRAYS = st.lists(ITEMS, max_size=12)
SPACES: list[dict[str, Any]] = [{}, {"indent": 1}, {"separators": (",", ":")}, {"ensure_ascii": False}]


def alone(text: bytes) -> list[bytes] | None:
    """The elements, or None for what is no array."""
    try:
        return [bytes(row) for row in msgspec.json.decode(text, type=list[msgspec.Raw])]
    except (msgspec.DecodeError, UnicodeError):
        return None


def check(reader: ArrayReader, text: bytes) -> None:
    rows, wanted = reader.read(text), alone(text)
    if wanted is None or not text.startswith(b"["):
        assert rows is None
        return
    assert rows is not None
    assert list(rows) == wanted
    assert np.array_equal(rows.entries, raw_digests(wanted, SEED))


@given(st.lists(st.tuples(ARRAYS, st.sampled_from(SPACES), st.binary(max_size=2)), max_size=6), st.randoms())
def test_random_arrays_one_after_the_other(versions: list[Any], chance: random.Random) -> None:
    """Whole arrays, edited ones, other white space, broken ones: always the elements and hashes of that text."""
    reader, rows = ArrayReader(SEED), list[Any]()
    for fresh, spaces, tail in versions:
        rows = fresh if chance.random() < 0.3 else edited(rows, fresh, chance)
        text = json.dumps(rows, **spaces).encode()
        check(reader, text)
        check(reader, text + tail)
        check(reader, text[: chance.randrange(len(text) + 1)])
        cut = chance.randrange(len(text) + 1)
        check(reader, text[:cut] + chance.choice([b",", b"]", b"[", b"1", b"{}", b" "]) + text[cut:])


def edited(rows: list[Any], fresh: list[Any], chance: random.Random) -> list[Any]:
    """Some elements replaced, taken out, put in, or moved."""
    rows = list(rows)
    for item in fresh[:4]:
        place, kind = chance.randrange(len(rows) + 1), chance.randrange(4)
        if kind == 0 or place == len(rows):
            rows.insert(place, item)
        elif kind == 1:
            rows[place] = item
        elif kind == 2:
            del rows[place]
        else:
            rows.append(rows.pop(place))
    return rows


BROKEN = [
    b"[,2,3]",
    b"[1,,3]",
    b"[1 2,3]",
    b"[1,2,3,]",
    b"[1,2,3]]",
    b"[1,2,3",
    b"[12,3",
    b"[]3]",
    b"[1,2],3]",
    b"[,1,2,3]",
]


@pytest.mark.parametrize("text", BROKEN)
def test_what_is_no_array_is_none(text: bytes) -> None:
    """However much of the text was there before; the version after it is read as usual."""
    reader = ArrayReader(SEED)
    for before in (b"[1,2,3]", b"[0,1,2,3,4]", b"[]"):
        check(reader, before)
        assert reader.read(text) is None
        check(reader, b"[1,2,4]")


def test_elements_hidden_in_others_are_not_taken_for_them() -> None:
    """A text that an old element had, now inside a string or a nested array, is no element."""
    reader = ArrayReader(SEED)
    check(reader, b'[{"a":1},{"b":2},{"c":3}]')
    check(reader, b'[{"a":9,"x":[0,{"b":2},{"c":3}]}]')
    check(reader, b'[{"a":1},{"b":2},{"c":3}]')
    check(reader, b'[{"a":"\\",{"},{"b":2},{"c":3}]')


def test_only_what_differs_is_hashed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1,000 elements of which 5 change, one goes and one comes, a few dozen are looked at."""
    import autosync.array_versions as module

    rows = [{"id": n, "text": f"row {n}"} for n in range(1000)]
    reader, hashed = ArrayReader(SEED), list[int]()

    def counting(some: list[bytes], seed: int) -> Any:
        hashed.append(len(some))
        return raw_digests(some, seed)

    check(reader, json.dumps(rows, indent=2).encode())
    for n in (0, 100, 101, 500, 999):
        rows[n] = rows[n] | {"text": "new"}
    del rows[300]
    rows.insert(700, {"id": -1})
    monkeypatch.setattr(module, "raw_digests", counting)
    found = reader.read(json.dumps(rows, indent=2).encode())
    assert found is not None and [json.loads(row) for row in found] == rows
    assert sum(hashed) < 40
