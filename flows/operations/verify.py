"""verify: the root hash of every collection, recomputed from each of its copies and compared."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from autosync.errors import AutoSyncError, MirrorDamaged
from blocks.mirror import update as mirror
from blocks.mirror.files import Target, read_manifest, writing
from blocks.mirror.repair import gaps, mend
from blocks.store import batches, history, ledger
from blocks.store.schema import Db, damage
from flows.operations.copies import COPIES, CopyName, open_copy
from flows.workspace import Workspace

SHOWN = 5
REBUILD = "What to do: run: autosync rebuild"


def verify_all(workspace: Workspace) -> dict[str, Any]:
    """Compare the copies of every collection.

    Returns:
        `equal`; `collections` with records, store_root, mirror_root, repo_root (None where it can't be read);
        `problems` in words.

    Raises:
        StoreError: The database is so damaged that it can't be read.
    """
    rows, problems = [], list[str]()
    with workspace.database(read_only=True) as db:
        problems += [f"the database is damaged: {text}. {REBUILD}" for text in damage(db, most=SHOWN)]
        for row in history.collections(db):
            roots = {f"{name}_root": _root(workspace, db, name, row["name"], problems) for name in COPIES}
            rows.append({"collection": row["name"], "records": row["records"]} | roots)
            problems += [f"{row['name']}, mirror: {error}" for error in _gaps(workspace.home.mirror / row["name"])]
    equal = all(len({row[f"{name}_root"] for name in COPIES}) == 1 for row in rows)
    return {"equal": equal and not problems, "collections": rows, "problems": problems}


def repair_mirrors(workspace: Workspace) -> list[str]:
    """Prove every file of every mirror, versions included; keep aside those that are damaged and make them again from
    the store.

    Returns:
        What was made again, as collection/file; with the reason where that was not possible.
    """
    mended = list[str]()
    with workspace.database() as db:
        for row in history.collections(db):
            keys = tuple(msgspec.json.decode(row["key"], type=list[str]))
            target = Target(workspace.home.mirror / row["name"], row["collection"], row["name"], keys)
            with writing(target.folder):
                upto, then = ledger.newest_seq(db, target.collection), ledger.newest_time(db, target.collection)
                records = batches.record_count(db, target.name)
                done = mirror.repair(db, target, upto=upto, records=records, now=then)
                mended += [f"{target.name}/{name}" for name in [*done, *mend(db, target)]]
    return mended


def _root(workspace: Workspace, db: Db, name: CopyName, collection: str, problems: list[str]) -> str | None:
    """The root of what a copy holds now; None, with the reason among the problems, where it can't be read."""
    try:
        proof = open_copy(workspace, name, collection, db).prove()
    except AutoSyncError as error:
        problems.append(f"{collection}, {COPIES[name].label}: {error}")
        return None
    return proof.root if proof else None


def _gaps(folder: Path) -> list[MirrorDamaged]:
    """What is wrong with the version files; a damaged manifest was named already."""
    with suppress(MirrorDamaged):
        if manifest := read_manifest(folder):
            return [gap.error for gap in gaps(folder, manifest)]
    return []
