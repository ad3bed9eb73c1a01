"""Running the sync flow from a command: in this process, against whatever server the environment names."""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client

from autosync.errors import AutoSyncError
from flows.log import event, mask
from flows.run_result import as_json, empty_json
from flows.sync import sync
from flows.workspace import Workspace


async def warm() -> None:
    """Make sure that the server answers."""
    async with get_client() as client:
        await client.hello()


async def write_report(here: Workspace) -> None:
    """One run of the report flow; a report that can't be written never fails a sync."""
    from flows.report import report

    logging.getLogger("prefect").setLevel(logging.CRITICAL)
    state = await report(home=str(here.home.path), config=str(here.config), return_state=True)
    if not state.is_completed():
        event("report", "-", mask(state.message or "the report failed"), logging.WARNING)


async def compact_history(here: Workspace) -> list[dict[str, Any]]:
    """One run of the compact flow; what it returns."""
    from flows.compact import compact

    logging.getLogger("prefect").setLevel(logging.CRITICAL)
    done: list[dict[str, Any]] = await compact(home=str(here.home.path), config=str(here.config))
    return done


async def sync_source(here: Workspace, name: str, accept: str = "", **parameters: Any) -> dict[str, Any]:
    """One run of the sync flow; its result as `autosync run --json` prints it."""
    logging.getLogger("prefect").setLevel(logging.CRITICAL)
    state = await sync(
        source=name,
        accept=accept,
        home=str(here.home.path),
        config=str(here.config),
        return_state=True,
        **parameters,
    )
    run: UUID | None = state.state_details.flow_run_id
    try:
        return as_json(here, str(run))
    except (LookupError, AutoSyncError):  # the database itself failed: the run could not be noted in it
        return empty_json(name, mask(state.message or "the run left no trace"))
