"""The monitor flow: looks at every module and tells people when one is in trouble, once until it is well again."""

from __future__ import annotations

import asyncio
from typing import Any

from prefect import flow
from prefect.artifacts import acreate_table_artifact

from autosync.ports import Notice
from blocks.store import ledger
from flows.log import event, open_log
from flows.operations.health import Health, examine
from flows.stages.notify import notify_stage
from flows.tasks import stage
from flows.workspace import Workspace, now, open_workspace


def tell(workspace: Workspace, rows: list[Health]) -> int:
    """Put a notice for each module in trouble into the outbox; returns how many are new.

    The key holds the day, so that trouble that goes on is told again each day.
    """
    if not workspace.home.database.exists():
        return 0
    day, told = int(now() // 86_400), 0
    with workspace.database() as db:
        for row in rows:
            if row.status in ("warning", "error"):
                level = "error" if row.status == "error" else "warning"
                notice = Notice(
                    key=f"health:{row.module}:{row.status}:{day}",
                    title=f"{row.module}: {row.status}",
                    text=row.text,
                    level=level,  # type: ignore[arg-type]  # one of the two literals
                )
                told += ledger.post(db, notice, now=now())
    return told


examine_stage = stage("examine", "Look at every module.")(examine)


@flow(name="monitor", description="Look at every module; tell people what is in trouble.", flow_run_name="monitor")
async def monitor(home: str = "", config: str = "") -> list[dict[str, Any]]:
    """Check the health of every module.

    Returns:
        A row a module: module, status, text, seconds.
    """
    workspace = open_workspace(home, config)
    open_log(workspace.home.log)
    rows = await examine_stage(workspace)
    table = [{"module": row.module, "status": row.status, "text": row.text, "seconds": row.seconds} for row in rows]
    await acreate_table_artifact(table=table, key="health", description="Health of every module")
    for row in rows:
        event("monitor", "-", f"{row.module}: {row.status}: {row.text}")
    if await asyncio.to_thread(tell, workspace, rows):
        await notify_stage(workspace)
    return table
