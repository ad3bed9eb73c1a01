"""The repository's files of a collection, rendered from the store: all of them, or those that changes touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import takewhile

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


class AllFiles(Mapping[str, bytes]):
    """Every file of a collection as path -> bytes, rendered while they are iterated: a large one needs no memory."""

    def __init__(self, db: Db, collection: int, records: int) -> None:
        self.db, self.collection, self.records = db, collection, records

    def _each(self) -> Iterator[tuple[str, bytes]]:
        layout = repo_layout(self.records)
        for start, end in ranges(self.db, self.collection, layout.bits):
            if data := render(self.db, self.collection, start, end):
                yield file_name(start, layout), data

    def __iter__(self) -> Iterator[str]:
        return (path for path, _ in self._each())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, path: str) -> bytes:
        for name, data in self._each():
            if name == path:
                return data
        raise KeyError(path)

    def items(self) -> Iterator[tuple[str, bytes]]:  # type: ignore[override]  # a stream instead of a view
        return self._each()


def touched_files(db: Db, collection: int, records: int, after: int, upto: int) -> dict[str, bytes | None]:
    """Files that the changes in (after, upto] touch -> their bytes now, None where a file is to be deleted.

    Args:
        records: Live records now; it decides how many keys share a file.
    """
    layout = repo_layout(records)
    bits = layout.bits
    if bits is None:
        return {file_name("", layout): render(db, collection, "", None) or None}
    starts, files = set[str](), dict[str, bytes | None]()
    for id, (live, _) in changes_since(db, collection, after, upto).items():
        found = db.execute(PREVIOUS, [collection, bits, id]).fetchone()
        starts.add(found[0] if found else "")
        if level(id) >= bits and not live:
            files[file_name(id, layout)] = None
        elif level(id) >= bits:  # a new boundary also shortens the file before it
            before = db.execute(PREVIOUS.replace("id <= ?", "id < ?"), [collection, bits, id]).fetchone()
            starts.add(before[0] if before else "")
    for start in sorted(starts):
        files[file_name(start, layout)] = _render(db, collection, bits, start) or None
    return files


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
