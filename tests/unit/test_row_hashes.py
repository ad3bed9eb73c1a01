"""The hashes of a source's rows as they are stored: always what was told last, in buckets or in patches beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosync.row_hashes import BUCKETS, ENTRY, Entries, merge
from blocks.store import row_hashes as hashes
from blocks.store.schema import Db, connect

Hash = tuple[int, int]
HALF = st.one_of(st.integers(0, 3), st.sampled_from([2**56, 2**56 - 1, 255 << 56, 2**63, 2**64 - 1]))
SHOWN = st.dictionaries(st.tuples(HALF, HALF), st.integers(1, 2**62), max_size=30)


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Db]:
    found = connect(tmp_path_factory.mktemp("store") / "autosync.db")
    yield found
    found.close()


def entries_of(shown: dict[Hash, int]) -> Entries:
    return merge([np.array([(hi, lo, rec) for (hi, lo), rec in shown.items()], dtype=ENTRY)])


def go_on(db: Db, before: dict[Hash, int], after: dict[Hash, int]) -> None:
    """Tell the store that a source shows other rows now."""
    lost = entries_of({key: rec for key, rec in before.items() if after.get(key) != rec})
    fresh = entries_of({key: rec for key, rec in after.items() if before.get(key) != rec})
    hashes.update(db, "things", lost, fresh)


def stored(db: Db, source: str = "things") -> list[tuple[int, int, int]]:
    kept = hashes.kept(db, source, 0)
    return [tuple(entry) for entry in kept.entries(np.arange(len(kept))).tolist()]


@pytest.mark.parametrize(("share", "most"), [(0, 3), (1, 64), (hashes.PATCHED_SHARE, hashes.MOST_PATCHES)])
@given(steps=st.lists(SHOWN, min_size=1, max_size=6))
def test_what_is_kept_is_what_was_shown_last(db: Db, share: int, most: int, steps: list[dict[Hash, int]]) -> None:
    """Rows come, go, come back and belong to other records: the last word counts, patched always, mostly or seldom."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashes, "PATCHED_SHARE", share)
        patch.setattr(hashes, "MOST_PATCHES", most)
        hashes.forget(db, "things")
        before: dict[Hash, int] = {}
        for shown in steps:
            go_on(db, before, shown)
            assert sorted(stored(db)) == sorted((hi, lo, rec) for (hi, lo), rec in shown.items())
            before = shown


@pytest.fixture
def large(tmp_path: Path) -> Iterator[tuple[Db, Entries]]:
    """A source that has shown 20,000 rows, beside another one."""
    draw = np.random.default_rng(1)
    shown = np.zeros(20_000, dtype=ENTRY)
    shown["hi"], shown["lo"] = draw.integers(0, 2**64, (2, len(shown)), dtype=np.uint64)
    shown["rec"] = np.arange(1, len(shown) + 1)
    db = connect(tmp_path / "autosync.db")
    for source in ("things", "others"):
        hashes.update(db, source, shown[:0], merge([shown]))
    yield db, merge([shown])
    db.close()


def rows(db: Db) -> list[tuple[int, int]]:
    found = db.execute("SELECT bucket, length(data) / 24 FROM seen WHERE source = 'things' AND bucket >= ?", [BUCKETS])
    return list(found)


def test_a_few_changes_all_over_write_one_small_row(large: tuple[Db, Entries]) -> None:
    """1 % of the rows change, in all buckets: nothing but what came and went is written."""
    db, shown = large
    lost, fresh = shown[::100], shown[::100].copy()
    fresh["lo"] ^= np.uint64(1)
    before = db.total_changes
    hashes.update(db, "things", lost, fresh)
    assert db.total_changes - before == 1 and rows(db) == [(BUCKETS, len(lost) + len(fresh))]
    assert sorted(stored(db)) == sorted([tuple(e) for e in merge([np.delete(shown, np.s_[::100]), fresh]).tolist()])


def test_patches_go_into_the_buckets_when_they_grow(large: tuple[Db, Entries]) -> None:
    """Many small ones, or some that are large together: loading stays quick, and nothing is lost on the way."""
    db, shown = large
    for n in range(hashes.MOST_PATCHES + 1):
        assert len(rows(db)) == n
        hashes.update(db, "things", shown[n : n + 1], shown[:0])
    assert rows(db) == []
    left = shown[hashes.MOST_PATCHES + 1 :]
    assert stored(db) == left.tolist()
    for n in range(4):
        hashes.update(db, "things", left[n * 1000 : (n + 1) * 1000], shown[:0])
        assert len(rows(db)) == (n + 1) % 3
    assert stored(db) == left[4000:].tolist()


def test_forgetting_reaches_patches(large: tuple[Db, Entries]) -> None:
    """Rows of records that others changed are forgotten wherever they lie; another source keeps its own."""
    db, shown = large
    fresh = np.array([(1, 2, 70_000), (3, 4, 70_001)], dtype=ENTRY)
    hashes.update(db, "things", shown[:0], fresh)
    hashes.forget_records(db, "things", np.array([70_000, *shown["rec"][5:].tolist()]))
    assert sorted(stored(db)) == sorted([(3, 4, 70_001), *shown[:5].tolist()])
    hashes.forget(db, "things")
    assert stored(db) == [] and stored(db, "others") == shown.tolist()
