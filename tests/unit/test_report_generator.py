"""The Markdown report: its figures, its languages, and text from data that must stay text."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from html import unescape
from operator import itemgetter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.feedback_analyzer import Count, analyze
from analytics.kpi_tracker import track
from autosync.attention import SourceFacts
from reports.report_generator import markdown, render
from reports.report_values import Anomaly, Change, Commit, Failure, LastRun, Quarantined, ReportValues, per_day
from reports.report_view import page
from reports.words import LANGUAGES, Language

NOW = 1_790_000_000.0
DAY = 86_400.0
SOURCES = ("contacts", "orders", "فروش‌تهران", "weather-stations-of-the-northern-region")
LIMITS = dict.fromkeys(SOURCES, (7200.0, 86400.0))
ERROR = (
    "the source did not answer within 30 s Where: https://orders.example.org/export/v2/2026/full-export.json. "
    "Kept safe: the last good state. What to do: check that the address answers, then: autosync run orders."
)
texts = st.text(max_size=60) | st.text(alphabet="|\\`*_[]<>&#!~$@\n\r\t-:.ab۱م\u202e\u2068", max_size=30)


def empty() -> ReportValues:
    """A period in which nothing ran and nothing is configured."""
    kpis = track(pd.DataFrame(), pd.DataFrame(), NOW)
    return ReportValues(generated=NOW, since=NOW - 7 * DAY, until=NOW, kpis=kpis)


def runs(days: int = 30) -> list[dict[str, Any]]:
    """Runs of four sources every two hours; the last source has been silent for three days."""
    chance = random.Random(11)
    rows = []
    for step in range(days * 12):
        for number, source in enumerate(SOURCES):
            started = NOW - days * DAY + step * 7200 + 60 * number
            if number == 3 and started > NOW - 3 * DAY:
                continue
            outcome = chance.choices(("unchanged", "changed", "failed", "refused"), (60, 34, 4, 2))[0]
            counts = [chance.randrange(most) if outcome == "changed" else 0 for most in (40, 90, 6, 2)]
            ended = started + chance.lognormvariate(0.7, 0.5)
            rows.append((source, outcome, started, ended, started - 1, chance.randrange(2), *counts))
    names = ["source", "outcome", "started", "ended", "scheduled", "retries", "inserted", "updated", "deleted"]
    return [dict(zip([*names, "quarantined"], row, strict=True)) for row in rows]


def as_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Runs as the analytics take them."""
    return pd.DataFrame(rows)


def busy() -> ReportValues:
    """A month of a team with four sources, of which two are in trouble."""
    rows = runs()
    frame = as_frame(rows)
    known = pd.DataFrame([(name, *LIMITS[name]) for name in SOURCES], columns=["source", "warn_after", "error_after"])
    last = {str(row["source"]): row for row in sorted(rows, key=itemgetter("started"))}
    return replace(
        empty(),
        since=NOW - 30 * DAY,
        kpis=track(frame, known, NOW),
        feedback=analyze({"reverted": Count(1, 60), "failed_run": Count(50, 1400), "hand_fixed": Count(3, 60)}),
        days=per_day(rows, NOW - 30 * DAY, NOW),
        states=(
            SourceFacts("contacts", "fresh", 600.0, finished=True, error=_failures()[1].error, running_age=5.0),
            SourceFacts("orders", "fresh", 700.0, finished=True, error=ERROR),
            SourceFacts("فروش‌تهران", "fresh", 800.0, finished=True, quarantined=3),
            SourceFacts("weather-stations-of-the-northern-region", "error", 3 * DAY, finished=True),
        ),
        last_runs=tuple(
            LastRun(name, row["started"], row["outcome"], row["ended"] - row["started"]) for name, row in last.items()
        ),
        failures=_failures(),
        changes=_changes(),
        commits=tuple(
            Commit(f"{n * 7919 + 12345:040x}"[::-1], NOW - n * 5400, SOURCES[n % 4], f"{SOURCES[n % 4]}: +{n} ~2 -0")
            for n in range(6)
        ),
        quarantine=(
            Quarantined("contacts", "the required field /email is missing", 12, NOW - 3000, "/id=99"),
            Quarantined("فروش‌تهران", "مقدار /amount باید عدد باشد ولی «سه هزار» است", 3, NOW - 8000, "سفارش/۱۲"),
        ),
        anomalies=(
            Anomaly(NOW - 7200, "orders: inserted", 412, (3, 57.5)),
            Anomaly(NOW - 50_000, "orders: seconds", 31.4),
        ),
        limits=LIMITS,
    )


def _failures() -> tuple[Failure, ...]:
    guard = "41 of 120 records would be deleted, more than the guard's 20 %"
    return (
        Failure("orders", "9f8e7d6c-5b4a", NOW - 400, ERROR),
        Failure("contacts", "1a2b3c4d-5e6f", NOW - 5000, guard, "look: autosync plan contacts", "refused", "retrying"),
        Failure(
            "فروش‌تهران", "77aa88bb-99cc", NOW - 90_000, "پاسخ منبع JSON معتبر نبود (سطر ۱۲)", "", "failed", "resolved"
        ),
    )


