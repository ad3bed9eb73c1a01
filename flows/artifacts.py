"""What a run leaves in the Prefect UI: a Markdown summary, a table of the changes, a link to the commit."""

from __future__ import annotations

import asyncio
from typing import Any

from prefect.artifacts import acreate_link_artifact, acreate_markdown_artifact, acreate_table_artifact

from blocks.store import history
from flows.run_result import Outcome
from flows.workspace import Workspace

TABLE_ROWS = 100


async def publish(workspace: Workspace, run: str, outcome: Outcome) -> None:
    """Leave the artifacts of a run that changed something or failed."""
    if outcome.outcome == "unchanged" and not outcome.counts.quarantined:
        return
    key = "".join(sign if sign.isalnum() else "-" for sign in outcome.source.lower())
    jobs = [
        acreate_markdown_artifact(
            markdown=summary(workspace, outcome), key=f"summary-{key}", description=str(outcome)[:200]
        )
    ]
    rows = await asyncio.to_thread(changed_rows, workspace, run) if outcome.counts.changed and not outcome.error else []
    if rows:
        jobs.append(
            acreate_table_artifact(table=rows, key=f"changes-{key}", description=f"{outcome.source}: {outcome.counts}")
        )
    if outcome.commit:
        jobs.append(acreate_link_artifact(link=outcome.link, link_text=outcome.commit[:10], key=f"commit-{key}"))
    await asyncio.gather(*jobs)


def changed_rows(workspace: Workspace, run: str) -> list[dict[str, Any]]:
    """The first changes of a run, with documents cut for reading."""
    with workspace.database(read_only=True) as db:
        rows = history.changes(db, run=run, limit=TABLE_ROWS)
    return [
        {
            "seq": row["seq"],
            "op": row["op"],
            "id": row["id"],
            "before": _cut(row["before"]),
            "after": _cut(row["after"]),
        }
        for row in rows
    ]


def _cut(text: str | None, size: int = 160) -> str:
    return "" if text is None else text if len(text) <= size else text[: size - 1] + "…"


def summary(workspace: Workspace, outcome: Outcome) -> str:
    """The Markdown that people read first."""
    counts = outcome.counts
    lines = [f"# {outcome.source}: {outcome.outcome}", ""]
    if outcome.error:
        lines += [outcome.error, ""]
    lines += [
        "| inserted | updated | deleted | in quarantine | unchanged |",
        "|---:|---:|---:|---:|---:|",
        f"| {counts.inserted:,} | {counts.updated:,} | {counts.deleted:,} "
        f"| {counts.quarantined:,} | {counts.unchanged:,} |",
        "",
    ]
    if outcome.commit:
        lines += [f"Commit `{outcome.commit}`, root `{outcome.root[:16]}…`, seq {outcome.seq}."]
    if outcome.rebuilt:
        lines += [f"Damaged mirror files were kept aside and rebuilt: {', '.join(outcome.rebuilt)}."]
    if counts.quarantined:
        lines += ["", "Refused rows: `autosync quarantine list`."]
    quality = workspace.home.quality / outcome.source / "index.html"
    if quality.exists():
        lines += ["", f"Data Docs of the last check: [{outcome.source}]({quality.as_uri()})"]
    return "\n".join(lines) + "\n"
