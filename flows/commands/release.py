"""release: the jobs of the pipeline, one or all, and the rollback by hand."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autosync.errors import ConfigError
from autosync.release_policy import JOBS, Result
from autosync.suggestions import unknown_name
from flows.commands.base import AsJson, app, console, examples, print_json, print_table, workspace

if TYPE_CHECKING:
    from flows.release_pipeline.setup import Setup


STEPS = ("all", *JOBS, "rollback")


def _steps() -> list[str]:
    """For completion."""
    return list(STEPS)


def _option(text: str, *names: str, env: str = "", metavar: str = "TEXT") -> Any:
    return typer.Option(*names, help=text, envvar=env or None, show_default=False, metavar=metavar)


@app.command(epilog=examples("autosync release", "autosync release build --minutes 10", "autosync release rollback"))
def release(
    job: Annotated[
        str, typer.Argument(help=f"One of: {', '.join(STEPS)}.", autocompletion=_steps, show_default=False)
    ] = "all",
    out: Annotated[str, _option("Where results go.", metavar="DIR")] = "build/release",
    to: Annotated[str, _option("Folder of releases.", env="AUTOSYNC_DEPLOY_TO", metavar="DIR")] = "",
    unit_test: Annotated[str, _option("Its command.", "--unit-test", env="AUTOSYNC_UNIT_TEST")] = "",
    integration_test: Annotated[
        str, _option("Its command.", "--integration-test", env="AUTOSYNC_INTEGRATION_TEST")
    ] = "",
    smoke: Annotated[str, _option("What proves a deployed release.", "--smoke", env="AUTOSYNC_SMOKE")] = "",
    minutes: Annotated[float, typer.Option(min=0.01, help="Minutes that one command may take.")] = 30.0,
    commit: Annotated[bool, typer.Option(help="Commit the report.")] = True,
    push: Annotated[bool, typer.Option(help="Push tag and report to origin.")] = False,
    as_json: AsJson = False,
) -> None:
    """Build, test, deploy, report; or one job of them.

    `rollback` goes back one release.
    """
    if job not in STEPS:
        raise unknown_name("job", job, STEPS)
    names = {"out": out, "to": to, "unit_test": unit_test, "integration_test": integration_test, "smoke": smoke}
    options: dict[str, Any] = {**names, "minutes": minutes, "commit": commit, "push": push}
    from flows.release import open_setup, run_job

    setup = open_setup(**options)
    if job == "rollback":
        _roll_back(setup, as_json)
        return
    results = _all(setup, options) if job == "all" else [run_job(setup, next(name for name in JOBS if name == job))]
    if as_json:
        print_json({"jobs": results})
    else:
        _print(setup, results)
    raise typer.Exit(1 if any(result.state == "failed" for result in results) else 0)


def _roll_back(setup: Setup, as_json: bool) -> None:
    from flows.release_pipeline.jobs import roll_back

    text = roll_back(setup, asked=True)
    if not text:
        raise ConfigError("nothing is deployed", where=str(setup.to), todo="see: autosync release --help")
    if as_json:
        print_json({"rollback": text})
    else:
        console().print(text)


def _all(setup: Setup, options: dict[str, Any]) -> list[Result]:
    """All jobs, as a run of the Prefect flow."""
    import logging

    from flows.temporary_server import reach_server, wait_until_served

    here = workspace(private=False)  # what it builds is for others as well
    reach_server(here.home, os.environ)
    wait_until_served(os.environ)
    from flows import release as flows
    from flows.release_pipeline.setup import load_result

    logging.getLogger("prefect").setLevel(logging.CRITICAL)
    flow: Any = flows.release  # typed as it is called here: to return the state
    asyncio.run(flow(**options, repo=str(setup.repo), home=str(here.home.path), return_state=True))
    return [load_result(setup, name, {}) for name in JOBS]


def _print(setup: Setup, results: list[Result]) -> None:
    rows = [
        [
            r.job,
            r.state,
            f"{r.seconds:.1f} s",
            str(r.tries),
            f"{r.tests.passed}/{r.tests.total}" if r.tests else "",
            r.text,
        ]
        for r in results
    ]
    print_table("", ["job", "state", "time", "tries", "tests", "what happened"], rows)
    out = console()
    for label, path in (("report", setup.out / "report.md"), ("logs", setup.out / "run" / "logs")):
        if Path(path).exists():
            out.print(f"{label:12}{os.path.relpath(path)}")
