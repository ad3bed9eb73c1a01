"""up, report, backup, restore, compact, health: the service and its products."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from autosync.backups import maker
from autosync.errors import ConfigError
from autosync.suggestions import choose_from
from flows.commands.base import AsJson, app, console, examples, line_printer, moment, print_json, print_table, workspace
from flows.commands.inspect import require_store

FORMATS = ("md", "pdf")
if TYPE_CHECKING:
    from reports.report_generator import Format

backup_app = typer.Typer(help="Copies of the database: make, list, restore.", invoke_without_command=True)
app.add_typer(backup_app, name="backup")


@app.command(epilog=examples("autosync up", "autosync up --port 4210 --no-observe"))
def up(
    port: Annotated[int, typer.Option(help="Port of the Prefect server, where you have none.")] = 4200,
    observe: Annotated[bool, typer.Option(help="Sync files within seconds of a save.")] = True,
    as_json: AsJson = False,
) -> None:
    """Server, UI, worker, observer and deployments, until Ctrl-C."""
    from flows.service.up import up as serve

    serve(workspace(), port, line_printer(as_json), observe=observe)


@app.command(epilog=examples("autosync health", "autosync health --json"))
def health(as_json: AsJson = False) -> None:
    """One row a module, each tried: from the server to freshness."""
    from flows.prefect_server import prepare

    here = workspace()
    prepare(here.home, os.environ)
    from flows.operations.health import examine, worst

    rows = examine(here)
    if as_json:
        print_json({"status": worst(rows), "modules": rows})
    else:
        print_table("", ["module", "status", "what", "seconds"], [_health(row) for row in rows])
    raise typer.Exit(1 if worst(rows) == "error" else 0)


def _health(row: Any) -> list[str]:
    return [row.module, row.status, row.text, f"{row.seconds:.3f}"]


@backup_app.callback(epilog=examples("autosync backup", "autosync backup --json"))
def backup(context: typer.Context, as_json: AsJson = False) -> None:
    """Back the database up now."""
    if context.invoked_subcommand is not None:
        return
    from flows.operations.backups import left_alone, open_target, save_backup

    here = workspace()
    require_store(here)
    saved = save_backup(here)
    if as_json:
        print_json(msgspec.to_builtins(saved.stored) | {"left": saved.left})
        return
    address = open_target(here).address
    console().print(f"{saved.stored.name}, {saved.stored.size:,} bytes, to {address}")
    if saved.left:
        console().print(left_alone(saved.left, address))


@backup_app.command("list", epilog=examples("autosync backup list", "autosync backup list --all --json"))
def backup_list(
    every: Annotated[bool, typer.Option("--all", help="Also those of other homes, or of nobody known.")] = False,
    as_json: AsJson = False,
) -> None:
    """This home's backups, newest first."""
    from flows.operations.backups import list_backups

    backups = list_backups(workspace())
    shown = (*backups.own, *(backups.others if every else ()))
    if as_json:
        rows = [msgspec.to_builtins(backup) | {"own": backup in backups.own, "home": maker(backup)} for backup in shown]
        print_json({"backups": rows, "others": len(backups.others)})
        return
    columns = ["name", "bytes", "made", "sha256"]
    lines = [[backup.name, f"{backup.size:,}", moment(backup.time), backup.sha256[:16]] for backup in shown]
    if every:
        columns.append("home")
        for line, backup in zip(lines, shown, strict=True):
            line.append("this home" if backup in backups.own else maker(backup) or "unknown")
    print_table("", columns, lines)
    if backups.others and not every:
        text = f"{len(backups.others):,} more there, not proven to be of this home: autosync backup list --all"
        console().print(f"\n{text}")


