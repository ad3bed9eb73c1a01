"""The report flow: analyze, write the report, mail it where email is set, and tell people of anomalies."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prefect import flow
from prefect.artifacts import acreate_markdown_artifact

from autosync.ports import Notice
from blocks.store import ledger
from flows.log import event, open_log
from flows.operations.notify import open_email
from flows.stages.analyze import analyze_stage
from flows.stages.notify import notify_stage
from flows.stages.report import report_stage
from flows.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from reports.report_values import ReportValues

Format = Literal["md", "pdf"]
ALERT_SECONDS = 2 * 86_400.0


def tell_anomalies(workspace: Workspace, values: ReportValues) -> int:
    """Put a notice for each anomaly of the last two days into the outbox, each once; returns how many are new."""
    told = 0
    with workspace.database() as db:
        for found in values.anomalies:
            if found.time >= values.until - ALERT_SECONDS:
                expected = f", expected {found.expected[0]:g} to {found.expected[1]:g}" if found.expected else ""
                notice = Notice(
                    key=f"anomaly:{found.series}:{found.time:.0f}",
                    title=f"{found.series} is unusual",
                    text=f"{found.series} was {found.value:g}{expected}",
                    level="warning",
                )
                told += ledger.post(db, notice, now=values.until)
    return told


def mail(workspace: Workspace, files: list[Path]) -> bool:
    """Send the report to the people of [notify] email; False when none is set."""
    mailer = open_email(workspace)
    if mailer is None:
        return False
    attachments = [(path.name, path.read_bytes()) for path in files if path.suffix in (".pdf", ".md")]
    text = next((path.read_text() for path in files if path.suffix == ".md"), "The report is attached.")
    mailer.send_message("AutoSync report", text, attachments=attachments)
    return True


@flow(name="report", description="Compute KPIs and write the report.", flow_run_name="report")
async def report(
    home: str = "", config: str = "", format: Format = "md", language: Literal["", "en", "fa"] = ""
) -> dict[str, Any]:
    """Write the report.

    Args:
        format: `md`, or `pdf` for both.
        language: The configuration's when empty.

    Returns:
        `files`: the paths written; `mailed`: whether it was sent by email.
    """
    workspace = open_workspace(home, config)
    open_log(workspace.home.log)
    values = await analyze_stage(workspace)
    formats: list[Format] = ["md", "pdf"] if format == "pdf" else ["md"]
    files = await report_stage(workspace, values, formats, language or workspace.settings.report.language)
    from reports.report_generator import markdown

    text = await asyncio.to_thread(markdown, values, language or workspace.settings.report.language, charts_as="none")
    await acreate_markdown_artifact(markdown=text, key="report", description="The report")
    mailed = await asyncio.to_thread(mail, workspace, files)
    if await asyncio.to_thread(tell_anomalies, workspace, values):
        await notify_stage(workspace)
    event("report", "-", f"wrote {', '.join(path.name for path in files)}{', mailed' if mailed else ''}")
    return {"files": [str(path) for path in files], "mailed": mailed}
