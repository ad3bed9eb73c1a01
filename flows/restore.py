"""The restore flow: a collection as of any seq or time, as canonical JSON Lines in a file."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.log import event, open_log
from flows.operations.restore import write_collection
from flows.tasks import stage
from flows.workspace import open_workspace

restore_stage = stage("restore", "Write a collection as of a seq or time to a file.")(write_collection)


@flow(name="restore", description="Write a collection as of a moment to a file.", flow_run_name="restore {collection}")
async def restore(
    collection: str,
    as_of: str = "",
    to: str = "restored.jsonl",
    home: str = "",
    config: str = "",
    place: str = "store",
) -> dict[str, Any]:
    """Restore a collection to a file. (The sync flow's parameter `restored` writes it back into the collection.)

    Args:
        collection: Its name.
        as_of: A seq or an ISO 8601 time; the newest state when empty.
        to: The file to write.
        place: Where to read it from: store, mirror or repo.
    """
    workspace = open_workspace(home, config)
    open_log(workspace.home.log)
    done: dict[str, Any] = await restore_stage(workspace, collection, as_of, to, place)
    event("restore", collection, f"seq {done['seq']}, {done['records']:,} records, to {done['file']}")
    return done
