"""run, plan: the main job and what it would do."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Annotated, Any

import typer

from autosync.errors import AutoSyncError, Refused
from autosync.settings import Home
from flows.commands.base import AsJson, Names, app, console, examples, print_json, print_table, workspace
from flows.workspace import Workspace

Accept = Annotated[
    str, typer.Option(metavar="CODE", help="Let the one input that a guard refused pass; the refusal prints the code.")
]


@app.command(epilog=examples("autosync run", "autosync run contacts readings", "autosync run --json"))
def run(names: Names = None, as_json: AsJson = False, accept: Accept = "") -> None:
    """Sync all or the named sources once, as Prefect flow runs."""
    here = workspace()
    sources = here.settings.named(names or [])
    if not sources:
        from autosync.errors import ConfigError

        raise ConfigError("no source is configured", where=str(here.config), todo="add a [[source]] to it")
    results = run_all(here, [source.name for source in sources], accept)
    if not names and needs_report(here, results):
        from flows.service.running import write_report

        asyncio.run(write_report(here))
    if as_json:
        print_json({"runs": results})
    else:
        print_runs(here, results)
    raise typer.Exit(status_of(results))


def needs_report(here: Workspace, results: list[dict[str, Any]]) -> bool:
    """Whether a run of all sources leaves something new to report."""
    changed = any(result["outcome"] == "changed" for result in results)
    return here.home.database.exists() and (changed or not (here.home.reports / "report.md").exists())


def status_of(results: list[dict[str, Any]]) -> int:
    """0 when all runs did their work, 1 when one failed, else 3 when one was refused."""
    outcomes = {result["outcome"] for result in results}
    return 1 if "failed" in outcomes else 3 if "refused" in outcomes else 0


def run_all(here: Workspace, names: list[str], accept: str = "", **parameters: Any) -> list[dict[str, Any]]:
    """Run the sync flow for each source and return the runs as `run --json` prints them.

    One after the other, but none waits for another that waits for a service.
    """
    reach_server(here)
    from flows.service.running import sync_source

    return asyncio.run(_each(here, names, accept, parameters, sync_source))


def reach_server(here: Workspace) -> None:
    """Make sure that a Prefect server answers: the user's own, that of `autosync up`, or one for this command."""
    from flows import temporary_server

    temporary_server.reach_server(here.home, os.environ)
    temporary = temporary_server.is_temporary(os.environ["PREFECT_API_URL"])
    with waiting("starting Prefect's own server for this command", show=temporary):
        from flows.service.running import warm

        temporary_server.wait_until_served(os.environ)
        asyncio.run(warm())


async def _each(
    here: Workspace, names: list[str], accept: str, parameters: dict[str, Any], call: Any
) -> list[dict[str, Any]]:
    from flows.waiting import start

    runs = [await start(call(here, name, accept, **parameters)) for name in names]
    return [await run for run in runs]


class waiting:  # reads as a statement
    """A line on a terminal while something slow starts."""

    def __init__(self, text: str, *, show: bool) -> None:
        from rich.console import Console

        self._status = Console(stderr=True).status(text) if show and sys.stderr.isatty() else None

    def __enter__(self) -> None:
        if self._status:
            self._status.start()

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()


def print_runs(here: Workspace, results: list[dict[str, Any]]) -> None:
    """The summary that people read after a run."""
    columns = ["source", "outcome", "inserted", "updated", "deleted", "quarantined", "seq", "commit"]
    rows = [
        [result["source"], result["outcome"]]
        + [f"{result[name]:,}" for name in columns[2:6]]
        + [str(result["seq"] or ""), (result["commit"] or "")[:10]]
        for result in results
    ]
    print_table("", columns, rows)
    out = console()
    for result in results:
        if result["error"]:
            out.print(f"\n{result['source']}: {result['error']}", style="red")
    if all(result["outcome"] == "unchanged" and not result["commit"] for result in results):
        out.print("\nNothing changed: no commit, no notice.")
    out.print("")
    for label, path in places(here):
        out.print(f"{label:12}{path}")
    out.print(f"\nNext: {suggestion(results)}")


def places(here: Workspace) -> list[tuple[str, str]]:
    """Where people find what a run wrote."""
    home: Home = here.home
    found = [("database", home.database), ("mirror", home.mirror), ("repository", home.repository)]
    found += [("report", home.reports / "report.md"), ("logs", home.log)]
    return [(label, os.path.relpath(path)) for label, path in found if path.exists()]


def suggestion(results: list[dict[str, Any]]) -> str:
    """The command that helps most next."""
    bad = next((result for result in results if result["outcome"] == "refused"), None)
    if bad:
        return f"autosync plan {bad['source']}"
    if any(result["outcome"] == "failed" for result in results):
        return "autosync status"
    if any(result["quarantined"] for result in results):
        return "autosync quarantine list        (why rows were refused)"
    if any(result["outcome"] == "changed" for result in results):
        return "autosync log                    (what changed)"
    return "autosync up                     (server, UI and schedules)"


@app.command(epilog=examples("autosync plan", "autosync plan contacts --json"))
def plan(names: Names = None, as_json: AsJson = False) -> None:
    """Print exactly what run would do; write nothing."""
    here = workspace()
    sources = here.settings.named(names or [])
    plans = [plan_of(here, source.name) for source in sources]
    if as_json:
        print_json({"plans": plans})
    else:
        for found in plans:
            print_plan(found)
    outcomes = {found["outcome"] for found in plans}
    raise typer.Exit(1 if "failed" in outcomes else 3 if "refused" in outcomes else 0)


def plan_of(here: Workspace, name: str, override: Any = None) -> dict[str, Any]:
    """What a sync would do, as `plan --json` prints it.

    Args:
        override: What it would take instead of the source (flows.operations.overrides).
    """
    from flows.operations.plan import describe

    try:
        return describe(here, name, override)
    except Refused as error:
        return {"source": name, "outcome": "refused", "error": str(error)}
    except AutoSyncError as error:
        return {"source": name, "outcome": "failed", "error": str(error)}


def print_plan(found: dict[str, Any]) -> None:
    """The plan for people."""
    out = console()
    if "inserted" not in found:
        out.print(f"{found['source']}: {found.get('error') or 'nothing would change'}")
        _print_left_out(found)
        return
    out.print(
        f"{found['source']}: would insert {found['inserted']:,}, update {found['updated']:,}, delete "
        f"{found['deleted']:,}; {found['quarantined']:,} rows would go to quarantine"
    )
    for change in found["changes"]:
        out.print(f"  {change['op']:7} {change['id']}" + (f"  {change['fields']}" if change.get("fields") else ""))
    if found["more"]:
        out.print(f"  … and {found['more']:,} more")
    for refused in found["refused"]:
        out.print(f"  refuse  {refused['place']}: {refused['reason']}")
    if found.get("error"):
        out.print(f"\n{found['error']}", style="red")
    _print_left_out(found)


def _print_left_out(found: dict[str, Any]) -> None:
    """What a plan doesn't look at, and the empty line at its end."""
    out = console()
    for text in found.get("left_out", []):
        out.print(f"  left out: {text}")
    out.print("")