def _changes() -> tuple[Change, ...]:
    facts = (
        ("contacts", "/id=17", "update", "/name/full: Ada Lovelace → سارا محمدی"),
        ("orders", "A-0042", "insert", ""),
        (
            "weather-stations-of-the-northern-region",
            "st/3/2026-11-22T05:00:00Z/" + "8c1f" * 16,
            "insert",
            "/celsius: 4.2",
        ),
        ("فروش‌تهران", "سفارش/۱۴۰۵-۰۸-۰۲", "delete", "/state: فرستاده‌شد → لغو"),
        ("contacts", "/id=3", "update", "/name/full: 山田 花子 → नमस्ते 🙂"),
    )
    return tuple(Change(n, NOW - n * 600, *facts[n % len(facts)]) for n in range(12))


def cells(text: str) -> list[list[str]]:
    """The cells of every table row of a Markdown report."""
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in text.splitlines() if line[:1] == "|"
    ]


def shown(cell: str) -> str:
    """What a reader sees of a cell: character references resolved, code and isolating marks taken off."""
    return unescape(cell).strip("\u2068\u2069").strip("`")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("values", [empty(), busy()], ids=["empty", "busy"])
def test_every_section_of_the_page_is_written_in_its_order(values: ReportValues, language: Language) -> None:
    """Title, verdict, then each section with its heading, and its rows or what stands in their place."""
    text, wanted = markdown(values, language), page(values, language)
    assert re.findall(r"^# (.*)$", text, re.M) == [unescape(wanted.title)]
    assert [unescape(title) for title in re.findall(r"^## (.*)$", text, re.M)] == [s.title for s in wanted.sections]
    assert wanted.verdict in unescape(text) and wanted.period in unescape(text)
    parts = re.split(r"^## .*$", text, flags=re.M)[1:]
    for section, part in zip(wanted.sections, parts, strict=True):
        rows = cells(part)[2:]
        assert len(rows) == len(section.rows)
        assert bool(rows) or section.empty in unescape(part)
        assert all(len(row) == len(section.columns) for row in rows)


def test_figures_are_those_of_the_values() -> None:
    """The totals of the runs, and what failed, changed, was committed and refused, stand where they belong."""
    values = busy()
    parts = dict(re.findall(r"^## (.*)\n((?:(?!^## ).*\n)*)", markdown(values), re.M))
    found = {title: [[shown(cell) for cell in row] for row in cells(part)[2:]] for title, part in parts.items()}
    assert {"/id=17", "A-0042", "سفارش/۱۴۰۵-۰۸-۰۲"} <= {row[2] for row in found["Newest changes"]}
    assert [row[1] for row in found["Failures"]] == ["orders", "contacts", "فروش‌تهران"]
    assert "41 of 120 records would be deleted" in found["Failures"][1][4]
    assert sum(int(row[1]) for row in found["In quarantine"]) == 15
    assert [row[2] for row in found["Commits"]][:4] == list(SOURCES)
    total = len(runs())
    assert found["The period in numbers"][0][3].endswith(f" of {total:,}")
    assert sum(int(row[1]) for row in found["Numbers by source"]) == total


def test_persian_reports_run_from_the_right() -> None:
    """Persian words and digits in a right-to-left frame; ids and errors stay as they are."""
    text = markdown(busy(), "fa")
    assert text.startswith('<div dir="rtl" lang="fa">') and text.rstrip().endswith("</div>")
    assert "گزارش" in text and re.search("[۰-۹]", text) and "A-0042" in text
    assert "<div" not in markdown(busy(), "en")


@given(texts, texts, texts)
def test_text_from_data_stays_text(id: str, error: str, subject: str) -> None:
    """Whatever ids, errors and subjects hold, tables keep their cells, and nothing becomes markup or HTML."""
    values = replace(
        empty(),
        states=(SourceFacts(id, "unknown", finished=True, error=error),),
        failures=(Failure(id, "run", NOW, error),),
        changes=(Change(1, NOW, "c", id, "update", subject),),
        commits=(Commit("0" * 40, NOW, id, subject),),
        quarantine=(Quarantined(id, error, 1, NOW, subject),),
    )
    plain = replace(
        values,
        states=(SourceFacts("a", "unknown", finished=True, error="a"),),
        failures=(Failure("a", "run", NOW, "a"),),
        changes=(Change(1, NOW, "c", "a", "update", "a"),),
        commits=(Commit("0" * 40, NOW, "a", "a"),),
        quarantine=(Quarantined("a", "a", 1, NOW, "a"),),
    )
    text = markdown(values)
    assert [len(row) for row in cells(text)] == [len(row) for row in cells(markdown(plain))]
    outside = re.sub(r"`[^`\n]*`", "", text)
    assert "<" not in outside and outside.count("](") == text.count("](charts/")


def test_charts_are_files_or_inline_or_left_out() -> None:
    """The report refers to the files that are written beside it, holds them itself, or does without."""
    values = busy()
    files = render(values, ("md",), "en")
    named = set(re.findall(r"\]\((charts/[^)]+)\)", files[Path("report.md")].decode()))
    assert named and {Path(name) for name in named} <= set(files)
    assert all(files.values())
    inline = markdown(values, charts_as="inline")
    assert inline.count("data:image/svg+xml;base64,") == len(named) and "](charts/" not in inline
    assert "![" not in markdown(values, charts_as="none")
