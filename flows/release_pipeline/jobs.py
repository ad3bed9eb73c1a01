"""What each job of a release does, and what each policy step does."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from autosync.errors import AutoSyncError, LockTimeout, RemoteMoved
from autosync.ports import Notice
from autosync.release_policy import (
    Action,
    Build,
    Job,
    Metrics,
    Result,
    changed,
    measure,
    read_junit,
    render,
    version_of,
)
from blocks.release.folder import Releases, pack, sha256, unpack
from blocks.release.worktree import WorkTree
from flows.log import mask
from flows.release_pipeline.programs import say, tell, words
from flows.release_pipeline.setup import (
    METRICS,
    OURS,
    REPORT,
    Setup,
    junit_of,
    known,
    load_build,
    load_results,
    run_id,
    run_link,
    write,
)

TRIES = 5


def build(setup: Setup, tries: int) -> Result:
    """Make the wheel and artifact.zip with checksums."""
    dist, tree = setup.out / "dist", setup.tree
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir(parents=True)
    commit, when = tree.product(OURS)
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(dist)]
    setup.program(command, setup.log("build", tries), SOURCE_DATE_EPOCH=str(when))
    wheel, clean = next(dist.glob("*.whl")), tree.clean(OURS)
    lock = setup.repo / "requirements.lock"
    pack(dist / "artifact.zip", [wheel, *([lock] if lock.exists() else [])])
    digest = sha256(wheel)
    made = Build(
        version=version_of(wheel.name.split("-")[1], commit, digest, clean=clean),
        commit=commit,
        wheel=wheel.name,
        wheel_sha256=digest,
        artifact_sha256=sha256(dist / "artifact.zip"),
        clean=clean,
    )
    write(dist / "release.json", msgspec.json.format(msgspec.json.encode(made), indent=1))
    return Result(job="build", state="done", version=made.version, commit=commit, text=f"artifact.zip, {wheel.name}")


def test(job: Job) -> Callable[[Setup, int], Result]:
    """The job that runs a test command and counts its JUnit results."""

    def work(setup: Setup, tries: int) -> Result:
        command, junit = setup.commands[job], junit_of(setup, job, tries)
        junit.parent.mkdir(parents=True, exist_ok=True)
        junit.unlink(missing_ok=True)
        addopts = f"{os.environ.get('PYTEST_ADDOPTS', '')} --junitxml={shlex.quote(str(junit))}".strip()
        setup.program(words(command), setup.log(job, tries), PYTEST_ADDOPTS=addopts, AUTOSYNC_JUNIT=str(junit))
        tests = read_junit(junit.read_bytes()) if junit.exists() else None
        return known(setup, Result(job=job, state="done", tests=tests))

    return work


def deploy(setup: Setup, tries: int) -> Result:
    """Install the wheel as a release, switch to it, prove it, tag it."""
    made, releases = load_build(setup), Releases(setup.to)
    with releases.lock(), tempfile.TemporaryDirectory() as folder:
        wheel = unpack(setup.out / "dist" / "artifact.zip", made, Path(folder))
        releases.install(wheel, made.version)
        releases.switch(made.version)
        _smoke(setup, releases, tries)
        if made.tag:
            setup.tree.tag(made.tag, made.commit, f"Release {made.version}")
        releases.confirm(made.version)
    text = f"current is {made.version}" + ("" if made.tag else "; not tagged, because it holds uncommitted changes")
    return Result(job="deploy", state="done", version=made.version, commit=made.commit, tag=made.tag, text=text)


def _smoke(setup: Setup, releases: Releases, attempt: int | str) -> None:
    place = str(releases.current)
    command = words(setup.smoke) or [sys.executable, "-m", "flows.cli", "--help"]
    setup.program(
        command, setup.log("deploy", attempt), releases.current, PYTHONPATH=place, PYTHONDONTWRITEBYTECODE="1"
    )


def roll_back(setup: Setup, *, asked: bool = False) -> str:
    """Switch back to the release before, prove it, delete the bad one's tag.

    Args:
        asked: Roll back a release that passed its smoke check, too.

    Returns:
        What was done, for people; "" when there was nothing to roll back.
    """
    releases = Releases(setup.to)
    with releases.lock():
        bad, good = releases.back(asked=asked)
        if not bad:
            return ""
        untagged = setup.tree.untag(f"v{bad}")
        if good:
            _smoke(setup, releases, "rollback")
    return f"Rolled back from {bad} to {good or 'nothing'}" + (", tag deleted" if untagged else "")


def _rollback(setup: Setup, failed: Result) -> Result:
    try:
        text = roll_back(setup)
    except LockTimeout:
        text = ""
    except (AutoSyncError, OSError) as error:
        text = f"the rollback failed: {mask(str(error))}"
        tell(Notice(f"rollback:{run_id()}", "Rollback failed", f"{failed.text}\n{text}", "error", link=run_link()))
        return msgspec.structs.replace(failed, text=f"{failed.text} {text}")
    say(f"deploy: {text or 'nothing was switched'}")
    return msgspec.structs.replace(
        failed, rolled_back=bool(text), text=f"{failed.text} {text or 'The release in use was not touched'}."
    )


def _notify(setup: Setup, failed: Result) -> Result:  # noqa: ARG001  # as all actions
    facts = (("version", failed.version), ("tries", str(failed.tries)))
    tests = f"{failed.tests.failed} of {failed.tests.total} tests failed. " if failed.tests else ""
    where = tell(
        Notice(f"{failed.job}:{run_id()}", f"{failed.job} failed", tests + failed.text, "error", facts, run_link())
    )
    return msgspec.structs.replace(failed, text=f"{failed.text} Told: {where}.")


def post_deploy_report(setup: Setup, tries: int) -> Result:  # noqa: ARG001  # as all jobs
    """Write report.md and metrics.json."""
    tree = setup.tree
    metrics, _ = _measure(setup, tree, tree.base() if setup.commit else tree.git("rev-parse", "HEAD"))
    if lost := [job.job for job in load_results(setup) if job.state == "failed" and not job.tries]:
        text = f"{', '.join(lost)} ended before their policies could be carried out: a time limit, or no machine."
        tell(Notice(f"lost:{run_id()}", "Jobs died", text, "error", link=run_link()))
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write((setup.out / REPORT).read_text())
    return Result(
        job="post_deploy_report", state="done", version=metrics.entry.version, commit=metrics.entry.commit, text=REPORT
    )


def _measure(setup: Setup, tree: WorkTree, base: str) -> tuple[Metrics, bool]:
    """The metrics on top of the history in a commit, and whether they say anything new."""
    try:
        before = msgspec.json.decode(tree.read(base, METRICS) or "null", type=Metrics | None)
    except msgspec.DecodeError:
        before = None  # of another format: the history starts anew
    results = load_results(setup)
    ended = max(result.started + result.seconds for result in results) or time.time()
    metrics = measure(results, before, run=run_id(), time=ended)
    when = datetime.fromtimestamp(ended, UTC).strftime("%Y-%m-%d %H:%M UTC")
    write(setup.out / REPORT, render(metrics, when).encode())
    write(setup.out / "metrics.json", msgspec.json.format(msgspec.json.encode(metrics), indent=1) + b"\n")
    return metrics, changed(metrics, before)


def _commit(setup: Setup, done: Result) -> Result:
    if not setup.commit:
        return done
    try:
        text = _save_report(setup)
    except AutoSyncError as error:
        return msgspec.structs.replace(done, state="failed", text=f"the report was not committed: {mask(str(error))}")
    say(f"post_deploy_report: {text}")
    return msgspec.structs.replace(done, text=text)


def _save_report(setup: Setup) -> str:
    """Commit the report unless it says nothing new; a commit that came in between is absorbed."""
    tree = setup.tree
    for attempt in range(TRIES):
        base = tree.base()
        metrics, new = _measure(setup, tree, base)
        if not new:
            return "the report says nothing new, so nothing was committed"
        files = {REPORT: (setup.out / REPORT).read_text(), METRICS: (setup.out / "metrics.json").read_text()}
        title = f"ci: report of {metrics.entry.version or 'a run without a build'}: {metrics.entry.outcome} [skip ci]"
        try:
            return f"the report is commit {tree.save(files, title, base)[:12]}"
        except RemoteMoved:
            if attempt == TRIES - 1:
                raise
    raise AssertionError("unreachable")


WORK: Mapping[Job, Callable[[Setup, int], Result]] = {
    "build": build,
    "unit_test": test("unit_test"),
    "integration_test": test("integration_test"),
    "deploy": deploy,
    "post_deploy_report": post_deploy_report,
}
ACTIONS: Mapping[Action, Callable[[Setup, Result], Result]] = {
    "notify": _notify,
    "rollback": _rollback,
    "commit": _commit,
}
