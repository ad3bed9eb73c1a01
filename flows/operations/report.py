"""report: the values as Markdown, PDF and charts in the home's reports folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flows.workspace import Space

if TYPE_CHECKING:
    from reports.report_generator import Format
    from reports.report_values import ReportValues


def write_report(space: Space, values: ReportValues, formats: list[Format], language: str) -> list[Path]:
    """Write the report.

    Args:
        formats: `md`, `pdf`.
        language: `en` or `fa`.

    Returns:
        The files, report.md and report.pdf first.
    """
    from reports.report_generator import write

    return list(write(values, space.home.reports, formats, language))  # type: ignore[arg-type]  # checked by the caller
