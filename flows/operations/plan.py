"""What a run would do, found by the same code, in a temporary folder, with a read-only store."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from autosync.change_detection import Staged
from autosync.differences import changed_fields
from autosync.errors import Refused
from autosync.settings import Source
from blocks.sources.reader import Unchanged, left_out
from blocks.store import batches
from blocks.store import staged_batch as staging
from blocks.store.schema import Db, connect
from flows.operations.ingest import begin, check_guards, examine
from flows.operations.overrides import Override
from flows.operations.quality import VALIDATOR
from flows.workspace import Workspace

SHOWN = 20


def describe(workspace: Workspace, name: str, override: Override | None = None) -> dict[str, Any]:
    """The plan for a source: outcome, counts, first changes with the fields that differ, refused rows, and what it
    doesn't look at.

    Args:
        override: What would be taken instead of the source.

    Raises:
        SourceError: The source can't be read.
    """
    source = workspace.source(name)
    with tempfile.TemporaryDirectory(prefix="autosync-plan-") as folder:
        exists = workspace.home.database.exists()
        db = connect(workspace.home.database, read_only=True) if exists else connect(Path(folder) / "empty.db")
        try:
            return _describe(workspace, db, source, Path(folder) / "batch", override)
        finally:
            db.close()


def _describe(workspace: Workspace, db: Db, source: Source, folder: Path, override: Override | None) -> dict[str, Any]:
    batch = examine(begin(workspace, db, source, folder, override), folder.parent / VALIDATOR, folder.parent)
    if isinstance(batch, Unchanged):
        return {"source": source.name, "outcome": "unchanged", "left_out": left_out(batch.fingerprint.text())}
    ticket, staged = batch.ticket, batch.staged
    counts, changes = ticket.counts, _changes(db, folder, staged)
    result: dict[str, Any] = {
        "source": source.name,
        "outcome": "changed" if counts.changed else "unchanged",
        "inserted": counts.inserted,
        "updated": counts.updated,
        "deleted": counts.deleted,
        "quarantined": counts.quarantined,
        "changes": changes,
        "more": counts.changed - len(changes),
        "refused": [{"place": row.place, "id": row.id, "reason": row.reason} for row in staged.refused[:SHOWN]],
        "left_out": left_out(ticket.fingerprint),
        "error": None,
    }
    try:
        check_guards(batch, source, "", override)
    except Refused as error:
        result |= {"outcome": "refused", "error": str(error)}
    return result


def _changes(db: Db, folder: Path, staged: Staged) -> list[dict[str, Any]]:
    rows = staging.Stage.peek(folder, SHOWN + len(staged.skip))
    changes: list[dict[str, Any]] = []
    for position, (id, doc) in rows.items():
        if position in staged.skip:
            continue
        if staged.born[position]:
            changes.append({"op": "insert", "id": id})
        else:
            old = batches.document(db, int(staged.recs[position]))
            changes.append({"op": "update", "id": id, "fields": changed_fields(old, doc)})
    for rec in staged.deletes[: max(SHOWN - len(changes), 0)].tolist():
        changes.append({"op": "delete", "id": batches.id_of(db, rec)})
    return changes[:SHOWN]
