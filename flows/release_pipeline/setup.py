"""What a release works with, and the records that its jobs leave."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from autosync.errors import AutoSyncError, ConfigError
from autosync.release_policy import JOBS, Build, Job, Result, missing
from blocks.files import explained, write_whole
from blocks.release.worktree import WorkTree
from flows.release_pipeline.programs import run_program

COMMANDS: Mapping[Job, str] = {
    "unit_test": "make --no-print-directory test-unit",
    "integration_test": "make --no-print-directory test-integration",
}
REPORT, METRICS = "report.md", ".ci/metrics.json"
OURS = (REPORT, METRICS)


@dataclass(frozen=True)
class Setup:
    """What a release works with.

    Attributes:
        repo: The working copy.
        out: Where results go: dist/ (wheel, artifact.zip), run/ (logs, results), report.md, metrics.json.
        to: The folder of releases that deploy changes.
        commands: The test commands, run without a shell.
        smoke: The command that proves a deployed release, run in it.
        minutes: How long one command may take.
        commit: Whether the report is committed.
        push: Whether tag and report go to the remote `origin`.
    """

    repo: Path
    out: Path
    to: Path
    commands: Mapping[Job, str] = field(default_factory=lambda: COMMANDS)
    smoke: str = ""
    minutes: float = 30.0
    commit: bool = True
    push: bool = False

    @property
    def tree(self) -> WorkTree:
        """The working copy's Git side."""
        return WorkTree(self.repo, push=self.push)

    def log(self, job: Job, attempt: int | str) -> Path:
        """The log of one try of a job."""
        return self.out / "run" / "logs" / f"{job}-{attempt}.log"

    def record(self, job: Job) -> Path:
        """Where a job's result is kept."""
        return self.out / "run" / "jobs" / f"{job}.json"

    def program(self, command: list[str], log: Path, cwd: Path | None = None, **env: str) -> None:
        """Run a command with its log; JobFailed when it fails."""
        run_program(command, log, cwd=cwd or self.repo, minutes=self.minutes, **env)


def junit_of(setup: Setup, job: Job, tries: int) -> Path:
    """Where a try of a test job writes its JUnit results."""
    return setup.out / "run" / "junit" / f"{job}-{tries}.xml"


def write(path: Path, data: bytes) -> None:
    """Write a file of the release whole or not at all.

    Raises:
        StoreError: It can't be written; what was there before stays.
    """
    with explained("the release's files can't be written", path, kept="what stood there before"):
        write_whole(path, data)


def known(setup: Setup, result: Result) -> Result:
    """The result with version and commit, as far as there is a build."""
    try:
        build = load_build(setup)
    except AutoSyncError:
        return result
    return msgspec.structs.replace(result, version=build.version, commit=build.commit)


def load_build(setup: Setup) -> Build:
    """What build made; ConfigError when there is none."""
    path = setup.out / "dist" / "release.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Build)
    except (OSError, msgspec.DecodeError):
        raise ConfigError("there is no build", where=str(path), todo="run: autosync release build") from None


def load_results(setup: Setup) -> list[Result]:
    """A result for every job, the report's left out."""
    needs: dict[str, Any] = msgspec.json.decode(os.environ.get("AUTOSYNC_NEEDS") or "{}")
    return [load_result(setup, job, needs) for job in JOBS[:-1]]


def load_result(setup: Setup, job: Job, needs: Mapping[str, Any]) -> Result:
    """A job's record, or what GitHub says about a job that left none."""
    record = setup.record(job)
    if record.exists():
        return msgspec.json.decode(record.read_bytes(), type=Result)
    return missing(job, str(needs.get(job, {}).get("result", "")))


def run_id() -> str:
    """What GitHub calls this run; `local` elsewhere."""
    run, attempt = os.environ.get("GITHUB_RUN_ID", ""), os.environ.get("GITHUB_RUN_ATTEMPT", "")
    return f"{run}.{attempt}" if attempt else run or "local"


def run_link() -> str:
    """The run's page on GitHub, or ""."""
    server, repository = os.environ.get("GITHUB_SERVER_URL", ""), os.environ.get("GITHUB_REPOSITORY", "")
    return f"{server}/{repository}/actions/runs/{os.environ.get('GITHUB_RUN_ID', '')}" if repository else ""
