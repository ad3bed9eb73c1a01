"""The workflow on GitHub Actions' own terms, run by act on this machine: one run that passes, one for each policy."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.slack_server import SlackServer, said
from tests.integration.release_project import FAIL, PASS, ROOT, SMOKE, Project

BIN = Path(sys.executable).parent
ACT = BIN / "act"
WORKFLOW = ROOT / ".github" / "workflows" / "pipeline.yml"
ACTIONS = {"checkout": "v5", "setup-python": "v6", "upload-artifact": "v6", "download-artifact": "v7"}
FIXED = ["-P", "ubuntu-latest=-self-hosted", "--action-offline-mode", "--no-cache-server"]


@dataclass
class Run:
    """How a run of the workflow ended."""

    status: int
    log: str
    artifacts: Path

    def ran(self, job: str) -> bool:
        return (self.artifacts / f"run-{job}" / "jobs" / f"{job}.json").exists()

    def result(self, job: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.artifacts / f"run-{job}" / "jobs" / f"{job}.json").read_text())
        return found

    @property
    def report(self) -> str:
        return (self.artifacts / "report" / "report.md").read_text()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path).create()


@pytest.fixture
def slack() -> Iterator[SlackServer]:
    with SlackServer() as running:
        yield running


def run(project: Project, name: str = "run", webhook: str = "", **inputs: str) -> Run:
    """Run the workflow of the working copy as it is committed; every process is ended with act's own group."""
    artifacts = project.folder / name
    doubles = ROOT / "tests" / "doubles" / "actions"
    given = {"unit_test": PASS, "integration_test": PASS, "smoke": SMOKE, "deploy_to": str(project.to)} | inputs
    command = [str(ACT), "workflow_dispatch", "-W", ".github/workflows/pipeline.yml", *FIXED]
    for action, version in ACTIONS.items():
        command += ["--local-repository", f"actions/{action}@{version}={doubles / action}"]
    for key, value in given.items():
        command += ["--input", f"{key}={value}"]
    command += ["--env", f"DOUBLE_PYTHON={sys.executable}", "--env", f"DOUBLE_ARTIFACTS={artifacts}"]
    environment = project.environment
    if webhook:  # act takes the value from the environment: it stands in no argument list
        command, environment = [*command, "-s", "SLACK_WEBHOOK_URL"], environment | {"SLACK_WEBHOOK_URL": webhook}
    process = subprocess.Popen(
        command,
        cwd=project.work,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        log, _ = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return Run(process.returncode, log, artifacts)


def test_the_workflows_are_clean() -> None:
    """actionlint finds nothing in the workflows and the project's own action."""
    workflows = sorted(str(path) for path in WORKFLOW.parent.glob("*.yml"))
    done = subprocess.run([str(BIN / "actionlint"), *workflows], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_action_in_use_is_pinned_by_its_major_version() -> None:
    """The doubles stand for exactly the versions that the workflow names."""
    text = WORKFLOW.read_text() + (ROOT / ".github" / "actions" / "prepare" / "action.yml").read_text()
    used = {line.split("uses: ")[1].split()[0] for line in text.splitlines() if "uses: " in line}
    assert used == {f"actions/{name}@{version}" for name, version in ACTIONS.items()} | {"./.github/actions/prepare"}


def test_a_run_that_passes_releases_tags_and_commits_its_report_once(project: Project) -> None:
    """All five jobs pass; the same again changes nothing, so there is one release commit and one tag."""
    first = run(project, "first")
    assert first.status == 0, first.log
    commit = project.git("rev-parse", "HEAD")
    version = f"0.1.0+{commit[:12]}"
    with zipfile.ZipFile(first.artifacts / "dist" / "artifact.zip") as archive:
        assert set(archive.namelist()) == {"autosync-0.1.0-py3-none-any.whl", "SHA256SUMS"}
    assert project.current == version
    assert project.origin("rev-parse", f"v{version}^{{commit}}") == commit
    assert str(project.to / "releases" / version) in (first.artifacts / "run-deploy/logs/deploy-1.log").read_text()
    metrics = json.loads((first.artifacts / "report" / "metrics.json").read_text())
    assert metrics["tests"]["total"] == 10 and metrics["kpi"]["change_failure_rate"] == 0
    assert [job["state"] for job in metrics["jobs"]] == ["done"] * 4
    assert project.origin("show", "main:report.md") == first.report.strip()
    assert project.origin("log", "-1", "--format=%s", "main") == f"ci: report of {version}: released [skip ci]"
    assert project.origin("rev-list", "--count", "main") == "2"
    project.git("pull", "--quiet", "origin", "main")
    again = run(project, "again")
    assert again.status == 0 and "nothing was committed" in again.log, again.log
    assert project.origin("rev-list", "--count", "main") == "2"
    assert project.origin("tag") == f"v{version}"


def test_build_fails_and_the_run_is_aborted(project: Project) -> None:
    """Nothing after build runs, except the report, which says so."""
    text = (project.work / "pyproject.toml").read_text()
    (project.work / "pyproject.toml").write_text(text.replace('name = "autosync"', "name = "))
    project.change("README.md", "broken")
    done = run(project)
    assert done.status != 0 and done.result("build")["action"] == "abort"
    assert not any(done.ran(job) for job in ("unit_test", "integration_test", "deploy"))
    assert "| build | failed |" in done.report and "| deploy | skipped |" in done.report
    assert (project.current, project.origin("tag")) == ("", "")


def test_a_job_that_leaves_no_record_is_reported_as_failed(project: Project) -> None:
    """A job that dies before its call even starts is failed in the report, and people are told."""
    (project.work / "Makefile").write_text(
        (project.work / "Makefile").read_text() + '\t@test "$$GITHUB_JOB" != integration_test\n'
    )
    project.change("README.md", "no installation in integration_test")
    done = run(project)
    assert done.status != 0 and not done.ran("integration_test") and not done.ran("deploy")
    assert "| integration_test | failed |" in done.report
    assert "integration_test ended before their policies" in done.log


def test_unit_test_fails_once_and_passes_at_the_second_try(project: Project) -> None:
    """One retry is granted; the release goes on and the report shows two tries."""
    flag = project.folder / "tried"
    flaky = f"sh -c 'cp good.xml \"$AUTOSYNC_JUNIT\"; test -e {flag} || {{ touch {flag}; exit 1; }}'"
    done = run(project, unit_test=flaky)
    assert done.status == 0, done.log
    assert (done.result("unit_test")["state"], done.result("unit_test")["tries"]) == ("done", 2)
    assert {log.name for log in (done.artifacts / "run-unit_test/logs").iterdir()} == {
        "unit_test-1.log",
        "unit_test-2.log",
    }
    assert project.current


def test_unit_test_fails_twice_and_the_run_ends(project: Project) -> None:
    """There is no third try, and nothing is deployed."""
    done = run(project, unit_test=FAIL)
    assert done.status != 0
    assert (done.result("unit_test")["tries"], done.result("unit_test")["action"]) == (2, "abort")
    assert not done.ran("integration_test") and not project.current


def test_integration_test_fails_and_slack_is_told(project: Project, slack: SlackServer) -> None:
    """The notice reaches the webhook, deploy doesn't run, and the secret address is in no log and no artifact."""
    done = run(project, webhook=slack.webhook, integration_test=FAIL)
    assert done.status != 0 and not done.ran("deploy") and not project.current
    assert len(slack.posted) == 1
    assert "integration_test failed" in said(slack.posted[0]) and "2 of 5 tests failed" in said(slack.posted[0])
    kept = [path.read_bytes() for path in done.artifacts.rglob("*") if path.is_file()]
    secret = slack.webhook.rpartition("/")[2]
    assert secret not in done.log and not any(secret.encode() in data for data in kept)
    assert secret not in project.origin("show", "main:report.md")


def test_deploy_fails_and_the_release_before_is_back(project: Project) -> None:
    """`current` is the release before again, proven; the bad one has no tag; the failure rate says one of two."""
    assert run(project, "good").status == 0
    before = project.current
    project.git("pull", "--quiet", "origin", "main")
    project.change("autosync/__init__.py", "BAD = True")
    done = run(project, "bad")
    assert done.status != 0 and done.result("deploy")["rolled_back"] is True
    assert project.current == before
    assert (done.artifacts / "run-deploy/logs/deploy-rollback.log").read_text().count(before) == 1
    assert project.origin("tag") == f"v{before}"
    assert "| Change failure rate | 50% |" in project.origin("show", "main:report.md")
