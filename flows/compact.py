"""The compact flow: merges history past its retention, in the database's log and in the mirror's versions."""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from uuid import uuid4

import msgspec
from prefect import flow, runtime

from blocks.mirror import versions as mirror_versions
from blocks.mirror.files import writing
from blocks.store import compaction, history
from blocks.store.history import Row
from flows.log import event, open_log
from flows.stages.lock import Grant, hold_lease, lock_stage
from flows.tasks import stage
from flows.workspace import Workspace, now, open_workspace


class Compacted(msgspec.Struct, frozen=True, kw_only=True):
    """What retention removes of a collection's history, or would.

    Attributes:
        points: Moments that can be gone back to; `merged` of them go.
        rows: Changes that go from the log, with `bytes` of contents before.
        files: Version files that go from the mirror, with `file_bytes`.
        freed: Bytes by which the database's file became smaller; the rest is free in it for what comes.
        damaged: Version files that can't be read; they and those merged with them are left alone.
    """

    collection: str
    points: int
    merged: int = 0
    rows: int = 0
    bytes: int = 0
    files: int = 0
    file_bytes: int = 0
    freed: int = 0
    damaged: list[str] = []


def plan_compaction(workspace: Workspace) -> list[Compacted]:
    """What `compact` would remove, for every collection. Writes nothing."""
    rule, time = workspace.settings.retention, now()
    with workspace.database(read_only=True) as db:
        found = []
        for row in history.collections(db):
            number, points = row["collection"], compaction.points(db, row["collection"])
            keep = compaction.points_to_keep(db, number, rule, time)
            versions = mirror_versions.plan(workspace.home.mirror / row["name"], rule, time, keep)
            found.append(_compacted(row["name"], len(points), compaction.plan(db, number, keep), versions))
        return found


def compact_collection(workspace: Workspace, row: Row, grant: Grant) -> Compacted:
    """Merge a collection's batches and version files between the points that are kept.

    Args:
        row: From `history.collections`.
        grant: The place of the collection's source, so that no sync of it writes meanwhile.

    Raises:
        StaleLock: Another run was given the place.
        StoreError: Database or mirror can't be written; every kept point can still be restored.
    """
    rule, time = workspace.settings.retention, now()
    with workspace.database() as db:
        points = len(compaction.points(db, row["collection"]))
        keep = compaction.points_to_keep(db, row["collection"], rule, time)
        removed = compaction.compact(db, row["collection"], keep, place=grant.place, token=grant.token)
        folder = workspace.home.mirror / row["name"]
        with writing(folder):
            versions = mirror_versions.compact(folder, rule, time, keep)
        freed = compaction.shrink(db, workspace.home.database)
    return _compacted(row["name"], points, removed, versions, freed)


def _compacted(
    name: str, points: int, removed: compaction.Removed, versions: mirror_versions.Removed, freed: int = 0
) -> Compacted:
    return Compacted(
        collection=name,
        points=points,
        merged=removed.points,
        rows=removed.rows,
        bytes=removed.bytes,
        files=versions.files,
        file_bytes=versions.bytes,
        freed=freed,
        damaged=list(versions.damaged),
    )


compact_stage = stage("compact", "Merge what is past its retention, in the log and in the mirror's versions.")(
    compact_collection
)


def _collections(workspace: Workspace) -> list[Row]:
    if not workspace.home.database.exists():
        return []
    with workspace.database(read_only=True) as db:
        return history.collections(db)


@flow(
    name="compact",
    description="Merge history past its retention, in the log and in the mirror's versions.",
    flow_run_name="compact",
)
async def compact(home: str = "", config: str = "") -> list[dict[str, Any]]:
    """Keep history as long as [retention] says: every point, then the last of each day, then the last of each month.

    Returns:
        A row a collection, see `Compacted`.
    """
    workspace, run = open_workspace(home, config), str(runtime.flow_run.id or uuid4())
    open_log(workspace.home.log)
    done = list[Compacted]()
    for row in await asyncio.to_thread(_collections, workspace):
        grant: Grant = await lock_stage(workspace, row["source"] or row["name"], run)
        async with hold_lease(workspace, run, grant):
            done.append(await compact_stage(workspace, row, grant))
        event(run, row["name"], f"compact: {describe(done[-1])}")
        for path in done[-1].damaged:
            event(run, row["name"], f"compact: left alone, because it can't be read: {path}", logging.WARNING)
    return [msgspec.to_builtins(one) for one in done]


def describe(done: Compacted) -> str:
    """In a few words."""
    log = f"{done.merged:,} of {done.points:,} points merged, {done.rows:,} changes and {done.bytes:,} bytes less"
    return f"{log}; {done.files:,} version files and {done.file_bytes:,} bytes less in the mirror"
