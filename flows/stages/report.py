"""report: the values as Markdown with charts."""

from __future__ import annotations

from typing import Any

from flows.space import Space
from flows.stages.task import stage


def write_report(space: Space, kpis: Any) -> dict[str, Any]:
    """Write the report from the KPIs; returns its text and files."""
    raise AssertionError(f"{space.home.path} {kpis}")


report_stage = stage("report", "Write the report.")(write_report)
