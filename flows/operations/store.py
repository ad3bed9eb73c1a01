"""store: apply the staged batch in one transaction: records, change log, source state."""

from __future__ import annotations

import msgspec

from autosync.policy import Counts
from blocks.store import batches
from blocks.store import staged_batch as staging
from flows.workspace import Workspace, now


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """The changes that the batch became: seq range and counts."""

    first_seq: int
    last_seq: int
    counts: Counts


def store(workspace: Workspace, name: str, batch: str, run: str, token: int) -> Stored:
    """Apply a staged batch and discard it.

    Raises:
        StaleLock: A newer run holds the source.
        StoreError: The database can't be written; nothing of the batch was.
    """
    folder = workspace.home.staging / batch
    with workspace.database() as db:
        applied = batches.apply(db, staging.load(folder), workspace.source(name), run=run, token=token, now=now())
    staging.discard(folder)
    return Stored(first_seq=applied.first_seq, last_seq=applied.last_seq, counts=applied.counts)
