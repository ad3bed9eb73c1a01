"""What the files of each source's folder showed: read by ingest, kept in the transaction of the batch."""

from __future__ import annotations

from autosync.file_states import PartChanges, PartState
from blocks.store.schema import Db


def kept(db: Db, source: str) -> dict[str, PartState]:
    """By name, the files of a source as they were; empty for a source of one file."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'seen_part'").fetchone():
        return {}  # an older database, opened only to be read
    rows = db.execute("SELECT name, size, mtime, inode, digest, rows FROM seen_part WHERE source = ?", [source])
    return {
        name: PartState(name, None if size is None else (size, mtime, inode), digest, data)
        for name, size, mtime, inode, digest, data in rows
    }


def keep(db: Db, source: str, changes: PartChanges) -> None:
    """Write how the files of a source are now. Needs a transaction."""
    db.executemany("DELETE FROM seen_part WHERE source = ? AND name = ?", [(source, name) for name in changes.drop])
    db.executemany(
        "INSERT INTO seen_part VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (source, name) DO UPDATE SET "
        "size = excluded.size, mtime = excluded.mtime, inode = excluded.inode, digest = excluded.digest, "
        "rows = excluded.rows",
        [
            (source, state.name, *(state.stat or (None, None, None)), state.digest, state.rows)
            for state in changes.write
        ],
    )


def forget(db: Db, source: str) -> None:
    """Forget the files of a source. Needs a transaction."""
    db.execute("DELETE FROM seen_part WHERE source = ?", [source])
