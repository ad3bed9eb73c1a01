"""The report flow: analyze, then write the report as Markdown (and PDF) with charts."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.artifacts import acreate_markdown_artifact

from flows.log import event, open_log
from flows.space import Space, open_space
from flows.stages.analyze import analyze, analyze_stage
from flows.stages.report import report_stage, write_report


def make_report(space: Space) -> dict[str, Any]:
    """analyze and report, without a flow run. Returns the files written."""
    return write_report(space, analyze(space))


@flow(name="report", description="Compute KPIs and write the report.", flow_run_name="report")
async def report(home: str = "", config: str = "") -> dict[str, Any]:
    """Write the report.

    Returns:
        `files`: the paths written.
    """
    space = open_space(home, config)
    open_log(space.home.log)
    done: dict[str, Any] = await report_stage(space, await analyze_stage(space))
    await acreate_markdown_artifact(markdown=done["text"], key="report", description="The report")
    event("report", "-", f"wrote {', '.join(done['files'])}")
    return {"files": done["files"]}
