"""The sync flow: one source, from its file or address to the commit and the notice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from prefect import flow, get_run_logger, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from autosync.errors import AutoSyncError
from flows.artifacts import publish
from flows.log import event, mask, open_log
from flows.operations.ingest import Ingested
from flows.operations.overrides import Override, Replay, Restored
from flows.run_result import Outcome, begin, finish, pending
from flows.stages.ingest import ingest_stage
from flows.stages.lock import Grant, hold_lease, lock_stage
from flows.stages.mirror import mirror_stage
from flows.stages.notify import notify_stage
from flows.stages.push import push_stage
from flows.stages.store import store_stage
from flows.tasks import Recorder, recording
from flows.waiting import Patience, locked
from flows.workspace import Workspace, open_workspace


@flow(
    name="sync",
    description="Sync one source: ingest, lock, store, mirror, push, notify.",
    flow_run_name="sync {source}",
    validate_parameters=True,
)
async def sync(
    source: str,
    accept: str = "",
    home: str = "",
    config: str = "",
    replay: Replay | None = None,
    restored: Restored | None = None,
) -> State[Any]:
    """Bring the database, the mirror and the repository up to a source.

    Args:
        source: Its name in autosync.toml.
        accept: The code of an input that a guard refused and that may pass now.
        home: The home folder; AUTOSYNC_HOME or ./.autosync when empty.
        config: The configuration file; AUTOSYNC_CONFIG or ./autosync.toml when empty.
        replay: Quarantine rows to take instead of the source.
        restored: The collection as it was, to take instead of the source.
    """
    workspace, run = open_workspace(home, config), str(runtime.flow_run.id or uuid4())
    open_log(workspace.home.log)
    with recording() as recorder:
        try:
            workspace.source(source)
            await asyncio.to_thread(begin, workspace, run, source, runtime.flow_run.scheduled_start_time)
            outcome = await _stages(workspace, source, run, accept, replay or restored)
        except BaseException as error:  # the outermost edge: every end of a run is noted, then handed on
            outcome = Outcome.of_error(source, error)
            if not isinstance(error, AutoSyncError):
                await _end(workspace, run, outcome, recorder)
                raise
        return await _end(workspace, run, outcome, recorder)


async def _stages(workspace: Workspace, source: str, run: str, accept: str, override: Override | None) -> Outcome:
    outcome = Outcome(source)
    found = await ingest_stage(workspace, source, run, accept, override)
    outcome.counts, outcome.left_out = found.counts, found.left_out
    if not found.batch and not await asyncio.to_thread(pending, workspace, source):
        return outcome
    patience = Patience(f"the sync of {source}")
    while True:
        try:
            async with _lock(workspace, source, run) as grant:
                if found.batch and grant.state_version != found.state_version:  # another run stored a batch meanwhile
                    found = await ingest_stage(workspace, source, run, accept, override)
                    outcome.counts = found.counts
                if found.batch:
                    stored = await store_stage(workspace, source, found.batch, run, grant.token)
                    outcome.changed(stored.counts)
                    found = Ingested()  # stored, whatever comes
                await _publish(workspace, source, run, outcome)
            return outcome
        except AutoSyncError as error:
            await patience.wait(error)


@asynccontextmanager
async def _lock(workspace: Workspace, source: str, run: str) -> AsyncIterator[Grant]:
    """The run's place; nobody waits for a service inside: the place is given back first, and taken again afterwards."""
    grant: Grant = await lock_stage(workspace, source, run)
    async with hold_lease(workspace, run, grant):
        with locked():
            yield grant


async def _publish(workspace: Workspace, source: str, run: str, outcome: Outcome) -> None:
    """Bring mirror and repository up to the store: from their cursors, so that it can be done again after any error."""
    mirrored = await mirror_stage(workspace, source)
    outcome.seq, outcome.root, outcome.rebuilt = mirrored.seq, mirrored.root, mirrored.rebuilt
    pushed = await push_stage(workspace, source, run, mirrored.root)
    outcome.commit, outcome.link = pushed.sha, pushed.link


async def _end(workspace: Workspace, run: str, outcome: Outcome, recorder: Recorder) -> State[Any]:
    """Note the end, tell people, leave artifacts; a notice that can't be delivered now waits in the outbox."""
    said = mask(str(outcome))
    get_run_logger().log(logging.ERROR if outcome.error else logging.INFO, said)
    event(run, outcome.source, said, logging.ERROR if outcome.error else logging.INFO)
    if await asyncio.to_thread(finish, workspace, run, outcome, recorder.stages):
        try:
            await notify_stage(workspace)
        except AutoSyncError as error:
            event(run, outcome.source, mask(str(error)), logging.WARNING)
            get_run_logger().warning(mask(str(error)))
        await asyncio.to_thread(finish, workspace, run, outcome, recorder.stages)
    for stage in recorder.stages:
        event(run, outcome.source, f"{stage['name']}: {stage['state']} in {stage['seconds']:.3f} s")
    await publish(workspace, run, outcome)
    name = outcome.outcome.capitalize()
    return Failed(name=name, message=said) if outcome.error else Completed(name=name, message=said)
