"""Rendering a collection's files from the store: in pieces, of one state, and without looking at other records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from autosync.shards import MIRROR_BITS, level
from blocks.store import shard_files as files
from blocks.store.schema import INDEX_NAMES, INDEXES, Db, connect, snapshot

IDS = sorted(f"k{n}" for n in range(20_000))
BEGINNINGS = "a70831 a71503 k84737 k86505 z17920".split()  # one id in 16,384 begins a file of the mirror


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "autosync.db"


@pytest.fixture
def db(path: Path) -> Iterator[Db]:
    found = connect(path)
    fill(found, 1, [*IDS, *BEGINNINGS])
    yield found
    found.close()


def fill(db: Db, collection: int, ids: list[str]) -> None:
    rows = ((collection, id, f'{{"id":"{id}"}}', level(id)) for id in ids)
    db.executemany("INSERT INTO record (collection, id, doc, level) VALUES (?, ?, ?, ?)", rows)


@pytest.mark.parametrize("at_once", [1, 2, 7, 100, 4096])
def test_pieces_are_the_whole(db: Db, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    """Between any keys, with and without an end, with deleted records everywhere, also where a piece ends."""
    fill(db, 2, IDS[:100])
    db.execute("UPDATE record SET doc = NULL WHERE collection = 2 AND rec % 3 != 0")
    live = [row[0] for row in db.execute("SELECT id FROM record WHERE collection = 2 AND doc IS NOT NULL")]
    monkeypatch.setattr(files, "LINES_AT_ONCE", at_once)
    for start in ("", IDS[0], IDS[7], IDS[60]):
        for end in (None, IDS[7], IDS[8], IDS[99], "zzz"):
            pieces = list(files.pieces(db, 2, start, end))
            wanted = [f'{{"id":"{id}"}}\n' for id in sorted(live) if start <= id and (end is None or id < end)]
            assert b"".join(pieces).decode() == "".join(wanted)
            assert all(pieces) and all(piece.count(b"\n") <= at_once + 1 for piece in pieces)


def test_pieces_in_a_snapshot_are_of_one_state(db: Db, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer between two pieces: they are as if it had not been, the next ones see it."""
    fill(db, 2, IDS[:100])
    monkeypatch.setattr(files, "LINES_AT_ONCE", 10)
    before = files.render(db, 2, "", None)
    other = connect(path)
    with snapshot(db):
        pieces = files.pieces(db, 2, "", None)
        first = next(pieces)
        other.execute("""UPDATE record SET doc = '{"id":"other"}' WHERE collection = 2""")
        assert first + b"".join(pieces) == before
    assert files.render(db, 2, "", None) == b'{"id":"other"}\n' * 100
    other.close()


@pytest.mark.parametrize("again", [False, True])
def test_boundaries_are_found_without_the_records_between(db: Db, again: bool) -> None:
    """A collection's few boundaries, also up to an end, in some hundred steps of SQLite and not some for each record.

    Whichever index is older: a first load makes some again.
    """
    for statement in [*(f"DROP INDEX {name}" for name in INDEX_NAMES), *INDEXES.strip().split(";")] if again else ():
        db.execute(statement)
    wanted = [id for id in sorted([*IDS, *BEGINNINGS]) if level(id) >= MIRROR_BITS]
    assert set(BEGINNINGS) <= set(wanted)
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    db.set_progress_handler(count, 1)
    assert files.boundaries(db, 1, MIRROR_BITS) == wanted
    assert files.boundaries(db, 1, MIRROR_BITS, "a9", "z2") == [id for id in wanted if "a9" < id < "z2"]
    assert files.boundaries(db, 1, MIRROR_BITS, wanted[0], wanted[-1]) == wanted[1:-1]
    db.set_progress_handler(None, 0)
    assert steps < 1000
