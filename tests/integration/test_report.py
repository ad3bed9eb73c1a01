"""The report as people get it: Markdown with charts, and PDF, in English and Persian."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pypdfium2
import pytest

from autosync.errors import StoreError
from autosync.settings import Home
from flows.operations.analyze import analyze
from flows.operations.report import write_report
from flows.workspace import Workspace
from reports.report_generator import markdown
from reports.report_pdf import pdf
from reports.report_values import Change, ReportValues
from tests.busy import build
from tests.integration.service import Service
from tests.pipeline import Pipeline


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> ReportValues:
    return analyze(build(tmp_path_factory.mktemp("busy")))


def text_of(data: bytes) -> str:
    document = pypdfium2.PdfDocument(data)
    text = "\n".join(page.get_textpage().get_text_bounded() for page in document)
    return unicodedata.normalize("NFKC", text)


@pytest.mark.parametrize("language", ["en", "fa"])
def test_markdown_tables_are_whole(values: ReportValues, language: str) -> None:
    """Every row of every table has as many cells as its heading."""
    text = markdown(values, language)  # type: ignore[arg-type]
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block


def test_what_comes_from_data_is_no_markup(values: ReportValues) -> None:
    """Pipes, backticks, HTML and line ends in an id stay text in Markdown and in the PDF."""
    nasty = "a|b`c<script>alert(1)</script>\n# d [x](http://e) #eval(1) $x$"
    change = Change(1, values.until, "orders", nasty, "insert")
    changed = ReportValues(values.until, values.since, values.until, values.kpis, changes=(change,))
    text = markdown(changed)
    assert "<script>" not in text and "\n# d" not in text and "[x](http" not in text
    assert "#eval(1)" in text_of(pdf(changed)).replace("\u200b", "").replace("\n", "")


def test_a_folder_that_cannot_be_written_is_told(values: ReportValues, tmp_path: Path) -> None:
    """A file stands where the folder should be: the error says where, and nothing is lost."""
    workspace = Workspace(Home(tmp_path), tmp_path / "autosync.toml")
    workspace.home.reports.write_text("a file")
    with pytest.raises(StoreError, match="the report can't be written") as caught:
        write_report(workspace, values, ["md"], "en")
    assert str(workspace.home.reports) in caught.value.where
    assert workspace.home.reports.read_text() == "a file"


def test_the_pdf_shows_the_figures_of_the_markdown(values: ReportValues) -> None:
    """Both formats are made of the same page: the verdict and the totals stand in both."""
    words = text_of(pdf(values))
    said = re.search(r"\*\*(.+?)\*\*", markdown(values))
    assert said and said[1].replace("&#58;", ":") in words


def test_the_persian_pdf_has_persian_words_and_page_numbers(values: ReportValues) -> None:
    """Persian is text in the PDF, not pictures, and pages are counted in Persian digits."""
    words = text_of(pdf(values, "fa"))
    assert "گزارش" in words and "۱" in words


def test_the_same_values_give_the_same_bytes(values: ReportValues) -> None:
    """A report made twice of the same values is the same file."""
    assert pdf(values) == pdf(values)


def test_an_empty_home_gives_a_sensible_report(tmp_path: Path) -> None:
    """No run at all is no error, in either format."""
    (tmp_path / "autosync.toml").write_text('[[source]]\nname = "x"\nlocation = "x.json"\nkey = "/id"\n')
    workspace = Workspace(Home(tmp_path / "home"), tmp_path / "autosync.toml")
    with workspace.database():
        pass
    files = write_report(workspace, analyze(workspace), ["md", "pdf"], "fa")
    assert files[0].name == "report.md" and files[1].read_bytes().startswith(b"%PDF")


def test_the_command_writes_both(tmp_path: Path) -> None:
    """`autosync report --format pdf --lang fa` names the files that it wrote."""
    (tmp_path / "autosync.toml").write_text('[[source]]\nname = "things"\nlocation = "things.json"\nkey = "/id"\n')
    place = Pipeline(tmp_path)
    place.write([{"id": "الف"}])
    place.run()
    said = Service(tmp_path).run("report", "--format", "pdf", "--lang", "fa").stdout
    assert "report.md" in said and "report.pdf" in said
