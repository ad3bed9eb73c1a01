"""The repository's files of a collection, rendered from the store: all of them, or those that changes touched."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile

from autosync.ports import FileChange
from autosync.shards import MIRROR_BITS, REPO_MIN_BITS, file_name, level, repo_layout
from blocks.store.history import changes_since
from blocks.store.schema import Db

# The literal lets SQLite use the partial index; the parameter narrows it to the collection's present level.
PREVIOUS = (
    f"SELECT id FROM record WHERE collection = ? AND level >= {REPO_MIN_BITS} AND level >= ? AND doc IS NOT NULL "
    "AND id <= ? ORDER BY id DESC LIMIT 1"
)
NEXT = (
    f"SELECT id FROM record WHERE collection = ? AND level >= {REPO_MIN_BITS} AND level >= ? AND doc IS NOT NULL "
    "AND id > ? ORDER BY id LIMIT 1"
)


LINES_AT_ONCE = 4096


def all_files(db: Db, collection: int, records: int) -> Iterator[tuple[str, bytes]]:
    """Every file of a collection and its bytes, rendered one by one.

    Args:
        records: Live records now; it decides how many keys share a file.
    """
    layout = repo_layout(records)
    for start, end in ranges(db, collection, layout.bits):
        if data := render(db, collection, start, end):
            yield file_name(start, layout), data


def touched_files(db: Db, collection: int, records: int, after: int, upto: int) -> Iterator[FileChange]:
    """Files that the changes in (after, upto] touch, rendered one by one: first those to delete, then the written ones.

    Args:
        records: Live records now; it decides how many keys share a file.
    """
    layout = repo_layout(records)
    bits = layout.bits
    if bits is None:
        yield file_name("", layout), render(db, collection, "", None) or None
        return
    starts = set[str]()
    for id, (live, _) in changes_since(db, collection, after, upto).items():
        found = db.execute(PREVIOUS, [collection, bits, id]).fetchone()
        starts.add(found[0] if found else "")
        if level(id) >= bits and not live:
            yield file_name(id, layout), None
        elif level(id) >= bits:  # a new boundary also shortens the file before it
            before = db.execute(PREVIOUS.replace("id <= ?", "id < ?"), [collection, bits, id]).fetchone()
            starts.add(before[0] if before else "")
    for start in sorted(starts):  # of these only the head's file, the first, can be empty
        yield file_name(start, layout), _render(db, collection, bits, start) or None


def _render(db: Db, collection: int, bits: int, start: str) -> bytes:
    end = db.execute(NEXT, [collection, bits, start]).fetchone()
    return render(db, collection, start, end[0] if end else None)


def boundaries(db: Db, collection: int, level: int, start: str = "", end: str | None = None) -> list[str]:
    """Live ids in (start, end) at which a file begins, in key order."""
    indexed = MIRROR_BITS if level >= MIRROR_BITS else REPO_MIN_BITS
    # An upper limit in the query would let SQLite take the index of all ids instead of the few boundaries'.
    rows = db.execute(
        f"SELECT id FROM record WHERE collection = ? AND level >= {indexed} AND level >= ? "
        "AND doc IS NOT NULL AND id > ? ORDER BY id",
        [collection, level, start],
    )
    return list(takewhile(lambda id: end is None or id < end, (row[0] for row in rows)))


def render(db: Db, collection: int, start: str, end: str | None) -> bytes:
    """The canonical lines of live records with start <= id < end, in key order, joined by SQLite itself."""
    limit = "" if end is None else "AND id < ?"
    row = db.execute(
        "SELECT CAST(group_concat(doc, char(10)) AS BLOB) FROM (SELECT doc FROM record WHERE collection = ? "
        f"AND doc IS NOT NULL AND id >= ? {limit} ORDER BY id)",
        [collection, start] if end is None else [collection, start, end],
    ).fetchone()
    return b"" if row[0] is None else row[0] + b"\n"


def pieces(db: Db, collection: int, start: str, end: str | None) -> Iterator[bytes]:
    """What `render` gives, in pieces that need little memory; those of one state need a transaction around them."""
    while True:
        cut = db.execute(
            "SELECT id FROM record WHERE collection = ? AND id > ? ORDER BY id LIMIT 1 OFFSET ?",
            [collection, start, LINES_AT_ONCE],
        ).fetchone()
        last = cut is None or (end is not None and cut[0] >= end)
        if piece := render(db, collection, start, end if last else cut[0]):
            yield piece
        if last:
            return
        start = cut[0]


def ranges(
    db: Db, collection: int, bits: int | None, start: str = "", end: str | None = None
) -> list[tuple[str, str | None]]:
    """Every file between two boundary keys, as its own and the next one; some may be empty."""
    starts = [start] if bits is None else [start, *boundaries(db, collection, bits, start, end)]
    return list(zip(starts, [*starts[1:], end], strict=True))
