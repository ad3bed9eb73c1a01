"""The release flow: build, unit_test, integration_test, deploy, post_deploy_report, each with its policy.

One job is `python -m flows.release JOB` or `autosync release JOB`; all of them are the Prefect flow `release`,
which is made when it is first asked for, so that a single job doesn't pay for the import of Prefect.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from autosync.errors import AutoSyncError
from autosync.release_policy import JOBS, Action, Job, JobFailed, Result, State, due, next_action, read_junit
from flows.log import event, mask, open_log
from flows.release_pipeline.jobs import ACTIONS, WORK
from flows.release_pipeline.programs import say
from flows.release_pipeline.setup import COMMANDS, REPORT, Setup, junit_of, known, load_result, write
from flows.tasks import Stage, stage
from flows.workspace import open_workspace

if TYPE_CHECKING:
    from prefect.flows import Flow

    release: Flow[..., Any]

__all__ = ["open_setup", "release", "run_job"]

DESCRIPTIONS: dict[Job, str] = {
    "build": "Make the wheel and artifact.zip; a failure ends the release.",
    "unit_test": "Run the unit tests; a failure is tried again once.",
    "integration_test": "Run the integration tests; a failure is told on Slack and ends the release.",
    "deploy": "Switch to the new release, prove and tag it; a failure switches back.",
    "post_deploy_report": "Write report.md and metrics.json; commit them when they say something new.",
}


def open_setup(
    *,
    repo: str = "",
    out: str = "",
    to: str = "",
    unit_test: str = "",
    integration_test: str = "",
    smoke: str = "",
    minutes: float = 30.0,
    commit: bool = True,
    push: bool = False,
) -> Setup:
    """The setup for the given values; an empty one means the default."""
    folder = Path(repo or ".").resolve()
    results = folder / (out or "build/release")
    given: dict[Job, str] = {"unit_test": unit_test, "integration_test": integration_test}
    return Setup(
        repo=folder,
        out=results,
        to=(folder / to).resolve() if to else results / "deployed",
        commands={job: given[job] or command for job, command in COMMANDS.items()},
        smoke=smoke,
        minutes=minutes,
        commit=commit,
        push=push,
    )


def run_job(setup: Setup, job: Job) -> Result:
    """Run one job, carry out its policy, keep its result; a failure is in the result, not raised."""
    started, clock, tries = time.time(), time.perf_counter(), 0
    action: Action = "retry"
    while action == "retry":
        tries += 1
        say(f"{job}: try {tries}")
        done = _attempt(setup, job, tries)
        action = next_action(job, done.state == "done", tries)
        say(f"{job}: {done.state}, next: {action.replace('_', ' ')}" + (f" ({done.text})" if done.text else ""))
    text = f"passed at try {tries}" if tries > 1 and done.state == "done" else done.text
    done = msgspec.structs.replace(done, started=round(started, 3), tries=tries, action=action, text=text)
    if step := ACTIONS.get(action):
        done = step(setup, done)
    done = msgspec.structs.replace(done, seconds=round(time.perf_counter() - clock, 3))
    write(setup.record(job), msgspec.json.format(msgspec.json.encode(done), indent=1))
    return done


def _attempt(setup: Setup, job: Job, tries: int) -> Result:
    try:
        return WORK[job](setup, tries)
    except (AutoSyncError, OSError) as error:
        failed = msgspec.structs.replace(known(setup, Result(job=job)), state="failed", text=mask(str(error)))
    try:
        junit = junit_of(setup, job, tries)
        return msgspec.structs.replace(failed, tests=read_junit(junit.read_bytes()) if junit.exists() else None)
    except JobFailed:
        return failed  # a run that died while it wrote its results


def _in_stage(setup: Setup, job: Job) -> Result:
    result = run_job(setup, job)
    if result.state == "failed":
        raise JobFailed(result.text or f"{job} failed")
    return result


STAGES: dict[Job, Stage[[Setup, Job], Result]] = {
    job: stage(job, text, retries=0)(_in_stage) for job, text in DESCRIPTIONS.items()
}


async def _jobs(setup: Setup) -> dict[Job, State]:
    """Run the jobs that are due, one after the other."""
    shutil.rmtree(setup.out / "run", ignore_errors=True)
    states: dict[Job, State] = {}
    for job in JOBS:
        if due(job, states):
            try:
                states[job] = (await STAGES[job](setup, job)).state
            except JobFailed:
                states[job] = "failed"
        else:
            states[job] = "skipped"
        result = load_result(setup, job, {})
        event("release", job, f"{result.state} in {result.seconds:.1f} s: {result.text}")
    return states


@cache
def _flow() -> Flow[..., Any]:
    from prefect import flow
    from prefect.artifacts import acreate_markdown_artifact
    from prefect.states import Completed, Failed

    @flow(name="release", description="Build, test, deploy and report a release.", flow_run_name="release")
    async def release(
        repo: str = "",
        out: str = "",
        to: str = "",
        unit_test: str = "",
        integration_test: str = "",
        smoke: str = "",
        minutes: float = 30.0,
        commit: bool = True,
        push: bool = False,
        home: str = "",
    ) -> Any:
        """Run all jobs of a release here, with the policies that the workflow on GitHub has.

        Args:
            repo: The working copy; the current folder when empty.
            out: Where results go, from there; build/release when empty.
            to: The folder of releases; deployed/ in `out` when empty.
            unit_test: The command; make test-unit when empty.
            integration_test: The command; make test-integration when empty.
            smoke: The command that proves the deployed release; autosync --help when empty.
            minutes: How long one command may take.
            commit: Whether the report is committed.
            push: Whether tag and report go to the remote `origin`.
            home: The home folder, whose log gets the events.
        """
        names = {"repo": repo, "out": out, "to": to, "unit_test": unit_test, "integration_test": integration_test}
        setup = open_setup(**names, smoke=smoke, minutes=minutes, commit=commit, push=push)
        open_log(open_workspace(home, private=False).home.log)
        states = await _jobs(setup)
        report = setup.out / REPORT
        if report.exists():
            text = await asyncio.to_thread(report.read_text)
            await acreate_markdown_artifact(markdown=text, key="release", description="The last release")
        said = ", ".join(f"{job} {state}" for job, state in states.items())
        return Failed(message=said) if "failed" in states.values() else Completed(message=said)

    return release


def __getattr__(name: str) -> Any:
    if name == "release":
        return _flow()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":  # `python -m flows.release JOB` is `autosync release JOB`
    from flows.cli import main

    sys.argv.insert(1, "release")
    main()
