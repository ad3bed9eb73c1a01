"""The report as Markdown, as PDF and as files. Both formats show the same sections of the same values.

Everything that comes from data is escaped on its way into Markdown (each expression of the
template, unless it was escaped before) and reaches Typst as JSON, never as source.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from reports.charts import chart_titles, charts
from reports.markup import Markdown, as_code, as_text
from reports.report_values import ReportValues
from reports.report_view import page
from reports.words import NOTHING, Language

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["ChartsAs", "Format", "ReportValues", "charts", "markdown", "render"]

TEMPLATES = Path(__file__).parent / "templates"
Format = Literal["md", "pdf"]
ChartsAs = Literal["files", "inline", "none"]
SIGNS = {"ok": "✅", "warning": "⚠️", "error": "❌", "unknown": "❔"}


def markdown(values: ReportValues, language: Language = "en", *, charts_as: ChartsAs = "files") -> str:
    """The report as Markdown (GitHub's dialect).

    Args:
        charts_as: `files` refers to charts/NAME.svg beside the report, `inline` holds the charts as data
            addresses (for a place that takes one text, such as a Prefect artifact), `none` leaves them out.
    """
    shown = page(values, language)
    titles = {} if charts_as == "none" else chart_titles(values, language)
    addresses = {name: f"charts/{name}.svg" for name in titles}
    if charts_as == "inline":
        drawn = charts(values, language)
        addresses = {name: f"data:image/svg+xml;base64,{base64.b64encode(drawn[name]).decode()}" for name in titles}
    pictures = {name: Markdown(f"![{as_text(titles[name])}]({addresses[name]})") for name in titles}

    def cell(text: str, kind: str) -> Markdown:
        if kind == "status":
            return Markdown(f"{SIGNS[text]} {as_text(shown.words[text])}")
        return as_code(text, shown.direction) if kind == "id" and text != NOTHING else as_text(text)

    return _template().render(page=shown, pictures=pictures, cell=cell)


@lru_cache(maxsize=1)
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(  # noqa: S701  # HTML's escaping is not Markdown's: finalize escapes every expression
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        finalize=as_text,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.md.j2")


def render(values: ReportValues, formats: Iterable[Format] = ("md",), language: Language = "en") -> dict[Path, bytes]:
    """The files of a report: report.md and its charts, report.pdf where wanted, the reports first.

    Raises:
        ConfigError: A PDF is wanted and the extra `pdf` is not installed.
    """
    wanted = set(formats)
    files = {Path("report.md"): markdown(values, language).encode()} if "md" in wanted else {}
    if "pdf" in wanted:
        from reports.report_pdf import pdf

        files[Path("report.pdf")] = pdf(values, language)
    if "md" in wanted:
        files |= {Path("charts") / f"{name}.svg": data for name, data in charts(values, language).items()}
    return files
