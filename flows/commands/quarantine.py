"""quarantine list, show, replay: refused rows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from autosync.errors import ConfigError
from blocks.store import ledger
from flows.commands.base import AsJson, age, console, examples, print_json, print_table, workspace
from flows.commands.inspect import require_store
from flows.commands.sync import print_runs, run_all, status_of
from flows.workspace import now

app = typer.Typer(
    help="Refused rows: why, and again after a fix.", no_args_is_help=True, epilog=examples("autosync quarantine list")
)


@app.command("list", epilog=examples("autosync quarantine list", "autosync quarantine list contacts --json"))
def list_(source: Annotated[str | None, typer.Argument()] = None, as_json: AsJson = False) -> None:
    """Open refused rows, newest first."""
    here = workspace()
    require_store(here)
    with here.database(read_only=True) as db:
        items = ledger.open_items(db, source)
    if source is not None and not items:
        here.source(source)  # ConfigError for a name that no source has
    if as_json:
        print_json({"items": items})
        return
    rows = [
        [
            str(item["item"]),
            item["source"],
            item["id"] or "",
            item["place"],
            item["reason"],
            age(now() - item["first_seen"]),
        ]
        for item in items
    ]
    print_table("", ["item", "source", "id", "where", "reason", "age"], rows)
    if items:
        console().print("\nFix the source and run again, or: autosync quarantine replay ITEM --with FIXED.json")


@app.command(epilog=examples("autosync quarantine show 1"))
def show(item: int, as_json: AsJson = False) -> None:
    """One refused row: where it stood, why, and its raw text."""
    here = workspace()
    require_store(here)
    with here.database(read_only=True) as db:
        found = ledger.item(db, item)
    if found is None:
        raise ConfigError(f"there is no quarantine item {item}", todo="see: autosync quarantine list")
    raw = bytes(found.pop("raw")).decode(errors="backslashreplace")
    if as_json:
        print_json(found | {"raw": raw})
        return
    out = console()
    for name in ("source", "id", "place", "reason", "state"):
        out.print(f"{name:8}{found[name]}")
    out.print("\n" + raw)


@app.command(epilog=examples("autosync quarantine replay", "autosync quarantine replay 1 --with fixed.json"))
def replay(
    items: Annotated[list[int] | None, typer.Argument(help="Items; all open ones when none is named.")] = None,
    fixed: Annotated[Path | None, typer.Option("--with", help="File with the corrected text of the one item.")] = None,
    as_json: AsJson = False,
) -> None:
    """Send refused rows through the pipeline again, after a fix."""
    here = workspace()
    require_store(here)
    with here.database() as db:
        wanted = items or [row["item"] for row in ledger.open_items(db)]
        found = {number: ledger.item(db, number) for number in wanted}
    missing = [number for number, row in found.items() if row is None]
    if missing or (fixed is not None and len(wanted) != 1):
        raise ConfigError(
            f"there is no quarantine item {missing[0]}" if missing else "--with takes exactly one item",
            todo="see: autosync quarantine list",
        )
    if not wanted:
        print("nothing is in quarantine")
        return
    text = fixed.read_text() if fixed else None
    results = []
    for source in dict.fromkeys(row["source"] for row in found.values() if row):
        mine = [number for number, row in found.items() if row and row["source"] == source]
        results += run_all(here, [source], replay={"items": mine, "text": text})
    if as_json:
        print_json({"runs": results})
    else:
        print_runs(here, results)
    sys.exit(status_of(results))
