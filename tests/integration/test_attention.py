"""Report, pages, status and health say the same of every source."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import convert

from autosync.attention import Status, worst
from autosync.change_detection import Refusal
from autosync.ports import Notice
from blocks.store import ledger
from flows.operations.analyze import analyze
from flows.operations.health import check_freshness
from flows.operations.status import describe_status
from flows.service.dashboard import StoreReading
from flows.workspace import Workspace, now
from reports import attention as report
from reports.dashboard import attention as pages
from reports.dashboard.words import Say
from reports.report_view import page as report_page
from reports.words import Words
from tests.pipeline import Pipeline

DAY = 86_400.0
NAMES = ("a", "b")
AGES = st.sampled_from([60.0, 1800.0, 7 * 3600.0, 2 * DAY, 40 * DAY])


@dataclass(frozen=True)
class Past:
    """A run that began so long ago; `outcome` is None while it goes on."""

    age: float
    outcome: str | None


runs = st.lists(st.builds(Past, AGES, st.sampled_from(["changed", "unchanged", "failed", "refused", None])), max_size=4)
limits = st.tuples(*[st.sampled_from([None, 3600.0, 3 * DAY])] * 2)


def write(workspace: Workspace, source: str, pasts: list[Past], quarantined: int) -> None:
    with workspace.database() as db:
        for number, past in enumerate(pasts):
            started, name = now() - past.age, f"{source}{number}"
            ledger.start_run(db, name, source, started=started, scheduled=None)
            if past.outcome:
                error = "it broke. What to do: mend it." if past.outcome in ("failed", "refused") else None
                ledger.end_run(db, name, ended=started + 5, outcome=past.outcome, error=error)
        if quarantined:
            rows = [Refusal(f"line {n}", f"{source}{n}", "bad", b"{}" + str(n).encode()) for n in range(quarantined)]
            ledger.quarantine(db, source, "r", rows, now=now(), whole=False)


def configure(folder: Path, of: dict[str, tuple[float | None, float | None]]) -> Workspace:
    lines = []
    for name, (warn, error) in of.items():
        lines += ["[[source]]", f'name = "{name}"', 'location = "x.json"', 'key = "/id"', "[source.freshness]"]
        lines += [f"warn_after = {warn}"] * (warn is not None) + [f"error_after = {error}"] * (error is not None)
    workspace = Pipeline(folder).workspace
    workspace.config.write_text("\n".join(lines) + "\n")
    return workspace


def judge_report(workspace: Workspace) -> tuple[list[tuple[Status, str]], dict[str, Status], Status]:
    values = analyze(workspace)
    found = report.points(values, Words("en"))
    rows = next(section for section in report_page(values, "en").sections if section.name == "sources").rows
    judged = [(point.status, point.source) for point in found if "unusual" not in point.what]
    return sorted(judged), {str(row[1]): convert(row[0], Status) for row in rows}, report.overall(values, found)


def judge_pages(workspace: Workspace) -> tuple[list[tuple[Status, str]], dict[str, Status], Status]:
    state = pages.look(StoreReading(workspace), Say("en"))
    judged = [(point.status, point.source) for point in state.points]
    return sorted(judged), {one.source: pages.source_status(one) for one in state.sources}, state.status


@settings(max_examples=40)
@given(st.tuples(runs, runs), st.tuples(limits, limits), st.tuples(st.integers(0, 2), st.integers(0, 2)), st.booleans())
def test_report_and_page_judge_every_source_alike(
    pasts: tuple[list[Past], ...],
    of: tuple[tuple[float | None, float | None], ...],
    quarantined: tuple[int, ...],
    waits: bool,
) -> None:
    """Whatever the runs, the limits and the quarantine: the same points, the same status, the same ages."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = configure(Path(folder), dict(zip(NAMES, of, strict=True)))
        for source, past, rows in zip(NAMES, pasts, quarantined, strict=True):
            write(workspace, source, past, rows)
        if waits:
            with workspace.database() as db:
                ledger.post(db, Notice(key="k", title="t", text="t"), now=now())
        told, shown = judge_report(workspace), judge_pages(workspace)
        assert told == shown
        lines = {row["source"]: row["freshness"] for row in describe_status(workspace)["sources"]}
        assert lines == {state.source: state.freshness for state in StoreReading(workspace).sources()}
        assert check_freshness(workspace)[0] == worst_module(workspace)


def worst_module(workspace: Workspace) -> str:
    """The module's status that follows from the sources': one that is not known yet is a warning."""
    states = StoreReading(workspace).sources()
    status = worst(pages.source_status(replace(state, quarantined=0)) for state in states)
    return "warning" if status == "unknown" else status