@backup_app.command("restore", epilog=examples("autosync backup restore autosync-20260101T000000Z-r7.db.gz"))
def backup_restore(
    name: str,
    foreign: Annotated[
        bool, typer.Option(help="Also one that another home made, or that nobody is known for.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Replace the database by a backup. The present one is kept aside."""
    from flows.operations.backups import restore_backup

    path = restore_backup(workspace(), name, foreign=foreign)
    if as_json:
        print_json({"database": str(path), "backup": name})
        return
    console().print(f"{path} is now {name}. Mirror and repository follow with: autosync run")


@app.command(epilog=examples("autosync compact --plan", "autosync compact"))
def compact(
    plan: Annotated[bool, typer.Option("--plan", help="Only show what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Merge history that is past its [retention].

    Every change stays for a while, then one state a day, then one a month.
    """
    here = workspace()
    require_store(here)
    if plan:
        from flows.compact import plan_compaction

        found = [msgspec.to_builtins(row) for row in plan_compaction(here)]
    else:
        from flows.commands.sync import reach_server

        reach_server(here)
        from flows.service.running import compact_history

        found = asyncio.run(compact_history(here))
    if as_json:
        print_json({"planned": plan, "collections": found})
        return
    columns = ["collection", "points", "merged", "changes", "bytes", "version files", "bytes"]
    names = ["points", "merged", "rows", "bytes", "files", "file_bytes"]
    print_table("", columns, [[row["collection"], *(f"{row[name]:,}" for name in names)] for row in found])
    out = console()
    for path in [path for row in found for path in row["damaged"]]:
        out.print(f"\nleft alone, because it can't be read: {path}", style="red")
    if freed := sum(row["freed"] for row in found):
        out.print(f"\nThe database's file is {freed:,} bytes smaller.")


@app.command(epilog=examples("autosync report", "autosync report --format pdf --lang fa"))
def report(
    format: Annotated[str, typer.Option(help="md, or pdf for both.")] = "md",
    lang: Annotated[str, typer.Option(help="en or fa; the configuration's when left out.")] = "",
    as_json: AsJson = False,
) -> None:
    """Write the report: KPIs, failures, changes, charts."""
    from flows.operations.analyze import analyze
    from flows.operations.report import write_report
    from reports.words import LANGUAGES

    here = workspace()
    require_store(here)
    for name, names in ((format, FORMATS), (lang or here.settings.report.language, LANGUAGES)):
        if name not in names:
            raise ConfigError("the report is written as md or pdf, in en or fa", todo=choose_from(name, names))
    formats: list[Format] = ["md", "pdf"] if format == "pdf" else ["md"]
    language = next((known for known in LANGUAGES if known == lang), here.settings.report.language)
    files = write_report(here, analyze(here), formats, language)
    if as_json:
        print_json({"files": [str(path) for path in files]})
    else:
        for path in files:
            console().print(os.path.relpath(path))


@app.command(epilog=examples("autosync schedule contacts", "autosync schedule contacts --budget 48"))
def schedule(
    source: str,
    budget: Annotated[float, typer.Option(help="Syncs a day to plan for.")] = 24.0,
    as_json: AsJson = False,
) -> None:
    """What history says about when a source changes."""
    from flows.operations.schedule import learnt

    here = workspace()
    require_store(here)
    here.source(source)
    found = learnt(here, source, budget)
    if as_json:
        print_json(found)
        return
    profile, out = found["profile"], console()
    out.print(f"{source}: {found['changes']} arrivals of changes, {profile.changes_per_day:.2f} expected a day\n")
    days, blocks = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], " ▁▂▃▄▅▆▇█"
    top = max(profile.hourly) or 1.0
    for day, name in enumerate(days):
        hours = profile.hourly[24 * day : 24 * day + 24]
        out.print(f"{name}  {''.join(blocks[min(round(8 * hour / top), 8)] for hour in hours)}  00-23 UTC")
    weights = ", ".join(f"{name} {share:.0%}" for name, share in profile.weights.items())
    out.print(f"\nBelieved shapes of the week: {weights}")
    out.print(
        f"At {budget:g} syncs a day, the next would be: {', '.join(moment(time) for time in profile.next_syncs[:5])}"
    )
