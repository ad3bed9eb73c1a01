"""mirror: write what changed into the versioned JSON mirror and compare its root with the store."""

from __future__ import annotations

import msgspec

from blocks.mirror import update as files
from blocks.mirror.files import Target, writing
from blocks.store import batches, ledger
from blocks.store.schema import Db
from flows.workspace import Workspace, now


class Mirrored(msgspec.Struct, frozen=True, kw_only=True):
    """The mirror after the stage: seq, root hash, records, files written, files that were damaged and rebuilt."""

    seq: int = 0
    root: str = ""
    records: int = 0
    written: int = 0
    rebuilt: list[str] = []


def mirror(workspace: Workspace, name: str) -> Mirrored:
    """Bring the mirror of a source's collection up to the store.

    Raises:
        StoreError: The mirror can't be written; the database is unharmed and the mirror follows next time.
    """
    source = workspace.source(name)
    with workspace.database() as db:
        target = workspace.target(db, source)
        if target is None:
            return Mirrored()
        with writing(target.folder):
            return _bring_up(db, target)


def _bring_up(db: Db, target: Target) -> Mirrored:
    records = batches.record_count(db, target.name)
    upto = ledger.newest_seq(db, target.collection)
    cursor = ledger.cursor(db, "mirror", target.collection)
    stats, then = cursor.info.get("stats"), ledger.newest_time(db, target.collection)
    done = files.update(db, target, upto=upto, records=records, now=then, stats=stats)
    info = {"root": done.manifest.root, "records": records, "stats": done.stats}
    if (cursor.seq, cursor.info) != (upto, info):
        ledger.advance(db, "mirror", target.collection, upto, now=now(), info=info)
    return Mirrored(
        seq=upto, root=done.manifest.root, records=records, written=done.written, rebuilt=list(done.rebuilt)
    )
