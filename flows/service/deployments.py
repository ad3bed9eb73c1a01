"""What the Prefect server is to hold for a configuration: limits, work pool, deployments, blocks. Idempotent."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.exceptions import ObjectAlreadyExists
from prefect.flows import Flow
from prefect.types.entrypoint import EntrypointType

from autosync.policy import LOCK_LIMITS
from blocks.catalog import GitRemote, JsonSource, SQLiteStore
from flows.backup import backup
from flows.compact import compact
from flows.import_git import import_git
from flows.monitor import monitor
from flows.report import report
from flows.restore import restore
from flows.sync import sync
from flows.workspace import Workspace

POOL = "autosync"
SKIP_IF_RUNNING = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)


def schedule(value: str | float | None) -> dict[str, Any]:
    """A schedule of autosync.toml as Prefect takes it: cron text, or seconds; none for none."""
    if value is None or value == "":
        return {}
    return {"cron": value} if isinstance(value, str) else {"interval": timedelta(seconds=float(value))}


async def match(workspace: Workspace) -> list[str]:
    """Make the server match the configuration. Returns the deployments' names."""
    async with get_client() as client:
        for name, limit in LOCK_LIMITS.items():
            await client.upsert_global_concurrency_limit_by_name(name, limit)
        await _ensure_pool(client)
    await _save_blocks(workspace)
    names = []
    for flow, name, when, parameters in _wanted(workspace):
        deployment = await flow.ato_deployment(
            name=name,
            parameters={"home": str(workspace.home.path), "config": str(workspace.config), **parameters},
            tags=["autosync"],
            description=flow.description,
            work_pool_name=POOL,
            concurrency_limit=SKIP_IF_RUNNING,
            entrypoint_type=EntrypointType.MODULE_PATH,
            **schedule(when),
        )
        await deployment.aapply()
        names.append(f"{flow.name}/{name}")
    return names


def _wanted(workspace: Workspace) -> list[tuple[Flow[..., Any], str, str | float | None, dict[str, Any]]]:
    settings = workspace.settings
    wanted: list[tuple[Flow[..., Any], str, str | float | None, dict[str, Any]]] = [
        (sync, source.name, source.schedule, {"source": source.name}) for source in settings.source
    ]
    wanted += [
        (report, "report", settings.report.schedule, {}),
        (backup, "backup", settings.backup.schedule, {}),
        (compact, "compact", settings.retention.schedule, {}),
        (monitor, "monitor", settings.report.monitor_schedule, {}),
        (restore, "restore", None, {"collection": settings.source[0].into if settings.source else ""}),
        (import_git, "import-git", None, {}),
    ]
    return wanted


async def _ensure_pool(client: PrefectClient) -> None:
    try:
        await client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    except ObjectAlreadyExists:
        return


async def _save_blocks(workspace: Workspace) -> None:
    """The embedded parts as blocks, so that people see in the UI what is used and can fill in their own."""
    await SQLiteStore(path=workspace.home.database).asave("autosync", overwrite=True)
    await GitRemote(url=str(workspace.home.repository)).asave("autosync", overwrite=True)
    await JsonSource.aregister_type_and_schema()
    for kind in _block_types():
        await kind.aregister_type_and_schema()


def _block_types() -> list[Any]:
    from blocks.backup.drive import GoogleDrive
    from blocks.notify.email import SmtpServer
    from blocks.notify.slack import SlackWebhook
    from blocks.repository.github import GitHubRepository

    return [GitHubRepository, SlackWebhook, SmtpServer, GoogleDrive]
