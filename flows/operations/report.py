"""report: the values as Markdown, PDF and charts in the home's reports folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from blocks.files import explained, write_whole
from flows.workspace import Workspace

if TYPE_CHECKING:
    from reports.report_generator import Format
    from reports.report_values import ReportValues
    from reports.words import Language


def write_report(workspace: Workspace, values: ReportValues, formats: list[Format], language: Language) -> list[Path]:
    """Write the report; each file appears whole or not at all.

    Returns:
        The files, report.md and report.pdf first.

    Raises:
        ConfigError: A PDF is wanted and the extra `pdf` is not installed.
        StoreError: The folder can't be written.
    """
    from reports.report_generator import render

    folder, todo = workspace.home.reports, "make room on the disk, or make the folder writable"
    kept = "the report before, as far as it was not replaced yet"
    files = {folder / path: data for path, data in render(values, formats, language).items()}
    with explained("the report can't be written", folder, kept=kept, todo=todo):
        for path, data in files.items():
            write_whole(path, data)
    return list(files)
