"""The import-git flow: takes the place of the collection's source, then imports the history of a file."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from prefect import flow, runtime

from flows.log import event, mask, open_log
from flows.operations.import_history import import_history, imported_source
from flows.stages.lock import Grant, hold_lease, lock_stage
from flows.tasks import stage
from flows.workspace import open_workspace

import_stage = stage("import", "Write the history of a file in a Git repository to the change log.")(import_history)


@flow(
    name="import-git",
    description="Import the history of a JSON file in a Git repository as a collection's change log.",
    flow_run_name="import {path}",
)
async def import_git(
    repository: str,
    path: str,
    key: list[str],
    records: str = "",
    collection: str = "",
    branch: str = "",
    home: str = "",
    config: str = "",
) -> dict[str, Any]:
    """Import a history into a collection that has no changes yet.

    Args:
        repository: A folder with a Git repository, or an address that git clones from.
        path: The JSON or JSONL file, from the repository's root.
        key: JSON Pointers of a record's key.
        records: JSON Pointer of the array of records; empty for a plain array or JSON Lines.
        collection: The collection's name; the file's without its ending when empty.
        branch: A branch, tag or commit; what the repository has checked out when empty.
        home: The home folder; AUTOSYNC_HOME or ./.autosync when empty.
        config: The configuration file; AUTOSYNC_CONFIG or ./autosync.toml when empty.
    """
    workspace, run = open_workspace(home, config), str(runtime.flow_run.id or uuid4())
    open_log(workspace.home.log)
    source, fed = imported_source(workspace, path, key, records, collection)
    grant: Grant = await lock_stage(workspace, source.name, run)
    async with hold_lease(workspace, run, grant):
        done: dict[str, Any] = await import_stage(workspace, source, fed, repository, branch, token=grant.token)
    said = f"{done['changed']:,} of {done['versions']:,} versions of {done['path']} in {mask(done['repository'])}"
    event(run, source.name, f"imported {said}")
    return done
