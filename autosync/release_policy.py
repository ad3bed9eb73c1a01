"""The release pipeline as values: its jobs, what follows each end, what is counted, what the report says."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Literal
from xml.etree import ElementTree

import msgspec

from autosync.errors import AutoSyncError

Job = Literal["build", "unit_test", "integration_test", "deploy", "post_deploy_report"]
State = Literal["done", "failed", "skipped"]
Action = Literal["go_on", "retry", "abort", "notify", "rollback", "commit"]

JOBS: tuple[Job, ...] = ("build", "unit_test", "integration_test", "deploy", "post_deploy_report")
HISTORY = 100


class Policy(msgspec.Struct, frozen=True):
    """What follows a job: how often a failure is tried again, then what; and what follows success."""

    retries: int = 0
    failed: Action = "abort"
    passed: Action = "go_on"


POLICIES: Mapping[Job, Policy] = {
    "build": Policy(),
    "unit_test": Policy(retries=1),
    "integration_test": Policy(failed="notify"),
    "deploy": Policy(failed="rollback"),
    "post_deploy_report": Policy(passed="commit"),
}


class JobFailed(AutoSyncError):
    """A job of the pipeline failed for good; its policy was carried out."""


class Tests(msgspec.Struct, frozen=True):
    """Counts of one test run, and its seconds."""

    total: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0

    @property
    def passed(self) -> int:
        """Tests that ran and were right."""
        return self.total - self.failed - self.skipped


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """What build made: the wheel in artifact.zip, the commit that it holds, SHA-256 of both files."""

    version: str
    commit: str
    wheel: str
    wheel_sha256: str
    artifact_sha256: str
    clean: bool = True

    @property
    def tag(self) -> str:
        """The release tag; none for a build of changes that are in no commit."""
        return f"v{self.version}" if self.clean else ""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ended: `action` is the last policy step taken, `text` says more for people."""

    job: Job
    state: State = "skipped"
    started: float = 0.0
    seconds: float = 0.0
    tries: int = 0
    action: Action = "go_on"
    text: str = ""
    tests: Tests | None = None
    version: str = ""
    commit: str = ""
    tag: str = ""
    rolled_back: bool = False


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One run in the kept history. `facts` is a digest of what it came to, without times."""

    run: str
    time: float
    commit: str
    version: str
    outcome: Literal["released", "rolled back", "failed", "checked"]
    seconds: float
    deployed: bool
    facts: str


class Kpi(msgspec.Struct, frozen=True, kw_only=True):
    """Key figures over the kept history; a rate is None when there is nothing to divide by."""

    runs: int
    success_rate: float | None
    deployments: int
    change_failure_rate: float | None
    seconds_median: float | None


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """metrics.json: this run's jobs, the key figures and the history that they come from."""

    format: int = 1
    entry: Entry
    tag: str
    jobs: list[Result]
    tests: Tests
    kpi: Kpi
    history: list[Entry]


def next_action(job: Job, passed: bool, tries: int) -> Action:
    """The policy's next step after a try: `retry` as long as it grants one, else what follows the end."""
    policy = POLICIES[job]
    if passed:
        return policy.passed
    return "retry" if tries <= policy.retries else policy.failed


def due(job: Job, states: Mapping[Job, State]) -> bool:
    """Whether a job is to run: when all before it are done; the report always."""
    return job == "post_deploy_report" or all(states.get(name) == "done" for name in JOBS[: JOBS.index(job)])


def missing(job: Job, said: str) -> Result:
    """The result of a job that left no record, from what GitHub says about it."""
    if said in ("failure", "cancelled"):
        return Result(job=job, state="failed", text=f"it ended without a record ({said}); see its log", action="abort")
    return Result(job=job, state="skipped", text="not run")


def version_of(base: str, commit: str, wheel_sha256: str, *, clean: bool) -> str:
    """The release's version: the project's, and the commit it was made from; X.Y.Z+COMMIT."""
    return f"{base}+{commit[:12]}" if clean else f"{base}+{commit[:12]}.dirty.{wheel_sha256[:8]}"


