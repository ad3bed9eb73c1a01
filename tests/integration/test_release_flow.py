"""Releasing on one's own machine: single jobs, the rollback by hand, and all jobs as a Prefect flow."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from autosync.errors import RemoteMoved
from blocks.release.worktree import WorkTree
from tests.integration.release_project import FAIL, PASS, ROOT, SMOKE, Project


def test_the_commands_in_the_guide_exist() -> None:
    """Every `autosync release …` of docs/release.md is read by the command line."""
    from typer.main import get_command

    import flows.commands.release  # noqa: F401  # registers the command
    from flows.commands.base import app

    group: Any = get_command(app)
    guide = (ROOT / "docs" / "release.md").read_text()
    lines = [line.partition("   ")[0] for line in guide.splitlines() if line.startswith("autosync release")]
    for line in lines:
        group.commands["release"].make_context("release", line.split()[2:])
    assert len(lines) == 5


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path).create()


def job(project: Project, name: str, *args: str, status: int = 0, **env: str) -> dict[str, Any]:
    """Run one job; its result as --json prints it."""
    done = project.run(name, "--json", "--to", str(project.to), "--smoke", SMOKE, *args, status=status, **env)
    found: dict[str, Any] = json.loads(done.stdout)["jobs"][0]
    return found


def release(project: Project) -> str:
    """Build and deploy what is committed; returns the version."""
    job(project, "build")
    return str(job(project, "deploy")["version"])


def test_a_single_job_does_not_load_prefect() -> None:
    """Importing the flow's module is quick; the flow is there when asked for."""
    code = (
        "import sys, flows.release, flows.commands.release; assert 'prefect' not in sys.modules\n"
        "print(flows.release.release.name)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "release\n"


def test_two_builds_of_a_commit_are_equal(project: Project) -> None:
    """artifact.zip is the same byte by byte, so that a release can be built again and compared."""
    made = []
    for _ in range(2):
        job(project, "build")
        made.append((project.work / "build/release/dist/release.json").read_text())
    assert made[0] == made[1]


def test_the_version_is_that_of_the_newest_commit_besides_the_report(project: Project) -> None:
    """The report's own commit makes no new version."""
    before = job(project, "build")["version"]
    job(project, "post_deploy_report")
    assert project.git("log", "-1", "--format=%s").endswith("[skip ci]")
    assert job(project, "build")["version"] == before


def test_uncommitted_changes_are_released_without_a_tag(project: Project) -> None:
    """No tag may name a commit that doesn't hold what was released."""
    (project.work / "autosync" / "extra.py").write_text("X = 1\n")
    version = release(project)
    assert ".dirty." in version and project.current == version
    assert project.git("tag") == ""


def test_deploy_without_a_build_leaves_the_release_in_use(project: Project) -> None:
    """It fails with what to do, and the release in use stays."""
    version = release(project)
    (project.work / "build/release/dist/release.json").unlink()
    result = job(project, "deploy", status=1)
    assert "autosync release build" in result["text"] and "was not touched" in result["text"]
    assert (project.current, result["rolled_back"]) == (version, False)


def test_an_altered_artifact_is_not_deployed(project: Project) -> None:
    """The checksum is wrong, so nothing is switched."""
    version = release(project)
    project.change("README.md", "next")
    job(project, "build")
    with (project.work / "build/release/dist/artifact.zip").open("ab") as file:
        file.write(b"x")
    assert "not what build made" in job(project, "deploy", status=1)["text"]
    assert project.current == version


def test_a_rollback_by_hand_goes_one_release_back(project: Project) -> None:
    """The release before is in use again, the tag of the later one is gone, and then there is nothing before."""
    first = release(project)
    project.change("README.md", "next")
    second = release(project)
    done = project.run("rollback", "--to", str(project.to), "--smoke", SMOKE)
    assert done.stdout == f"Rolled back from {second} to {first}, tag deleted\n"
    assert (project.current, project.git("tag")) == (first, f"v{first}")
    project.run("rollback", "--to", str(project.to), "--smoke", SMOKE)
    assert project.current == ""
    assert "nothing is deployed" in project.run("rollback", "--to", str(project.to), status=2).stderr


def test_the_report_commit_takes_nothing_else_along(project: Project) -> None:
    """What a person has staged or changed stays as it was."""
    (project.work / "staged.txt").write_text("staged")
    project.git("add", "staged.txt")
    (project.work / "README.md").write_text("changed")
    job(project, "post_deploy_report")
    assert project.git("show", "--name-only", "--format=", "HEAD").split() == [".ci/metrics.json", "report.md"]
    assert project.git("status", "--porcelain").split("\n") == ["M README.md", "A  staged.txt"]


def test_a_report_is_put_on_top_of_what_others_pushed(project: Project) -> None:
    """A working copy that is behind its remote reports all the same, and overwrites nobody's commit."""
    other = Project(project.folder / "other")
    project.git("clone", "--quiet", (project.folder / "origin.git").as_uri(), str(other.work), where=".")
    theirs = other.change("README.md", "theirs")
    job(project, "build")
    assert "is commit" in job(project, "post_deploy_report", "--push")["text"]
    assert project.origin("rev-parse", "main~1") == theirs


def test_a_commit_that_came_in_between_is_seen(project: Project) -> None:
    """Saving on an old base moves nothing and says so, with a remote."""
    tree = WorkTree(project.work, push=True)
    base = tree.base()
    theirs = project.change("README.md", "theirs")
    with pytest.raises(RemoteMoved):
        tree.save({"report.md": "mine"}, "Report", base)
    assert project.origin("rev-parse", "main") == theirs


def test_without_a_branch_there_is_no_report_commit(project: Project) -> None:
    """A checked-out commit has no branch to move: the report is written, and the job says what to do."""
    project.git("checkout", "--quiet", "--detach")
    assert "no branch is checked out" in job(project, "post_deploy_report", status=1)["text"]
    assert job(project, "post_deploy_report", "--no-commit")["state"] == "done"
    assert (project.work / "build/release/report.md").exists() and not (project.work / "report.md").exists()


def test_slack_that_does_not_answer_falls_back_to_the_log(project: Project) -> None:
    """The notice is in the job's log, the address is not, and the job's record says where people were told."""
    done = project.run(
        "integration_test",
        "--integration-test",
        FAIL,
        status=1,
        SLACK_WEBHOOK_URL="http://127.0.0.1:9/services/hidden-address",
    )
    assert "[error] integration_test failed" in done.stderr and "hidden-address" not in done.stderr + done.stdout
    record = json.loads((project.work / "build/release/run/jobs/integration_test.json").read_text())
    assert "Told: the job's log" in record["text"] and record["tests"]["failed"] == 2


def test_outside_of_a_git_repository_build_says_so(tmp_path: Path) -> None:
    """The words name the cause."""
    project = Project(tmp_path)
    for folder in (project.work, project.folder / "home"):
        folder.mkdir()
    done = project.run("build", status=1, PYTHONPATH=str(ROOT), GIT_CEILING_DIRECTORIES=str(tmp_path))
    assert "not a Git repository" in done.stderr


def test_all_jobs_run_as_a_prefect_flow_with_the_same_policies(project: Project) -> None:
    """Each job is a task; a failure stops what follows, but the report is made; the deployed program starts."""
    options = ["--unit-test", PASS, "--to", str(project.to), "--json"]
    done = project.run(*options, "--integration-test", PASS)
    jobs = {row["job"]: row["state"] for row in json.loads(done.stdout)["jobs"]}
    assert set(jobs.values()) == {"done"} and len(jobs) == 5
    version = project.current
    assert project.git("tag") == f"v{version}" and "Usage: autosync" in done.stderr
    project.change("README.md", "next")
    done = project.run(*options, "--integration-test", FAIL, status=1)
    states = [row["state"] for row in json.loads(done.stdout)["jobs"]]
    assert states == ["done", "done", "failed", "skipped", "done"]
    assert project.current == version and "failed" in (project.work / "report.md").read_text()
    assert len(json.loads((project.work / ".ci/metrics.json").read_text())["history"]) == 2
    with closing(sqlite3.connect(project.work / ".autosync" / "prefect" / "prefect.db")) as db:
        flows = db.execute("SELECT state_type FROM flow_run WHERE name = 'release' ORDER BY created").fetchall()
        tasks = db.execute("SELECT name, state_type FROM task_run ORDER BY created").fetchall()
    assert [state for (state,) in flows] == ["COMPLETED", "FAILED"]
    assert len(tasks) == 9 and [state for _, state in tasks].count("FAILED") == 1
