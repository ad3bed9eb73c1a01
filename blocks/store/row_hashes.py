"""The hashes of the rows that each source showed: read by ingest, kept in the transaction of the batch.

Most lie in buckets by their top byte. What came and went since then lies beside them in patches, small ones, so that
a few changes all over a large source don't write every bucket again; when they grow they go into the buckets.
"""

from __future__ import annotations

import numpy as np

from autosync.row_hashes import BUCKETS, ENTRY, Entries, Recs, RowHashes, in_buckets, merge, update_bucket
from blocks.store.schema import Db

MOST_PATCHES = 64
PATCHED_SHARE = 8  # one in so many entries of the buckets, at most


def kept(db: Db, source: str, seed: int) -> RowHashes:
    """The hashes of the rows that the source showed last time."""
    patch = merge([*_patches(db, source), _none()])
    size = db.execute("SELECT coalesce(sum(length(data)), 0) FROM seen WHERE source = ?", [source]).fetchone()[0]
    buckets = (_bucket(db, source, n, part) for n, part in enumerate(in_buckets(patch)))
    return RowHashes(buckets, seed, size // ENTRY.itemsize)


def update(db: Db, source: str, lost: Entries, fresh: Entries) -> None:
    """Take entries out and put others in, both sorted. Needs a transaction."""
    gone = lost.copy()
    gone["rec"] = 0  # no record has this number
    patch = merge([fresh, gone])
    if not len(patch):
        return
    last, buckets, patches = db.execute(
        f"SELECT coalesce(max(bucket), 0), coalesce(sum(length(data)) FILTER (WHERE bucket < {BUCKETS}), 0), "
        f"coalesce(sum(length(data)) FILTER (WHERE bucket >= {BUCKETS}), 0) FROM seen WHERE source = ?",
        [source],
    ).fetchone()
    number = max(last + 1, BUCKETS)
    if number < BUCKETS + MOST_PATCHES and (patches + patch.nbytes) * PATCHED_SHARE <= buckets:
        db.execute("INSERT INTO seen VALUES (?, ?, ?)", [source, number, patch.tobytes()])
        return
    patch = merge([patch, *_patches(db, source)])
    for n, part in enumerate(in_buckets(patch)):
        if len(part):
            db.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", [source, n, _bucket(db, source, n, part)])
    db.execute("DELETE FROM seen WHERE source = ? AND bucket >= ?", [source, BUCKETS])


def forget(db: Db, source: str) -> None:
    """Forget all that a source showed. Needs a transaction."""
    db.execute("DELETE FROM seen WHERE source = ?", [source])


def forget_records(db: Db, source: str, recs: Recs) -> None:
    """Forget the rows of some records. Needs a transaction."""
    known = kept(db, source, 0)
    update(db, source, known.entries(np.flatnonzero(np.isin(known.rec, recs))), _none())


def _none() -> Entries:
    return np.zeros(0, dtype=ENTRY)


def _patches(db: Db, source: str) -> list[Entries]:
    """The newest first: of equal hashes, merged, the newest word counts."""
    rows = db.execute("SELECT data FROM seen WHERE source = ? AND bucket >= ? ORDER BY bucket DESC", [source, BUCKETS])
    return [np.frombuffer(row[0], dtype=ENTRY) for row in rows]


def _bucket(db: Db, source: str, n: int, part: Entries) -> bytes:
    """A bucket as the part of a patch that is for it makes it."""
    row = db.execute("SELECT data FROM seen WHERE source = ? AND bucket = ?", [source, n]).fetchone()
    data: bytes = row[0] if row else b""
    return update_bucket(data, part, part[part["rec"] > 0]) if len(part) else data