def read_junit(text: bytes) -> Tests:
    """The counts in a JUnit XML file; JobFailed when it is none."""
    try:
        if re.search(rb"<!(DOCTYPE|ENTITY)", text):
            raise ValueError("it declares entities")
        root = ElementTree.fromstring(text)  # noqa: S314  # without declarations there is nothing to expand
        suites = [root] if root.tag == "testsuite" else root.findall("testsuite")
        counts = [[int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")] for suite in suites]
        seconds = sum(float(suite.get("time", 0)) for suite in suites)
    except (ElementTree.ParseError, ValueError) as error:
        raise JobFailed(f"the test results can't be read: {error}", todo="have the command write JUnit XML") from None
    total, failures, errors, skipped = (sum(column) for column in zip(*counts, strict=True)) if counts else (0,) * 4
    return Tests(total, failures + errors, skipped, round(seconds, 3))


def measure(results: Sequence[Result], before: Metrics | None, *, run: str, time: float) -> Metrics:
    """The metrics after a run, with the run put into the history unless it only repeats the newest entry."""
    history = list(before.history) if before else []
    entry = _entry(results, run=run, time=time)
    if not history or history[-1].facts != entry.facts:
        history = [*history, entry][-HISTORY:]
    return Metrics(
        entry=entry,
        tag=next((result.tag for result in results if result.tag), ""),
        jobs=list(results),
        tests=_total([result.tests for result in results if result.tests]),
        kpi=_kpi(history),
        history=history,
    )


def changed(now: Metrics, before: Metrics | None) -> bool:
    """Whether a report says anything that the one before did not; times alone are nothing new."""
    return before is None or not before.history or before.history[-1].facts != now.entry.facts


def _entry(results: Sequence[Result], *, run: str, time: float) -> Entry:
    deploy = next((result for result in results if result.job == "deploy"), Result(job="deploy"))
    outcome: Literal["released", "rolled back", "failed", "checked"] = "checked"
    if any(result.state == "failed" for result in results):
        outcome = "rolled back" if deploy.rolled_back else "failed"
    elif deploy.state == "done":
        outcome = "released"
    commit = next((result.commit for result in results if result.commit), "")
    facts = [
        (r.job, r.state, r.action, r.tries, r.tag, (r.tests.total, r.tests.failed, r.tests.skipped) if r.tests else 0)
        for r in results
    ]
    return Entry(
        run=run,
        time=round(time, 3),
        commit=commit,
        version=next((result.version for result in results if result.version), ""),
        outcome=outcome,
        seconds=round(sum(result.seconds for result in results), 3),
        deployed=deploy.state != "skipped",
        facts=blake2b(msgspec.json.encode([commit, outcome, facts]), digest_size=8).hexdigest(),
    )


def _total(runs: Sequence[Tests]) -> Tests:
    return Tests(
        sum(run.total for run in runs),
        sum(run.failed for run in runs),
        sum(run.skipped for run in runs),
        round(sum(run.seconds for run in runs), 3),
    )


def _kpi(history: Sequence[Entry]) -> Kpi:
    deployed = [entry for entry in history if entry.deployed]
    good = [entry for entry in history if entry.outcome in ("released", "checked")]
    bad = [entry for entry in deployed if entry.outcome != "released"]
    return Kpi(
        runs=len(history),
        success_rate=len(good) / len(history) if history else None,
        deployments=len(deployed),
        change_failure_rate=len(bad) / len(deployed) if deployed else None,
        seconds_median=round(statistics.median(entry.seconds for entry in history), 3) if history else None,
    )


def render(metrics: Metrics, when: str) -> str:
    """report.md; `when` is the run's time as people read it."""
    entry, kpi, tests = metrics.entry, metrics.kpi, metrics.tests
    jobs = [(r.job, r.state, *_effort(r), _count(r.tests), _step(r), r.text) for r in metrics.jobs]
    figures = [
        ("Change failure rate", _rate(kpi.change_failure_rate, "no deployment yet")),
        ("Deployments", str(kpi.deployments)),
        ("Runs that passed", _rate(kpi.success_rate, "no run yet")),
        ("Median time of the jobs", f"{kpi.seconds_median or 0:.1f} s"),
        ("Tests in this run", f"{tests.passed} passed, {tests.failed} failed, {tests.skipped} skipped"),
    ]
    past = [(e.version or "-", e.outcome, f"{e.seconds:.1f} s", e.run or "-") for e in reversed(metrics.history[-10:])]
    return "\n".join(
        [
            f"# Release {entry.version or 'without a build'}: {entry.outcome}\n",
            f"Commit `{entry.commit[:12] or '-'}`, tag {f'`{metrics.tag}`' if metrics.tag else 'none'}, {when}.\n",
            "## Jobs\n",
            *_table(("Job", "State", "Time", "Tries", "Tests", "Policy step", "What happened"), jobs),
            f"\n## Key figures, last {kpi.runs} {'run' if kpi.runs == 1 else 'runs'}\n",
            *_table(("Figure", "Value"), figures),
            "\n## Last runs\n",
            *_table(("Version", "Outcome", "Time", "Run"), past),
            "",
        ]
    )


def _effort(result: Result) -> tuple[str, str]:
    return (f"{result.seconds:.1f} s", str(result.tries)) if result.tries else ("", "")


def _step(result: Result) -> str:
    return "" if result.action in ("go_on", "commit") or result.state == "skipped" else result.action


def _count(tests: Tests | None) -> str:
    return f"{tests.passed}/{tests.total}" if tests else ""


def _rate(value: float | None, none: str) -> str:
    return none if value is None else f"{value:.0%}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in line) + " |" for line in lines]
