"""The backup flow: a consistent copy of the database to a folder or to Google Drive, proven by checksum."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from prefect import flow

from flows.log import event, open_log
from flows.operations.backups import left_alone, open_target, save_backup
from flows.tasks import stage
from flows.workspace import open_workspace

save_stage = stage("backup", "Copy the database to the backup target; delete what is past its keep.")(save_backup)


@flow(name="backup", description="Copy the database to a folder or to Google Drive.", flow_run_name="backup")
async def backup(home: str = "", config: str = "") -> dict[str, Any]:
    """Back the database up.

    Returns:
        name, size (bytes), sha256 and target of the backup; left, as in `Saved`.
    """
    workspace = open_workspace(home, config)
    open_log(workspace.home.log)
    saved = await save_stage(workspace)
    stored, target = saved.stored, await asyncio.to_thread(open_target, workspace)
    event("backup", "-", f"{stored.name}, {stored.size:,} bytes, to {target.address}")
    if saved.left:
        event("backup", "-", left_alone(saved.left, target.address), logging.WARNING)
    return {
        "name": stored.name,
        "size": stored.size,
        "sha256": stored.sha256,
        "target": target.address,
        "left": saved.left,
    }
