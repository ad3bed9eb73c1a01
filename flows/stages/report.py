"""report: the values as Markdown, PDF and charts in the home's reports folder."""

from __future__ import annotations

from flows.operations.report import write_report
from flows.tasks import stage

report_stage = stage("report", "Write the report as Markdown or PDF, with charts.")(write_report)
