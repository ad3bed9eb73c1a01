"""Shards: cut by the keys alone, so that the same records give the same files and the same root."""

from __future__ import annotations

import random
from hashlib import sha256

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from autosync.shards import (
    FANOUT_ABOVE,
    MIRROR_BITS,
    ONE_FILE_BELOW,
    REPO_MAX_FILES,
    Layout,
    body,
    file_name,
    find,
    level,
    levels,
    mirror_layout,
    repo_layout,
    root,
    root_of,
    shard_of,
    split,
)

TEXTS = st.text(min_size=1, max_size=4).filter(str.isprintable)
KEYS = st.sets(st.one_of(st.integers(0, 500).map(str), TEXTS), max_size=120)
BITS = st.sampled_from([None, 0, 1, 2, 3])


def lines(keys: set[str]) -> list[tuple[str, bytes]]:
    """Records of these keys in key order."""
    return [(key, f'{{"id":"{key}"}}'.encode("utf-8", "replace")) for key in sorted(keys)]


@given(KEYS, BITS)
def test_shards_hold_every_line_once_in_order(keys: set[str], bits: int | None) -> None:
    """Their union is the collection; each begins at its start key, and only the first has none."""
    parts = list(split(lines(keys), bits))
    assert [line for _, held in parts for line in held] == [line for _, line in lines(keys)]
    assert all(start == "" for start, _ in parts[:1] if bits is None)
    assert all(level(start) >= (bits or 0) for start, _ in parts[1:])
    assert [start for start, _ in parts] == sorted(start for start, _ in parts)


@given(KEYS, KEYS, st.integers(0, 3))
def test_a_shard_depends_on_the_keys_in_it_alone(keys: set[str], more: set[str], bits: int) -> None:
    """Adding keys leaves every shard alone that none of them falls into."""
    before, after = dict(split(lines(keys), bits)), dict(split(lines(keys | more), bits))
    starts = sorted(before)
    touched = {starts[find(starts, key)] for key in more - keys} if starts else set[str]()
    first = {starts[0]} if starts else set()
    for start, held in before.items():
        if start not in touched | first:
            assert after[start] == held


@given(KEYS, st.integers(0, 3))
def test_the_shard_of_a_key_is_found_by_the_starts(keys: set[str], bits: int) -> None:
    """The start at or before a key is that of the shard which holds it."""
    parts = list(split(lines(keys), bits))
    starts, sorted_keys = [start for start, _ in parts], sorted(keys)
    place = 0
    for number, (_, held) in enumerate(parts):
        for key in sorted_keys[place : place + len(held)]:
            assert find(starts, key) == number
        place += len(held)


@given(st.randoms(use_true_random=False), KEYS)
def test_the_root_is_that_of_the_mirror_files(way: random.Random, keys: set[str]) -> None:
    """Recomputed from records in any order, then sorted, it is the hash over the files' hashes."""
    rows = lines(keys)
    way.shuffle(rows)
    shards = [shard_of(start, body(held)) for start, held in split(sorted(rows), None)]
    assert root_of(sorted(rows), len(rows)) == root(shards)
    assert sum(shard.records for shard in shards) == len(keys)


def test_the_root_is_sha256_over_sha256() -> None:
    """Anybody can check it with a few lines: the digests of the files, joined, hashed."""
    rows = [("a", b'{"id":"a"}'), ("b", b'{"id":"b"}')]
    assert root_of(rows, 2) == sha256(sha256(b'{"id":"a"}\n{"id":"b"}\n').digest()).hexdigest()
    assert root([]) == sha256(b"").hexdigest()


def test_one_record_in_two_to_the_n_begins_a_file() -> None:
    """Levels are spread as trailing zero bits are."""
    found = [level(str(n)) for n in range(40_000)]
    for bits in (1, 4, 6):
        share = sum(one >= bits for one in found) / len(found) * 2**bits
        assert 0.9 < share < 1.1


@given(st.lists(st.text(min_size=1), max_size=30))
def test_levels_of_many_keys_are_those_of_each(keys: list[str]) -> None:
    """Computed in one go from the hashes, they are the same."""
    hashes = np.array([xxh3_64_intdigest(key.encode("utf-8", "replace")) for key in keys], dtype=np.uint64)
    assert levels(hashes).tolist() == [level(key.encode("utf-8", "replace").decode()) for key in keys]
    assert levels(np.array([0, 1, 2**63, 3 * 2**62], dtype=np.uint64)).tolist() == [64, 0, 63, 62]


def test_layouts_keep_files_few_and_folders_small() -> None:
    """One file below a limit; then the repository has many small ones, but never too many."""
    assert mirror_layout(ONE_FILE_BELOW - 1) == repo_layout(ONE_FILE_BELOW - 1) == Layout(None)
    assert mirror_layout(ONE_FILE_BELOW) == Layout(MIRROR_BITS)
    assert repo_layout(ONE_FILE_BELOW) == Layout(4, fan=False)
    for records in (10_000, 1_000_000, 100_000_000):
        layout = repo_layout(records)
        assert layout.bits is not None and records >> layout.bits <= REPO_MAX_FILES
        assert layout.fan == (records >> layout.bits > FANOUT_ABOVE)


@given(st.sets(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40), max_size=30), st.booleans())
def test_file_names_differ_on_every_file_system(starts: set[str], fan: bool) -> None:
    """Names are ASCII, short, without reserved characters, and differ even where case is ignored."""
    names = [file_name(start, Layout(4, fan)) for start in starts]
    assert len({name.lower() for name in names}) == len(starts)
    for name in names:
        assert name.isascii() and len(name) < 120 and not set(name) & set('\\:*?"<>| ')
        assert name.count("/") == (1 if fan else 0) and ".." not in name.split("/")
    assert file_name("", Layout(4, fan)) == "_first.jsonl" and file_name("", Layout(None)) == "records.jsonl"
