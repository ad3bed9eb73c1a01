"""The report as a PDF by Typst: the page and the charts of the Markdown, laid out for paper.

Values reach Typst as a JSON file; nothing that comes from data is ever part of its source.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autosync.errors import ConfigError
from reports.charts import chart_titles, charts
from reports.report_values import ReportValues
from reports.report_view import page
from reports.words import Language

__all__ = ["pdf"]

HERE = Path(__file__).parent


def pdf(values: ReportValues, language: Language = "en") -> bytes:
    """The report as a tagged PDF; the same values give the same bytes.

    Raises:
        ConfigError: The extra `pdf` is not installed.
    """
    try:
        import typst
    except ImportError:
        raise ConfigError("a PDF needs Typst", todo="install the extra: pip install 'autosync[pdf]'") from None
    with tempfile.TemporaryDirectory(prefix="autosync-report-") as name:
        folder = Path(name)
        shutil.copy(HERE / "templates" / "report.typ", folder / "report.typ")
        (folder / "report.json").write_text(json.dumps(_data(values, language), ensure_ascii=False), encoding="utf-8")
        (folder / "charts").mkdir()
        for chart, data in charts(values, language).items():
            (folder / "charts" / f"{chart}.svg").write_bytes(data)
        made: bytes = typst.compile(
            folder / "report.typ",
            root=folder,
            font_paths=[HERE / "fonts"],
            ignore_system_fonts=True,
            timestamp=int(values.generated),
        )
    return made


def _data(values: ReportValues, language: Language) -> dict[str, Any]:
    """The page as JSON, its charts with their titles, and the day it was made."""
    shown, titles = page(values, language), chart_titles(values, language)
    data = asdict(shown)
    for section in data["sections"]:
        section["charts"] = [{"name": name, "title": titles[name]} for name in section["charts"] if name in titles]
    made = datetime.fromtimestamp(values.generated, UTC)
    digits = "۰۱۲۳۴۵۶۷۸۹" if language == "fa" else "0123456789"
    return data | {"page": shown.words["page"], "made": [made.year, made.month, made.day], "digits": list(digits)}
